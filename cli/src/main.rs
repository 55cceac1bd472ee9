//! The `flotilla` command.

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    flotilla_proto::process::forbid_core_dumps();
    flotilla_proto::process::install_tls_provider();
    let status = flotilla::run(std::env::args_os().collect()).await;
    ExitCode::from(status.code())
}
