//! Callers and workers that are known by their client certificates.

use std::process::Command;

use flotilla_tests::harness::{Fleet, Process, wait_until};
use flotilla_tests::simulator::generated_flags;

use super::{KEY, file, get_from};
use crate::stored::BOUND;

/// The arguments that show a certificate.
fn certificate(fleet: &Fleet, name: &str) -> [String; 4] {
    let [certificate, key] = ["pem", "key"].map(|end| file(fleet, &format!("tls/{name}.{end}")));
    ["--client-cert".to_owned(), certificate, "--client-key".to_owned(), key]
}

/// The same for `curl`.
fn certificate_for_curl(fleet: &Fleet, name: &str) -> [String; 4] {
    let [_, certificate, _, key] = self::certificate(fleet, name);
    ["--cert".to_owned(), certificate, "--key".to_owned(), key]
}

/// What a command without any token says, and its status.
fn without_token(mut command: Command) -> (Option<i32>, String) {
    let output = command.env_remove("FLOTILLA_TOKEN_FILE").output().unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

/// Starts a worker that shows a certificate and no token.
fn start_worker(fleet: &Fleet, name: &str, shown: &str) -> Process {
    let mut command = fleet.worker_command(name, &fleet.directory().join(name)).unwrap();
    command.env_remove("FLOTILLA_TOKEN_FILE").args(certificate(fleet, shown));
    fleet.start_process(name, command).unwrap()
}

async fn wait_for_log(process: &Process, words: &str) {
    wait_until(&format!("{} logs {words:?}", process.name()), BOUND, async || {
        let log = process.log();
        if log.contains(words) { Ok(()) } else { Err(log) }
    })
    .await;
}

async fn connected_workers(fleet: &Fleet) -> Vec<String> {
    let workers = fleet.cli(&["worker", "list", "-o", "json"]).await.unwrap().json().unwrap();
    let connected = workers["workers"].as_array().unwrap().iter().filter(|worker| worker["state"] == "connected");
    connected.map(|worker| worker["name"].as_str().unwrap().to_owned()).collect()
}

async fn wait_for_worker(fleet: &Fleet, name: &str) {
    wait_until(&format!("{name} is connected"), BOUND, async || {
        let connected = connected_workers(fleet).await;
        if connected.iter().any(|one| one == name) { Ok(()) } else { Err(format!("{connected:?}")) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_an_authority_alone_every_certificate_of_it_may_do_everything_and_nobody_else_anything() {
    let mut fleet = Fleet::builder().secured_by_certificates().start().await.unwrap();
    fleet.simulator.add_environment(KEY, Some("id"), generated_flags(3, 200, 1));
    // Reads, changes, and a session, with three certificates and no token anywhere.
    fleet.add_environment("spree", "ld:spree", KEY, &["--wait"]).await.unwrap().expect_success();
    let w4 = certificate(&fleet, "w4");
    let with_w4 =
        |words: &[&str]| words.iter().copied().chain(w4.iter().map(String::as_str)).map(str::to_owned).collect();
    for words in [&["worker", "cordon", "w1"][..], &["env", "pause", "spree"], &["env", "remove", "spree", "--yes"]]
    {
        let words: Vec<String> = with_w4(words);
        let words: Vec<_> = words.iter().map(String::as_str).collect();
        fleet.cli(&words).await.unwrap().expect_success();
    }
    let any_name = start_worker(&fleet, "any-name", "ops.example");
    wait_for_worker(&fleet, "any-name").await;
    assert!(!any_name.log().contains("PERMISSION_DENIED"));

    let mut command = fleet.cli_command(&["env", "list"]).unwrap();
    command.env_remove("FLOTILLA_CLIENT_CERT").env_remove("FLOTILLA_CLIENT_KEY");
    let (status, said) = without_token(command);
    assert_eq!(status, Some(5), "{said}");
    assert!(said.contains("client certificate"), "{said}");
    fleet.cli(&["init", "tls", &file(&fleet, "other"), "--client", "w1"]).await.unwrap().expect_success();
    let [cert, key] = ["pem", "key"].map(|end| file(&fleet, &format!("other/w1.{end}")));
    let foreign = fleet.cli(&["env", "list", "--client-cert", &cert, "--client-key", &key]).await.unwrap();
    assert_eq!(foreign.status, 5, "{foreign:?}");
    // A token is known to nobody here, and is no way around.
    std::fs::write(file(&fleet, "some.token"), "flotilla_unknown\n").unwrap();
    let token = fleet.cli(&["env", "list", "--token-file", &file(&fleet, "some.token")]).await.unwrap();
    assert_eq!(token.status, 6, "{token:?}");

    let http = fleet.control_listening().http;
    let shown = certificate_for_curl(&fleet, "w4");
    let shown = shown.each_ref().map(String::as_str);
    for (path, more, expected) in [
        ("/livez", &[][..], 200),
        ("/readyz", &[], 200),
        ("/metrics", &[], 401),
        ("/status", &[], 401),
        ("/metrics", &shown, 200),
        ("/status", &shown, 200),
    ] {
        let (status, body) = get_from(&fleet, http, path, None, more).await;
        assert_eq!(status, expected, "{path} {more:?}: {body}");
    }
    assert!(fleet.worker(0).is_running());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_may_have_the_name_that_its_certificate_and_the_file_give_it_and_no_other() {
    let fleet = Fleet::builder().workers(0).secured().start().await.unwrap();
    fleet.simulator.add_environment(KEY, Some("id"), generated_flags(3, 200, 1));
    // Not in the file: it is nobody.
    let unknown = start_worker(&fleet, "w4", "w4");
    wait_for_log(&unknown, "no name of the client certificate is known here (w4)").await;
    drop(unknown);

    let path = file(&fleet, "tokens/workers.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text + "\n[[certificate]]\nname = \"w*\"\n").unwrap();
    let worker = start_worker(&fleet, "w4", "w4");
    wait_for_worker(&fleet, "w4").await;
    fleet.add_environment("spree", "ld:spree", KEY, &["--wait"]).await.unwrap().expect_success();
    assert_eq!(fleet.environment_status("spree").await.unwrap()["worker"], "w4");

    // The file's pattern covers w5 and w1, the certificate does not.
    for name in ["w5", "w1"] {
        let other = start_worker(&fleet, name, "w4");
        wait_for_log(&other, &format!("may not be worker {name}")).await;
    }
    // A worker's certificate is for sessions alone.
    let mut command = fleet.cli_command(&["env", "list"]).unwrap();
    command.args(certificate(&fleet, "w4"));
    let (status, said) = without_token(command);
    assert_eq!(status, Some(6), "{said}");
    assert!(said.contains("needs role viewer"), "{said}");
    assert_eq!(connected_workers(&fleet).await, ["w4"]);
    drop(worker);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_viewer_is_known_by_its_certificate_over_http_and_grpc() {
    let fleet = Fleet::builder().workers(0).secured().start().await.unwrap();
    let http = fleet.control_listening().http;
    let shown = certificate_for_curl(&fleet, "ops.example");
    let shown = shown.each_ref().map(String::as_str);
    let (status, body) = get_from(&fleet, http, "/metrics", None, &shown).await;
    assert_eq!(status, 401, "{body}");
    assert!(body.contains("no name of the client certificate is known here (ops.example)"), "{body}");
    let (status, _) = get_from(&fleet, http, "/livez", None, &shown).await;
    assert_eq!(status, 200);

    let path = file(&fleet, "tokens/tokens.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text + "\n[[certificate]]\nname = \"ops.example\"\nrole = \"viewer\"\n").unwrap();
    wait_until("it is known", BOUND, async || match get_from(&fleet, http, "/metrics", None, &shown).await {
        (200, body) if body.contains("flotilla_environments") => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    assert_eq!(get_from(&fleet, http, "/status", None, &shown).await.0, 200);
    // A token that is shown too decides.
    assert_eq!(get_from(&fleet, http, "/status", Some("tokens/worker-w1.token"), &shown).await.0, 403);
    let pause = |words: &[&str]| {
        let mut command = fleet.cli_command(words).unwrap();
        command.args(certificate(&fleet, "ops.example"));
        without_token(command)
    };
    assert_eq!(pause(&["env", "list"]).0, Some(0));
    let (status, said) = pause(&["worker", "cordon", "w1"]);
    assert_eq!(status, Some(6), "{said}");
    assert!(said.contains("needs role operator; \"ops.example\" has role viewer"), "{said}");
}
