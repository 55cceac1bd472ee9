//! What operators and their tools ask a worker over HTTP: `/livez` and `/readyz` of everybody, `/metrics` of viewers.

use std::future::Future;
use std::io;
use std::sync::Arc;

use axum::Router;
use axum::extract::{RawQuery, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use flotilla_proto::access::{self, Keys, Listener};
use tokio::sync::watch;

use crate::metrics::{CONTENT_TYPE, Metrics};
use crate::supervisor::Progress;

/// What the answers are made of.
#[derive(Debug, Clone)]
pub(crate) struct Sources {
    /// All metrics.
    pub(crate) metrics: Arc<Metrics>,
    /// How far the worker is; closed when its supervisor has ended.
    pub(crate) progress: watch::Receiver<Progress>,
}

/// Answers until `end` resolves; requests under way are finished.
pub(crate) async fn serve(
    listener: Listener,
    sources: Sources,
    keys: watch::Receiver<Arc<Keys>>,
    end: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let for_viewers = Router::new().route("/metrics", get(metrics));
    let for_all = Router::new().route("/livez", get(livez)).route("/readyz", get(readyz));
    let site = access::site(for_all.with_state(sources.clone()), for_viewers.with_state(sources), keys);
    axum::serve(listener, site).with_graceful_shutdown(end).await
}

async fn livez(State(sources): State<Sources>) -> Response {
    match Check::tasks(&sources) {
        Check { passed: true, .. } => "ok\n".into_response(),
        Check { passed: false, what } => (StatusCode::SERVICE_UNAVAILABLE, format!("{what}\n")).into_response(),
    }
}

async fn readyz(State(sources): State<Sources>, RawQuery(query): RawQuery) -> Response {
    let checks = [Check::tasks(&sources), Check::assignments(*sources.progress.borrow())];
    let is_ready = checks.iter().all(|check| check.passed);
    let wants_all =
        query.is_some_and(|query| query.split('&').any(|part| part.split('=').next() == Some("verbose")));
    let mut text = String::new();
    for check in checks.iter().filter(|check| wants_all || !check.passed) {
        text.push_str(if check.passed { "[+] " } else { "[-] " });
        text.push_str(&check.what);
        text.push('\n');
    }
    text.push_str(if is_ready { "ready\n" } else { "not ready\n" });
    let status = if is_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, text).into_response()
}

async fn metrics(State(sources): State<Sources>) -> Response {
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], sources.metrics.text()).into_response()
}

struct Check {
    passed: bool,
    what: String,
}

impl Check {
    fn tasks(sources: &Sources) -> Self {
        // The supervisor holds the other end for as long as it lives.
        let passed = sources.progress.has_changed().is_ok();
        let what = if passed { "tasks: running" } else { "tasks: the supervisor has ended" };
        Self { passed, what: what.to_owned() }
    }

    /// A worker can do its work once it knows what that is; whether each environment prospers is told by its status.
    fn assignments(progress: Progress) -> Self {
        let count = progress.environments;
        let (passed, what) = match progress {
            Progress { has_session: true, .. } => (true, format!("control: connected, {count} environments")),
            Progress { had_session: true, .. } => (true, format!("control: away, {count} environments go on")),
            Progress { had_cache: true, .. } => {
                (true, format!("control: not reached yet, {count} environments of the last run"))
            }
            Progress { had_session: false, had_cache: false, .. } => {
                (false, "control: not reached yet, and there are no assignments of an earlier run".to_owned())
            }
        };
        Self { passed, what }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn ask(progress: Progress, query: &str) -> (StatusCode, String) {
        let (_sender, progress) = watch::channel(progress);
        let sources = Sources { metrics: Arc::new(Metrics::new()), progress };
        let response = readyz(State(sources), RawQuery(Some(query.to_owned()))).await;
        let status = response.status();
        let body = axum::body::to_bytes(response.into_body(), 10_000).await.unwrap();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn ready_once_the_work_is_known() {
        let (status, text) = ask(Progress::default(), "").await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(text.contains("[-] control: not reached yet"), "{text}");
        for progress in [
            Progress { has_session: true, had_session: true, ..Progress::default() },
            Progress { had_session: true, ..Progress::default() },
            Progress { had_cache: true, environments: 3, ..Progress::default() },
        ] {
            assert_eq!(ask(progress, "").await, (StatusCode::OK, "ready\n".to_owned()));
            let (status, text) = ask(progress, "verbose").await;
            assert_eq!(status, StatusCode::OK);
            assert!(text.contains("[+] tasks: running\n[+] control: "), "{text}");
        }
    }

    #[tokio::test]
    async fn neither_alive_nor_ready_without_a_supervisor() {
        let (sender, progress) = watch::channel(Progress { has_session: true, ..Progress::default() });
        drop(sender);
        let sources = Sources { metrics: Arc::new(Metrics::new()), progress };
        for response in [livez(State(sources.clone())).await, readyz(State(sources), RawQuery(None)).await] {
            assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        }
    }
}
