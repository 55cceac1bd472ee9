//! A whole worker without control, LaunchDarkly and Redis: what it keeps, what it answers, how it ends.

use std::path::Path;
use std::time::Duration;

use flotilla_proto::process::Sealing;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::sleep;

use super::*;
use crate::secrets::Secrets;
use crate::session::testing::{assignment, memory};

const BOUND: Duration = Duration::from_secs(10);

/// Nobody listens on port 1 of this machine.
fn settings(state_dir: &Path) -> Settings {
    Settings {
        control: vec!["http://127.0.0.1:1".parse().unwrap()],
        connect: flotilla_proto::connect::ConnectOptions::default(),
        name: "w1".parse().unwrap(),
        capacity: None,
        labels: flotilla_proto::Labels::new(),
        http_listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        http_access: flotilla_proto::access::AccessSettings::default(),
        state_dir: state_dir.to_owned(),
        sealing: Sealing::default(),
        max_connecting: std::num::NonZeroUsize::MIN,
        secrets: Secrets::default(),
        file_source_dir: None,
        drain_timeout: Duration::from_secs(25),
    }
}

async fn get(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: worker\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn without_control_and_cache_it_lives_but_is_not_ready() {
    let directory = tempfile::tempdir().unwrap();
    let worker = App::start(settings(directory.path())).await.unwrap();
    let address = worker.http_addr;
    assert!(get(address, "/livez").await.starts_with("HTTP/1.1 200"));
    assert!(get(address, "/readyz?verbose").await.starts_with("HTTP/1.1 503"));
    let metrics = get(address, "/metrics").await;
    assert!(metrics.contains("application/openmetrics-text") && metrics.contains("flotilla_fenced_writes_total 0"));
    let refused = App::start(settings(directory.path())).await.unwrap_err().to_string();
    assert!(refused.contains("in use"), "{refused}");
    timeout(Duration::from_secs(5), worker.stop()).await.unwrap().unwrap();
    App::start(settings(directory.path())).await.unwrap();
}

#[tokio::test]
async fn an_address_in_use_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let http_listen = taken.local_addr().unwrap();
    let settings = Settings { http_listen, ..settings(directory.path()) };
    let error = App::start(settings).await.unwrap_err().to_string();
    assert!(error.contains(&http_listen.to_string()) && error.contains("--http-listen"), "{error}");
}

#[tokio::test]
async fn without_control_it_goes_on_with_what_it_had() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(assignment_cache::FILE);
    let cache = AssignmentCache { path, sealing: Sealing::default() };
    let mut held = assignment("spree", "u1", 4);
    for uri in [&mut held.spec.stream_uri, &mut held.spec.base_uri] {
        *uri = Some("http://127.0.0.1:1".parse().unwrap());
    }
    cache.write(&memory(vec![held])).unwrap();
    let worker = App::start(settings(directory.path())).await.unwrap();
    let ready = get(worker.http_addr, "/readyz?verbose").await;
    assert!(ready.starts_with("HTTP/1.1 200") && ready.contains("1 environments of the last run"), "{ready}");
    // It has been started when its source has tried to connect.
    let started = async {
        let tried = "flotilla_upstream_connects_total{result=\"network\"} ";
        while get(worker.http_addr, "/metrics").await.contains(&format!("{tried}0\n")) {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(BOUND, started).await.expect("the environment was not started");
    timeout(Duration::from_secs(5), worker.stop()).await.unwrap().unwrap();
    let kept = cache.read(FileSources::Unavailable).unwrap().unwrap();
    assert_eq!(kept.assignments.len(), 1);
}
