//! One connection. Of each direction everything is taken in at once, and goes on as the rule of the moment wants it.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::sync::{mpsc, watch};

use super::State;
use super::rule::{Flow, Opened, Rule};

/// The largest piece that is taken in at once.
const PIECE: usize = 64 * 1024;
/// How many pieces of one direction may wait.
const PIECES: usize = 1024;
/// Between two slices.
const SLICE_PAUSE: Duration = Duration::from_micros(200);

/// A connection whose client was accepted.
#[derive(Clone, Debug)]
pub(super) struct Connection {
    pub(super) state: watch::Receiver<State>,
    pub(super) opened: Opened,
}

/// What was taken in.
#[derive(Debug)]
enum Piece {
    Bytes(Vec<u8>),
    /// The proper end.
    End,
    /// The connection broke there.
    Break,
}

/// The connection is to be reset at both ends.
#[derive(Debug)]
pub(super) struct Broken;

/// One direction.
#[derive(Debug)]
struct Direction {
    connection: Connection,
    flow: fn(Rule) -> Flow,
    last: Flow,
    /// Bytes that went on under the present rule.
    passed: usize,
    /// Something was lost.
    lossy: bool,
}

impl Connection {
    fn rule(&mut self) -> Rule {
        self.state.borrow_and_update().rules.of(self.opened)
    }

    /// Waits until rules have changed.
    async fn changed(&mut self) -> Result<(), Broken> {
        self.state.changed().await.map_err(|_| Broken)
    }

    pub(super) fn is_refused(&mut self) -> bool {
        self.rule().refuse
    }

    async fn refused(mut self) {
        while !self.is_refused() {
            if self.changed().await.is_err() {
                return;
            }
        }
    }

    /// Carries bytes in both directions until both have ended.
    pub(super) async fn carry(self, mut client: TcpStream, mut server: TcpStream) -> Result<(), Broken> {
        for stream in [&client, &server] {
            // What comes in small pieces goes on in small pieces.
            let _ = stream.set_nodelay(true);
        }
        let outcome = {
            let (from_client, to_client) = client.split();
            let (from_server, to_server) = server.split();
            let mut up = Direction::new(self.clone(), |rule| rule.up);
            let mut down = Direction::new(self.clone(), |rule| rule.down);
            let both =
                async { tokio::try_join!(up.carry(from_client, to_server), down.carry(from_server, to_client)) };
            tokio::select! {
                outcome = both => outcome.map(|((), ())| ()),
                () = self.clone().refused() => Err(Broken),
            }
        };
        if outcome.is_err() {
            for stream in [&client, &server] {
                let _ = stream.set_zero_linger();
            }
        }
        outcome
    }
}

impl Direction {
    fn new(connection: Connection, flow: fn(Rule) -> Flow) -> Self {
        Self { connection, flow, last: Flow::Pass, passed: 0, lossy: false }
    }

    async fn carry(&mut self, from: ReadHalf<'_>, to: WriteHalf<'_>) -> Result<(), Broken> {
        let (sender, receiver) = mpsc::channel(PIECES);
        let taking = async {
            take_in(from, sender).await;
            Ok(())
        };
        tokio::try_join!(taking, self.give_out(receiver, to)).map(|((), ())| ())
    }

    async fn give_out(
        &mut self,
        mut pieces: mpsc::Receiver<(Instant, Piece)>,
        mut to: WriteHalf<'_>,
    ) -> Result<(), Broken> {
        loop {
            let next = tokio::select! {
                next = pieces.recv() => next,
                outcome = lifted(self.connection.clone(), self.flow), if self.lossy => return outcome,
            };
            let Some((arrived, piece)) = next else {
                return if self.lossy { lifted(self.connection.clone(), self.flow).await } else { Ok(()) };
            };
            let flow = self.until_due(arrived).await?;
            match (flow, piece) {
                (Flow::BlackHole, _) => self.lossy = true,
                (_, Piece::Break) => return Err(Broken),
                // When the receiver is gone, the other direction tells the sender so, as its rule wants it.
                (_, Piece::End) => drop(to.shutdown().await),
                (flow, Piece::Bytes(bytes)) => self.write(flow, &bytes, &mut to).await?,
            }
        }
    }

    /// Waits as long as the rule wants it, and returns what is to happen then.
    async fn until_due(&mut self, arrived: Instant) -> Result<Flow, Broken> {
        loop {
            let flow = (self.flow)(self.connection.rule());
            if flow != self.last {
                (self.last, self.passed) = (flow, 0);
            }
            match flow {
                Flow::BlackHole => return Ok(flow),
                _ if self.lossy => return Err(Broken),
                Flow::Hold => self.connection.changed().await?,
                Flow::Delay(delay) if arrived.elapsed() < delay => tokio::select! {
                    () = tokio::time::sleep(delay.saturating_sub(arrived.elapsed())) => {}
                    outcome = self.connection.changed() => outcome?,
                },
                Flow::Delay(_) | Flow::Pass | Flow::Slice(_) | Flow::CutAfter(_) => return Ok(flow),
            }
        }
    }

    async fn write(&mut self, flow: Flow, bytes: &[u8], to: &mut WriteHalf<'_>) -> Result<(), Broken> {
        match flow {
            Flow::Slice(size) => {
                for slice in bytes.chunks(size.max(1)) {
                    let _ = to.write_all(slice).await;
                    tokio::time::sleep(SLICE_PAUSE).await;
                }
            }
            Flow::CutAfter(limit) => {
                let part = &bytes[..bytes.len().min(limit - self.passed)];
                self.passed += part.len();
                let _ = to.write_all(part).await;
                if self.passed == limit {
                    return Err(Broken);
                }
            }
            Flow::Pass | Flow::Delay(_) | Flow::Hold | Flow::BlackHole => {
                let _ = to.write_all(bytes).await;
            }
        }
        Ok(())
    }
}

/// Waits until a direction lets news through again; by then the connection is broken.
async fn lifted(mut connection: Connection, flow: fn(Rule) -> Flow) -> Result<(), Broken> {
    while matches!(flow(connection.rule()), Flow::BlackHole | Flow::Hold) {
        connection.changed().await?;
    }
    Err(Broken)
}

#[expect(clippy::disallowed_methods, reason = "a delay counts from the arrival")]
async fn take_in(mut from: ReadHalf<'_>, pieces: mpsc::Sender<(Instant, Piece)>) {
    loop {
        let mut bytes = vec![0; PIECE];
        let piece = match from.read(&mut bytes).await {
            Ok(0) => Piece::End,
            Ok(length) => {
                bytes.truncate(length);
                bytes.shrink_to_fit();
                Piece::Bytes(bytes)
            }
            Err(_) => Piece::Break,
        };
        let is_last = matches!(piece, Piece::End | Piece::Break);
        if pieces.send((Instant::now(), piece)).await.is_err() || is_last {
            return;
        }
    }
}
