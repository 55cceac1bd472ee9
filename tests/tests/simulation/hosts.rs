//! The processes: control and workers, made of the real parts, on turmoil's network.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use flotilla_control::simulation::Disk;
use flotilla_proto::process::{Chance, Clock};
use flotilla_proto::{Incarnation, Labels, StoreUrl};
use flotilla_worker::simulation::{Connector, Memory};
use futures_util::future::BoxFuture;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::sync::CancellationToken;
use tonic::codegen::{Service, http::Uri};
use tonic::transport::server::Connected;
use turmoil::net::{TcpListener, TcpStream};

use crate::dice::Dice;
use crate::source::WorkerSources;
use crate::store::WorkerStore;
use crate::world::Shared;

/// Where control listens.
const PORT: u16 = 7400;
/// How long the disk of a worker may lag behind its memory.
const DISK_LAG: u64 = 500;

/// The name of a worker's host.
pub(crate) fn worker_name(number: usize) -> String {
    format!("w{}", number + 1)
}

/// Control's URL.
pub(crate) fn control_url() -> String {
    format!("http://control:{PORT}")
}

/// Random numbers of a process.
fn chance(world: &Shared) -> Chance {
    let dice = Mutex::new(Dice::new(world.lock().unwrap().dice.next()));
    Chance::from_fn(move || dice.lock().unwrap().next())
}

/// The clock of a process.
fn clock(world: &Shared) -> Clock {
    Clock::at(world.lock().unwrap().wall())
}

/// One run of control.
pub(crate) async fn control(world: Shared, disk: Disk) -> turmoil::Result {
    let url = StoreUrl::parse("url", "redis://store:6379").unwrap();
    let listener = TcpListener::bind(("0.0.0.0", PORT)).await?;
    let incoming = futures_util::stream::unfold(listener, |listener| async move {
        let accepted = listener.accept().await.map(|(stream, _)| Accepted(stream));
        Some((accepted, listener))
    });
    let clock = clock(&world);
    let parts = flotilla_control::simulation::Parts {
        settings: flotilla_control::Settings::new("unused", url),
        disk,
        clock,
        chance: chance(&world),
        commit_time: Duration::from_millis(5),
    };
    Ok(flotilla_control::simulation::serve(parts, incoming).await?)
}

/// One run of a worker.
pub(crate) async fn worker(world: Shared, number: usize) -> turmoil::Result {
    let (memory, leave, starts) = {
        let mut here = world.lock().unwrap();
        let lag = here.dice.of(0..DISK_LAG);
        let on_disk = here.now.saturating_sub(lag);
        let disk = &mut here.disks[number];
        disk.starts += 1;
        disk.leave = CancellationToken::new();
        disk.written.retain(|(at, _)| *at <= on_disk);
        let memory = disk.written.last().map(|(_, memory)| memory.clone()).unwrap_or_default();
        (memory, disk.leave.clone(), disk.starts)
    };
    let chance = chance(&world);
    let incarnation = Incarnation {
        state_directory: format!("directory-{}", worker_name(number)).parse()?,
        start_counter: starts,
        random: chance.u64(),
    };
    let disk = Arc::clone(&world);
    let keep = move |memory: Memory| {
        let mut world = disk.lock().unwrap();
        let now = world.now;
        world.disks[number].written.push((now, memory));
    };
    let clock = clock(&world);
    let parts = flotilla_worker::simulation::Parts {
        name: worker_name(number).parse()?,
        labels: Labels::new(),
        capacity: None,
        incarnation,
        control: vec![control_url().parse()?],
        clock,
        chance,
        connector: connector(),
        stores: Arc::new(WorkerStore { world: Arc::clone(&world), worker: number }),
        sources: Arc::new(WorkerSources { world: Arc::clone(&world), worker: number, run: starts }),
        memory,
        keep: Arc::new(keep),
        leave,
        drain_timeout: Duration::from_secs(10),
    };
    let ended = flotilla_worker::simulation::run(parts).await;
    world.lock().unwrap().note(format!("{} ended: {ended:?}", worker_name(number)));
    Ok(())
}

/// Connects over turmoil's network.
pub(crate) fn connector() -> Connector {
    Arc::new(|endpoint| Box::pin(async move { endpoint.connect_with_connector(Dialer).await }))
}

/// Makes connections for tonic.
#[derive(Debug, Clone)]
pub(crate) struct Dialer;

impl Service<Uri> for Dialer {
    type Response = TokioIo<TcpStream>;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<TokioIo<TcpStream>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        Box::pin(async move {
            let host = uri.host().unwrap_or_default().to_owned();
            Ok(TokioIo::new(TcpStream::connect((host.as_str(), uri.port_u16().unwrap_or(PORT))).await?))
        })
    }
}

/// A connection that control accepted.
struct Accepted(TcpStream);

impl Connected for Accepted {
    type ConnectInfo = ();

    fn connect_info(&self) -> Self::ConnectInfo {}
}

impl AsyncRead for Accepted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for Accepted {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}
