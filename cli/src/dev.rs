//! `flotilla dev`: the whole product in this process.

use crate::arguments::Dev;
use crate::failure::{ExitStatus, Failure};

/// Runs `flotilla dev` until it is interrupted.
pub async fn run(_options: Dev) -> Result<ExitStatus, Failure> {
    tokio::task::yield_now().await;
    Err(Failure::usage("not yet"))
}
