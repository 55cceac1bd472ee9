//! Runs what is shipped: the three binaries, a real Redis, and the simulator in LaunchDarkly's place, each on
//! free ports of the loopback interface and in a directory of its own. Start reading at [`Fleet`].

mod cli;
mod cluster;
mod fleet;
mod http;
mod links;
mod process;
mod redis_server;
mod secured;
mod sentinels;
mod tls;
mod tools;

use std::time::Duration;

pub use cli::CliOutput;
pub use cluster::RedisCluster;
pub use fleet::{Fleet, FleetBuilder};
pub use http::{HttpAnswer, http_get};
pub use links::{Link, Links};
pub use process::{Listening, Process};
pub use redis_server::{RedisServer, free_port, redis_info};
pub use sentinels::Sentinels;
pub use tls::TlsFiles;
pub use tools::{binary_directory, binary_in, have_tool, require_tool, workspace_directory};

/// How often a predicate is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);

/// Waits until the predicate gives a value, and returns it. Its error says what was seen instead.
///
/// # Panics
/// After `bound`, with `what` and the state that was seen last.
pub async fn wait_until<T>(
    what: &str,
    bound: Duration,
    mut predicate: impl AsyncFnMut() -> Result<T, String>,
) -> T {
    let mut last = "it was not looked at to the end even once".to_owned();
    let looking = async {
        loop {
            match predicate().await {
                Ok(value) => return value,
                Err(state) => last = state,
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    };
    let outcome = tokio::time::timeout(bound, looking).await;
    outcome
        .unwrap_or_else(|_| panic!("not within {}: {what}; last state: {last}", humantime::format_duration(bound)))
}

#[cfg(test)]
mod tests;
