//! A control that wants to know who calls, on the real binaries and with the files that `flotilla init` makes.

// What is tried against it, and refused.
#[path = "access/refusals.rs"]
mod refusals;
// Who is known by a certificate.
#[path = "access/by_certificate.rs"]
mod by_certificate;
// What is asked of a worker over HTTP.
#[path = "access/worker_http.rs"]
mod worker_http;
// Many who say nothing.
#[path = "access/crowd.rs"]
mod crowd;
// What --insecure says, and what is not done without it.
#[path = "access/insecure.rs"]
mod insecure;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

use flotilla_tests::harness::{Fleet, wait_until};
use flotilla_tests::simulator::generated_flags;
use serde_json::Value;

use crate::stored::{BOUND, SOON};

const KEY: &str = "sdk-5ec2e700-0001-4000-8000-000000000001";

/// A file in the fleet's directory.
pub(crate) fn file(fleet: &Fleet, name: &str) -> String {
    fleet.directory().join(name).to_str().unwrap().to_owned()
}

/// Waits until control has taken the files that have changed; `before` is how often it had.
async fn reloaded(fleet: &mut Fleet, before: usize) {
    let control = fleet.control();
    wait_until("control has read the files again", SOON, async || {
        if reloads(&control.log()) > before { Ok(()) } else { Err(control.log()) }
    })
    .await;
}

fn reloads(log: &str) -> usize {
    log.matches("\"reloaded\"").count()
}

/// `GET` from control with TLS; status and body.
async fn get(fleet: &Fleet, path: &str, token: Option<&str>) -> (u16, String) {
    get_from(fleet, fleet.control_listening().http, path, token, &[]).await
}

/// `GET` with TLS from any of the fleet's servers, with more arguments for `curl`; status and body.
pub(crate) async fn get_from(
    fleet: &Fleet,
    address: SocketAddr,
    path: &str,
    token: Option<&str>,
    more: &[&str],
) -> (u16, String) {
    let mut command = tokio::process::Command::new("curl");
    command.args(["--silent", "--show-error", "--write-out", "\n%{http_code}", "--cacert"]);
    command.arg(file(fleet, "tls/ca.pem")).arg(format!("https://{address}{path}")).args(more);
    if let Some(token) = token {
        let token = std::fs::read_to_string(file(fleet, token)).unwrap();
        command.args(["--header", &format!("Authorization: Bearer {}", token.trim())]);
    }
    let output = command.output().await.unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let (body, status) = text.rsplit_once('\n').unwrap_or_default();
    (status.parse().unwrap_or_default(), body.to_owned())
}

/// The certificate that control shows on a new connection.
fn shown_certificate(fleet: &Fleet) -> String {
    shown_certificate_at(fleet.control_listening().grpc.unwrap())
}

fn shown_certificate_at(address: SocketAddr) -> String {
    let address = address.to_string();
    let mut command = Command::new("openssl");
    command.args(["s_client", "-connect", &address]).stdin(std::process::Stdio::null());
    let text = String::from_utf8_lossy(&command.output().unwrap().stdout).into_owned();
    let begin = text.find("-----BEGIN").unwrap_or_else(|| panic!("no certificate: {text}"));
    let end = text.find("-----END").unwrap();
    text[begin..end].lines().skip(1).collect()
}

fn certificate_of(path: &str) -> String {
    std::fs::read_to_string(path).unwrap().lines().filter(|line| !line.starts_with("-----")).collect()
}

