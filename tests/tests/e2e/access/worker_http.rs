//! A worker's HTTP with TLS and tokens.

use std::path::Path;

use flotilla_tests::harness::{Fleet, wait_until};

use super::{certificate_of, file, get_from, reloads};
use crate::stored::{BOUND, SOON};

/// A fleet whose worker serves HTTP with copies of control's files, in `http/`.
async fn fleet() -> Fleet {
    let mut fleet = Fleet::builder().workers(0).secured().start().await.unwrap();
    std::fs::create_dir(file(&fleet, "http")).unwrap();
    for (from, to) in [("tls/control.pem", "cert"), ("tls/control.key", "key"), ("tokens/tokens.toml", "tokens")] {
        std::fs::copy(file(&fleet, from), file(&fleet, &format!("http/{to}"))).unwrap();
    }
    let [cert, key, tokens] = ["cert", "key", "tokens"].map(|name| file(&fleet, &format!("http/{name}")));
    fleet
        .add_worker_with(&["--http-tls-cert", &cert, "--http-tls-key", &key, "--http-token-file", &tokens])
        .await
        .unwrap();
    fleet
}

/// The certificate that the worker's HTTP shows on a new connection.
fn shown_certificate(fleet: &Fleet) -> String {
    super::shown_certificate_at(fleet.worker_listening(0).http)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn probes_are_for_all_and_metrics_for_viewers() {
    let fleet = fleet().await;
    let http = fleet.worker_listening(0).http;
    std::fs::write(file(&fleet, "unknown.token"), "flotilla_unknown\n").unwrap();
    for (path, token, expected) in [
        ("/livez", None, 200),
        ("/readyz?verbose", None, 200),
        ("/livez", Some("unknown.token"), 200),
        ("/metrics", None, 401),
        ("/metrics", Some("unknown.token"), 401),
        // Its own token is for control.
        ("/metrics", Some("tokens/worker-w1.token"), 401),
        ("/metrics", Some("tokens/viewer.token"), 200),
        ("/metrics", Some("tokens/operator.token"), 200),
        ("/metrics", Some("tokens/admin.token"), 200),
        ("/status", Some("tokens/admin.token"), 404),
    ] {
        let (status, body) = get_from(&fleet, http, path, token, &[]).await;
        assert_eq!(status, expected, "{path} {token:?}: {body}");
        assert_eq!(body.contains("process_open_fds"), path == "/metrics" && status == 200, "{body}");
    }
    // Without TLS nothing is answered.
    let plain = flotilla_tests::harness::http_get(http, "/livez").await;
    assert!(plain.is_err(), "{plain:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_files_are_read_again_without_a_restart() {
    let mut fleet = fleet().await;
    let (http, pid) = (fleet.worker_listening(0).http, fleet.worker(0).pid());
    let before = certificate_of(&file(&fleet, "http/cert"));
    assert_eq!(shown_certificate(&fleet), before);

    // Another certificate, with its key.
    fleet.cli(&["init", "tls", &file(&fleet, "tls"), "--renew"]).await.unwrap().expect_success();
    for (from, to) in [("tls/control.key", "http/key"), ("tls/control.pem", "http/cert")] {
        std::fs::copy(file(&fleet, from), file(&fleet, to)).unwrap();
    }
    let renewed = certificate_of(&file(&fleet, "http/cert"));
    assert_ne!(renewed, before);
    wait_until("the new certificate is shown", SOON, async || {
        let shown = shown_certificate(&fleet);
        if shown == renewed { Ok(()) } else { Err(shown) }
    })
    .await;

    // The viewer is taken out of the file, and another one is put in.
    let tokens = file(&fleet, "http/tokens");
    let fresh = file(&fleet, "fresh");
    fleet.cli(&["init", "tokens", &fresh, "--worker", "w1"]).await.unwrap().expect_success();
    assert_eq!(get_from(&fleet, http, "/metrics", Some("tokens/viewer.token"), &[]).await.0, 200);
    std::fs::copy(Path::new(&fresh).join("tokens.toml"), &tokens).unwrap();
    wait_until("the new viewer may read", BOUND, async || {
        match get_from(&fleet, http, "/metrics", Some("fresh/viewer.token"), &[]).await {
            (200, _) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    assert_eq!(get_from(&fleet, http, "/metrics", Some("tokens/viewer.token"), &[]).await.0, 401);

    // What is wrong is told about, and what was there stays in force.
    std::fs::write(&tokens, "nonsense").unwrap();
    let worker = fleet.worker(0);
    wait_until("it is told", SOON, async || {
        let log = worker.log();
        if log.contains("\"level\":\"WARN\"") && log.contains("http/tokens") { Ok(()) } else { Err(log) }
    })
    .await;
    assert!(reloads(&worker.log()) >= 2, "{}", worker.log());
    assert_eq!(get_from(&fleet, http, "/metrics", Some("fresh/viewer.token"), &[]).await.0, 200);
    assert!(fleet.worker(0).is_running() && fleet.worker(0).pid() == pid);
}
