//! The body of one open stream: the first payload, then events as they happen.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use super::environment::Environment;
use super::events;

/// What a stream is told to do.
#[derive(Debug)]
pub(super) enum Piece {
    /// Send this.
    Text(Bytes),
    /// Break off without ending the answer.
    Cut,
}

/// How the first payload is sent.
#[derive(Clone, Copy, Debug)]
pub(super) enum Pace {
    Full,
    BytesPerSecond(u32),
    /// Half of it, and nothing more.
    Half,
}

#[derive(Debug)]
struct OpenStream {
    environment: Arc<Environment>,
    events: mpsc::Receiver<Piece>,
    /// What is left of the first payload.
    first: Bytes,
    pace: Pace,
    hanging: bool,
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.environment.stream_ended();
    }
}

/// Registers a stream with the environment; it counts as open until the result is dropped.
pub(super) fn open(environment: &Arc<Environment>, pace: Pace) -> impl Stream<Item = io::Result<Bytes>> + use<> {
    let (first, events) = environment.open_stream();
    let stream = OpenStream { environment: Arc::clone(environment), events, first, pace, hanging: false };
    futures_util::stream::unfold(stream, |mut stream| async move {
        let text = stream.next().await?;
        Some((text, stream))
    })
}

impl OpenStream {
    async fn next(&mut self) -> Option<io::Result<Bytes>> {
        let text = if self.first.is_empty() { self.next_event().await? } else { Ok(self.next_of_first().await) };
        if let Ok(text) = &text {
            self.environment.sent(text.len());
        }
        Some(text)
    }

    async fn next_of_first(&mut self) -> Bytes {
        const SLICES_PER_SECOND: u32 = 50;
        match self.pace {
            Pace::Full => std::mem::take(&mut self.first),
            Pace::BytesPerSecond(rate) => {
                sleep(Duration::from_secs(1) / SLICES_PER_SECOND).await;
                let slice = usize::try_from((rate / SLICES_PER_SECOND).max(1)).expect("32 bits fit");
                self.first.split_to(slice.min(self.first.len()))
            }
            Pace::Half => {
                self.hanging = true;
                let half = self.first.len() / 2;
                std::mem::take(&mut self.first).split_to(half)
            }
        }
    }

    /// The next event or heartbeat; `None` ends the answer.
    async fn next_event(&mut self) -> Option<io::Result<Bytes>> {
        loop {
            let piece = match self.environment.heartbeat() {
                Some(period) if !self.hanging => match timeout(period, self.events.recv()).await {
                    // Muted meanwhile: look at the setting again.
                    Err(_) if self.environment.heartbeat().is_none() => continue,
                    Err(_) => Some(Piece::Text(events::HEARTBEAT)),
                    Ok(piece) => piece,
                },
                Some(_) | None => self.events.recv().await,
            };
            match piece? {
                Piece::Text(_) if self.hanging => {}
                Piece::Text(text) => return Some(Ok(text)),
                Piece::Cut => return Some(Err(io::Error::other("the stream was told to break off"))),
            }
        }
    }
}
