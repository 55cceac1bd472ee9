//! The program `flotilla-worker`.

use std::io::Write as _;
use std::pin::pin;
use std::process::ExitCode;

use anyhow::Context as _;
use flotilla_proto::process::{forbid_core_dumps, install_tls_provider, raise_file_limit, shutdown_requested};
use flotilla_worker::app::App;
use flotilla_worker::config::{Options, Settings};

/// The system's allocator keeps what was used for payloads once. `.cargo/config.toml` has this one give it back soon.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let (options, settings) = match Options::parse_from_process(std::env::args_os()) {
        Ok(parsed) => parsed,
        Err(error) => {
            // A closed standard error leaves nobody to tell.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    options.log.start();
    forbid_core_dumps();
    install_tls_provider();
    raise_file_limit();
    match run(settings) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // As control does: a plain line, whatever the log looks like.
            let _ = writeln!(std::io::stderr(), "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(settings: Settings) -> anyhow::Result<()> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start the runtime")?;
    runtime.block_on(async {
        let mut shutdown = pin!(shutdown_requested());
        // Signals are listened for before anybody can know that the worker is there.
        let mut worker = tokio::select! {
            biased;
            requested = &mut shutdown => return requested.context("cannot wait for signals"),
            started = App::start(settings) => started?,
        };
        tokio::select! {
            ended = worker.ended() => return Err(ended.into()),
            requested = shutdown => requested.context("cannot wait for signals")?,
        }
        tracing::info!("leaving");
        Ok(worker.stop().await?)
    })
}