async fn session_began(fleet: &Fleet) -> Value {
    let worker = fleet.cli(&["worker", "get", "w1", "-o", "json"]).await.unwrap().json().unwrap();
    let began = worker["connectTime"].clone();
    assert!(began.is_string(), "{worker}");
    began
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fleet_with_tls_and_tokens_does_its_work() {
    let mut fleet = Fleet::builder().secured().start().await.unwrap();
    fleet.simulator.add_environment(KEY, Some("id"), generated_flags(3, 200, 1));
    fleet.add_environment("spree", "ld:spree", KEY, &["--wait"]).await.unwrap().expect_success();
    fleet.wait_for_initialization("spree", "current", BOUND).await;
    let began = session_began(&fleet).await;

    for (path, token, expected) in [
        ("/livez", None, 200),
        ("/readyz", None, 200),
        ("/metrics", None, 401),
        ("/status", Some("tokens/worker-w1.token"), 403),
        ("/metrics", Some("tokens/viewer.token"), 200),
        ("/status", Some("tokens/viewer.token"), 200),
    ] {
        let (status, body) = get(&fleet, path, token).await;
        assert_eq!(status, expected, "{path} {token:?}: {body}");
    }

    // Another certificate: new connections see it, and the worker's session goes on.
    let certificate = file(&fleet, "tls/control.pem");
    let before = certificate_of(&certificate);
    assert_eq!(shown_certificate(&fleet), before);
    fleet.cli(&["init", "tls", &file(&fleet, "tls"), "--renew"]).await.unwrap().expect_success();
    assert_ne!(certificate_of(&certificate), before);
    reloaded(&mut fleet, 0).await;
    assert_eq!(shown_certificate(&fleet), certificate_of(&certificate));
    assert_eq!(session_began(&fleet).await, began);

    // One that cannot be used is told about, and changes nothing.
    std::fs::write(&certificate, "nonsense").unwrap();
    let control = fleet.control();
    wait_until("it is told", SOON, async || {
        let log = control.log();
        if log.contains("control.pem: there is no certificate in it") { Ok(()) } else { Err(log) }
    })
    .await;
    assert_eq!(session_began(&fleet).await, began);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_withdrawn_ends_and_comes_back_with_a_new_token() {
    let mut fleet = Fleet::builder().secured().start().await.unwrap();
    fleet.simulator.add_environment(KEY, Some("id"), generated_flags(3, 200, 1));
    fleet.add_environment("spree", "ld:spree", KEY, &["--wait"]).await.unwrap().expect_success();
    let began = session_began(&fleet).await;
    let viewer = file(&fleet, "tokens/viewer.token");
    let follow = fleet.cli_command(&["events", "-f", "--token-file", &viewer]).unwrap();
    let mut follow = fleet.start_process("follow", follow).unwrap();
    wait_until(
        "it follows",
        SOON,
        async || {
            if follow.log().contains("spree") { Ok(()) } else { Err(follow.log()) }
        },
    )
    .await;

    // The viewer's entry is taken out, and the worker's gets the token of another one, before its file has it.
    let (api, workers) = (file(&fleet, "tokens/tokens.toml"), file(&fleet, "tokens/workers.toml"));
    let text = std::fs::read_to_string(&api).unwrap();
    let entries: Vec<_> = text.split("[[token]]").filter(|entry| !entry.contains("\"viewer\"")).collect();
    std::fs::write(&api, entries.join("[[token]]")).unwrap();
    let fresh = file(&fleet, "fresh");
    fleet.cli(&["init", "tokens", &fresh, "--worker", "w1"]).await.unwrap().expect_success();
    std::fs::copy(PathBuf::from(&fresh).join("workers.toml"), &workers).unwrap();

    let ended = follow.wait(BOUND).await.unwrap();
    assert_eq!(ended.code(), Some(6), "{}", follow.log());
    assert!(follow.log().contains("not known here, or not any more"), "{}", follow.log());
    let worker = fleet.worker(0);
    wait_until("the worker is told why", BOUND, async || {
        let log = worker.log();
        if log.contains("not known here, or not any more") { Ok(()) } else { Err(log) }
    })
    .await;
    let refused = fleet.cli(&["env", "list", "--token-file", &viewer]).await.unwrap();
    assert_eq!(refused.status, 6, "{refused:?}");

    // Its file gets the new one: no restart is needed.
    std::fs::rename(PathBuf::from(&fresh).join("worker-w1.token"), file(&fleet, "tokens/worker-w1.token")).unwrap();
    wait_until("it has another session", BOUND, async || {
        let worker = fleet.cli(&["worker", "get", "w1", "-o", "json"]).await.unwrap().json().unwrap();
        let is_there = worker["state"] == "connected" && worker["connectTime"] != began;
        if is_there { Ok(()) } else { Err(worker.to_string()) }
    })
    .await;
    fleet.wait_for_initialization("spree", "current", BOUND).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_token_is_in_what_a_run_leaves_behind() {
    let mut fleet = Fleet::builder()
        .secured()
        .control_arguments(&["--log-level", "trace"])
        .worker_arguments(&["--log-level", "trace"])
        .start()
        .await
        .unwrap();
    fleet.cli(&["status"]).await.unwrap();
    fleet.cli(&["env", "list", "--token-file", &file(&fleet, "tokens/worker-w1.token")]).await.unwrap();
    // A token where its hash should be.
    let admin = std::fs::read_to_string(file(&fleet, "tokens/admin.token")).unwrap();
    let wrong = format!("\n[[token]]\nname = \"x\"\nrole = \"admin\"\nsha256 = \"{}\"\n", admin.trim());
    let api = file(&fleet, "tokens/tokens.toml");
    std::fs::write(&api, std::fs::read_to_string(&api).unwrap() + &wrong).unwrap();
    let control = fleet.control();
    wait_until("it is told", SOON, async || {
        let log = control.log();
        if log.contains("is not 64 hexadecimal digits") { Ok(()) } else { Err(log) }
    })
    .await;
    let outputs = fleet.outputs().unwrap();
    assert!(outputs.len() >= 6);
    for (path, text) in outputs {
        for name in ["viewer", "operator", "admin", "worker-w1"] {
            let token = std::fs::read_to_string(file(&fleet, &format!("tokens/{name}.token"))).unwrap();
            assert!(!text.contains(token.trim()), "{} holds the token of {name}", path.display());
        }
    }
}
