//! What operators and probes ask over HTTP: `/livez` and `/readyz` of everybody, `/metrics` and `/status` of viewers.

// Numbers for Prometheus.
mod metrics;
// The fleet as one JSON document.
mod status;

use std::fmt::Write as _;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use axum::extract::{RawQuery, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use flotilla_proto::Refusal;
use flotilla_proto::access::{self, Keys, Listener};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::audit::LogFailures;
use crate::driver::{DriverHandle, View};
use crate::environments_file::FileHealth;

/// How long the driver may take to answer before it counts as not there.
const DRIVER_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a commit may take before the store counts as not there.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(5);

/// What every handler needs.
#[derive(Debug, Clone)]
pub(crate) struct Site {
    driver: DriverHandle,
    /// Cancelled when the gRPC server no longer takes calls.
    stopping: CancellationToken,
    /// How it stands with the file that control is kept in line with, if there is one.
    file: Option<FileHealth>,
    /// How often the audit log was not written.
    log_failures: LogFailures,
}

impl Site {
    pub(crate) fn new(
        driver: DriverHandle,
        stopping: CancellationToken,
        file: Option<FileHealth>,
        log_failures: LogFailures,
    ) -> Self {
        Self { driver, stopping, file, log_failures }
    }

    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&View<'_>) -> T + Send + 'static,
    ) -> Result<T, String> {
        match tokio::time::timeout(DRIVER_TIMEOUT, self.driver.read(read)).await {
            Ok(answer) => answer.map_err(|refusal: Refusal| refusal.to_string()),
            Err(_) => Err(format!("no answer within {} s", DRIVER_TIMEOUT.as_secs())),
        }
    }
}

/// Serves until `shutdown` resolves.
pub(crate) async fn serve(
    listener: Listener,
    site: Site,
    keys: watch::Receiver<Arc<Keys>>,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> anyhow::Result<()> {
    let for_viewers = Router::new().route("/metrics", get(metrics)).route("/status", get(status));
    let for_all = Router::new().route("/livez", get(livez)).route("/readyz", get(readyz));
    let site = access::site(for_all.with_state(site.clone()), for_viewers.with_state(site), keys);
    axum::serve(listener, site).with_graceful_shutdown(shutdown).await.context("the HTTP server failed")
}

async fn livez() -> &'static str {
    "ok\n"
}

async fn readyz(State(site): State<Site>, RawQuery(query): RawQuery) -> Response {
    let driver = site.read(|_| ()).await;
    let store = match site.driver.committing_for() {
        Some(since) if since > COMMIT_TIMEOUT => {
            Err(format!("a commit has been under way for {} s", since.as_secs()))
        }
        Some(_) | None => Ok(()),
    };
    let grpc = if site.stopping.is_cancelled() { Err("it is stopping".to_owned()) } else { Ok(()) };
    let checks = [("store", store), ("driver", driver), ("grpc", grpc)];
    let verbose = query.is_some_and(|query| query.split('&').any(|part| part.starts_with("verbose")));
    answer_checks(&checks, verbose)
}

fn answer_checks(checks: &[(&str, Result<(), String>)], verbose: bool) -> Response {
    let ready = checks.iter().all(|(_, result)| result.is_ok());
    let mut body = String::new();
    for (name, result) in checks {
        let line = match result {
            Ok(()) if verbose => writeln!(body, "[+] {name} ok"),
            Ok(()) => Ok(()),
            Err(why) => writeln!(body, "[-] {name}: {why}"),
        };
        line.expect("writing to a string does not fail");
    }
    body.push_str(if ready { "ok\n" } else { "not ready\n" });
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, body).into_response()
}

async fn metrics(State(site): State<Site>) -> Response {
    match site.read(|view| view.fleet.counts()).await {
        Ok(counts) => (
            [(header::CONTENT_TYPE, metrics::CONTENT_TYPE)],
            metrics::encode(counts, site.file.as_ref(), &site.log_failures),
        )
            .into_response(),
        Err(why) => unavailable(&why),
    }
}

async fn status(State(site): State<Site>) -> Response {
    match site.read(status::Document::of).await {
        Ok(document) => ([(header::CONTENT_TYPE, "application/json")], document.to_json()).into_response(),
        Err(why) => unavailable(&why),
    }
}

fn unavailable(why: &str) -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, format!("driver: {why}\n")).into_response()
}
