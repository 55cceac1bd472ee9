//! The program `flotilla-control`.

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use flotilla_control::{Options, Settings};
use flotilla_proto::process::{
    LogOptions, forbid_core_dumps, install_tls_provider, parse_arguments, raise_file_limit, shutdown_requested,
};

/// How long blocking work that is still under way at the end may take.
const STRAGGLER_TIMEOUT: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let parsed = parse_arguments::<Options>(std::env::args_os()).and_then(|options| {
        let log = options.log.clone();
        Ok((log, options.check()?))
    });
    let (log, settings) = match parsed {
        Ok(parsed) => parsed,
        Err(error) => {
            // A closed standard error leaves only the exit status to tell.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    match start(&log, settings) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start(log: &LogOptions, settings: Settings) -> anyhow::Result<()> {
    log.start();
    forbid_core_dumps();
    install_tls_provider();
    raise_file_limit();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start the runtime")?;
    let result = runtime.block_on(flotilla_control::run(settings, shutdown_requested()));
    // A commit on a disk that hangs must not hold up the end: what it was about was acknowledged to nobody.
    runtime.shutdown_timeout(STRAGGLER_TIMEOUT);
    result
}
