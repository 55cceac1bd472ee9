//! The `flotilla` command.

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    flotilla_proto::process::keep_memory_private();
    flotilla_proto::process::install_tls_provider();
    let status = flotilla::run(std::env::args_os().collect()).await;
    ExitCode::from(status.code())
}
