//! Bad input is answered by what is wrong, where, and what to do instead; and nothing crashes.

use std::path::Path;
use std::time::Duration;

use flotilla_tests::harness::{CliOutput, Fleet, Process, wait_until};
use flotilla_tests::simulator::generated_flags;

use crate::program::{command, run};
use crate::stored::{BOUND, assert_stored, condition};

const KEY: &str = "sdk-00000000-0000-4000-8000-0000000000c1";

/// Fails unless the command ended like this and standard error has all the parts.
fn assert_refused(what: &str, output: &CliOutput, status: i32, parts: &[&str]) {
    assert_eq!(output.status, status, "{what}: {output:?}");
    assert_eq!(output.stdout, "", "{what}");
    for part in parts {
        assert!(output.stderr.contains(part), "{what}: no {part:?} in:\n{}", output.stderr);
    }
    assert!(!output.stderr.contains("panicked"), "{what}: {output:?}");
}

/// Runs `env add` and what follows, with a good key in `TEST_SDK_KEY`.
async fn add(fleet: &Fleet, arguments: &[&str]) -> CliOutput {
    let all: Vec<&str> = ["env", "add"].iter().chain(arguments).copied().collect();
    fleet.cli_with(&all, &[("TEST_SDK_KEY", KEY)], "").await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_and_prefixes() {
    let fleet = Fleet::builder().workers(0).start().await.unwrap();
    let (long_name, long_prefix) = ("n".repeat(64), "p".repeat(257));
    let shown_name = format!("{}...", "n".repeat(60));
    let name_rule = "1 to 63 characters of a-z, 0-9, '.', '_' and '-'";
    for (name, shown) in [
        ("", "\"\""),
        (long_name.as_str(), &shown_name[..50]),
        ("bell\u{7}", r"bell\u{7}"),
        ("line\nend", r"line\nend"),
        ("Upper", "Upper"),
        ("a b", "a b"),
        ("-edge-", "-edge-"),
        ("é", "é"),
    ] {
        let output = add(&fleet, &["--prefix", "p", "--sdk-key-env", "TEST_SDK_KEY", "--", name]).await;
        assert_refused(name, &output, 2, &["NAME", shown, name_rule]);
        assert!(!output.stderr.contains('\u{7}'), "terminals are safe: {output:?}");
    }
    let prefix_rule = "1 to 256 printable ASCII characters without spaces";
    for (prefix, shown) in [
        ("", "\"\""),
        (long_prefix.as_str(), "ppppp"),
        ("a b", "a b"),
        ("bell\u{7}", r"bell\u{7}"),
        ("é", "é"),
        ("p:$flotilla", "p:$flotilla"),
        ("p:big_segments", "p:big_segments"),
    ] {
        let prefix_option = format!("--prefix={prefix}");
        let output = add(&fleet, &["spree", &prefix_option, "--sdk-key-env", "TEST_SDK_KEY"]).await;
        assert_refused(prefix, &output, 2, &["--prefix", shown, prefix_rule]);
        assert!(!output.stderr.contains('\u{7}'), "terminals are safe: {output:?}");
    }
    assert_eq!(fleet.cli(&["env", "list", "-o", "name"]).await.unwrap().stdout, "", "nothing was added");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn options_of_an_environment() {
    let fleet = Fleet::builder().workers(0).start().await.unwrap();
    let long_text = "t".repeat(257);
    let cases: [(&[&str], i32, &[&str]); 16] = [
        (&["--stream-uri", "nonsense"], 2, &["--stream-uri", "\"nonsense\"", "not a valid URL", "https://HOST"]),
        (&["--stream-uri", "ftp://example.org"], 2, &["--stream-uri", "ftp://example.org", "https://HOST"]),
        (&["--base-uri", "http://example.org"], 2, &["--base-uri", "http://example.org", "loopback", "use https"]),
        (&["--base-uri", "https://u:p@example.org"], 2, &["--base-uri", "must not have a user"]),
        (&["--store", "elsewhere"], 3, &["elsewhere", "known stores", "\"default\""]),
        (&["--store", "Else Where"], 2, &["--store", "Else Where", "1 to 63 characters"]),
        (&["--initial-retry-delay", "soon"], 2, &["--initial-retry-delay", "soon", "1m30s"]),
        (&["--initial-retry-delay", "1h"], 2, &["--initial-retry-delay", "3600s", "100ms to 30s"]),
        (&["--source", "poll", "--poll-interval", "1s"], 2, &["--poll-interval", "1s", "30s to 24h", "loopback"]),
        (&["--poll-interval", "1m"], 2, &["--poll-interval", "--source poll"]),
        (&["--source", "sse"], 2, &["--source", "sse", "stream, poll or file:PATH"]),
        (&["--source", "file:/etc/passwd"], 2, &["--source", "file:/etc/passwd", "relative"]),
        (&["--filter", "a b"], 2, &["--filter", "a b", "1 to 256 characters"]),
        (&["--label", "team"], 2, &["--label", "team", "KEY=VALUE"]),
        (&["--display-name", &long_text], 2, &["--display-name", "at most 256 characters"]),
        (&["--wait=ready"], 2, &["--wait", "ready", "current", "initialized"]),
    ];
    for (options, status, parts) in cases {
        let basic = ["spree", "--prefix", "p", "--sdk-key-env", "TEST_SDK_KEY"];
        let all: Vec<&str> = basic.iter().chain(options).copied().collect();
        assert_refused(&options.join(" "), &add(&fleet, &all).await, status, parts);
    }
    let file_with_key = ["spree", "--prefix", "p", "--source", "file:a.json", "--sdk-key-env", "TEST_SDK_KEY"];
    assert_refused("a key for a file", &add(&fleet, &file_with_key).await, 2, &["SDK key", "takes no SDK key"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sdk_keys() {
    let fleet = Fleet::builder().workers(0).start().await.unwrap();
    let directory = fleet.directory().to_str().unwrap().to_owned();
    let masked = "sdk-********-****-****-****-*******99999";
    let cases: [(&[&str], &str, &[&str]); 9] = [
        (&[], "", &["SDK key", "required", "--sdk-key-file"]),
        (&["--sdk-key", ""], "", &["--sdk-key", "empty"]),
        (&["--sdk-key-stdin"], "\n", &["--sdk-key-stdin", "empty"]),
        (&["--sdk-key-stdin"], masked, &["--sdk-key-stdin", "masked", "give the key itself"]),
        (&["--sdk-key-stdin"], "sdk key", &["--sdk-key-stdin", "characters other than"]),
        (&["--sdk-key-env", "NOT_SET_ANYWHERE"], "", &["--sdk-key-env", "NOT_SET_ANYWHERE", "not set"]),
        (&["--sdk-key-file", "/nonexistent/key"], "", &["--sdk-key-file", "/nonexistent/key", "No such file"]),
        (&["--sdk-key-file", &directory], "", &["--sdk-key-file", &directory, "directory"]),
        (&["--sdk-key-stdin", "--sdk-key", "x"], "", &["--sdk-key-stdin", "--sdk-key", "cannot be used with"]),
    ];
    for (options, input, parts) in cases {
        let all: Vec<&str> = ["env", "add", "spree", "--prefix", "p"].iter().chain(options).copied().collect();
        let output = fleet.cli_with(&all, &[], input).await.unwrap();
        assert_refused(&format!("{options:?} {input}"), &output, 2, parts);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_and_prefixes_that_are_taken() {
    let mut fleet = Fleet::builder().workers(0).start().await.unwrap();
    fleet.add_environment("spree", "ld:spree", KEY, &[]).await.unwrap().expect_success();
    let name = fleet.add_environment("spree", "ld:other", KEY, &[]).await.unwrap();
    assert_refused("name", &name, 4, &["\"spree\" exists", "choose another name", "flotilla env get"]);
    let prefix = fleet.add_environment("other", "ld:spree", KEY, &[]).await.unwrap();
    let parts = ["--prefix", "ld:spree", "store \"default\"", "environment \"spree\"", "choose another prefix"];
    assert_refused("prefix", &prefix, 4, &parts);
    fleet.add_environment("nested", "ld:spree:nested", KEY, &[]).await.unwrap().expect_success();

    let late = fleet.cli(&["env", "wait", "spree", "--for", "current", "--timeout", "200ms"]).await.unwrap();
    assert_refused(
        "wait",
        &late,
        124,
        &["environment/spree: unknown: Assigned is false", "no worker is connected"],
    );

    // Another URL of the same place is the same store; another place is one only on demand.
    fleet.control().kill9();
    let other_name = fleet.redis.url().replace("127.0.0.1", "localhost");
    let (mut control, url) = control_on(fleet.directory(), &other_name, &[]).await;
    let mut again = command("flotilla");
    again.args(["--control", &url, "env", "add", "other", "--prefix", "ld:spree", "--sdk-key-env", "TEST_SDK_KEY"]);
    again.env("TEST_SDK_KEY", KEY);
    let again = run(again).await;
    assert_eq!(again.status, Some(4), "{again:?}");
    assert!(again.stderr.contains("environment \"spree\""), "{again:?}");
    control.kill9();
    let mut elsewhere = command("flotilla-control");
    elsewhere
        .args(["--listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0", "--redis-url", "redis://127.0.0.1:1"])
        .arg("--data-dir")
        .arg(fleet.directory().join("control"));
    let elsewhere = run(elsewhere).await;
    assert_eq!(elsewhere.status, Some(1), "{elsewhere:?}");
    for part in ["--redis-url", "2 environment(s)", "--replace-default-store"] {
        assert!(elsewhere.stderr.contains(part), "{part} in {elsewhere:?}");
    }
}

/// Starts control by hand on a fleet's data, and returns its URL too.
async fn control_on(directory: &Path, redis_url: &str, more: &[&str]) -> (Process, String) {
    let mut by_hand = command("flotilla-control");
    by_hand
        .args(["--listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0", "--log-format", "json"])
        .args(["--redis-url", redis_url])
        .arg("--data-dir")
        .arg(directory.join("control"))
        .args(more);
    let by_hand = by_hand.into_std();
    let mut control = Process::start("control-by-hand", by_hand, &directory.join("logs")).unwrap();
    let listening = control.listening(BOUND).await.unwrap();
    (control, format!("http://{}", listening.grpc.unwrap()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn options_of_the_servers() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let unknown = file("unknown.toml", "lisden = '127.0.0.1:1'\n");
    let bad_value = file("bad-value.toml", "lease-duration = 'soon'\n");
    let bad_toml = file("bad.toml", "lease-duration =\n");
    let plain = file("plain", "");
    let half = file("half.toml", "tls-cert = 'control.pem'\n");
    let cases: [(&str, &[&str], &[&str]); 20] = [
        ("flotilla-control", &["--config", &unknown], &["lisden", &unknown, "known keys", "listen"]),
        ("flotilla-control", &["--config", &bad_value], &["lease-duration", "soon", "1m30s"]),
        ("flotilla-control", &["--config", &bad_toml], &[&bad_toml, "not valid TOML"]),
        ("flotilla-control", &["--config", "/nonexistent.toml"], &["/nonexistent.toml", "No such file"]),
        ("flotilla-control", &["--lisden", "x"], &["--lisden", "--listen"]),
        ("flotilla-control", &["--listen", "7400"], &["--listen", "7400", "127.0.0.1:7400"]),
        ("flotilla-control", &["--listen", "0.0.0.0:7400"], &["--listen", "0.0.0.0:7400", "--insecure"]),
        ("flotilla-control", &["--lease-duration", "soon"], &["--lease-duration", "soon", "1m30s"]),
        ("flotilla-control", &["--redis-url", "http://x"], &["--redis-url", "\"http\"", "redis://"]),
        ("flotilla-control", &["--redis-url", "redis://h/nine"], &["--redis-url", "nine", "redis://HOST"]),
        ("flotilla-control", &["--stream-uri", "nonsense"], &["--stream-uri", "nonsense", "https://HOST"]),
        ("flotilla-control", &["--config", &half], &["--tls-cert needs --tls-key"]),
        ("flotilla-control", &["--http-listen", "[::]:0"], &["--http-listen", "init tls DIR", "init tokens"]),
        ("flotilla-worker", &["--http-listen", "0.0.0.0:0"], &["--http-listen", "--http-tls-cert", "--insecure"]),
        (
            "flotilla-worker",
            &["--control", "http://control.example:7400", "--token-file", &plain],
            &["--control http://control.example:7400", "tokens", "https://", "--insecure"],
        ),
        ("flotilla-worker", &["--config", &unknown], &["lisden", &unknown, "known keys", "http-listen"]),
        ("flotilla-worker", &["--control", "nonsense"], &["--control", "nonsense", "http://"]),
        ("flotilla-worker", &["--name", "Not A Name"], &["--name", "Not A Name", "1 to 63 characters"]),
        ("flotilla-worker", &["--capacity", "0"], &["--capacity", "0"]),
        ("flotilla-worker", &["--file-source-dir", &plain], &["--file-source-dir", &plain, "directory"]),
    ];
    for (program, arguments, parts) in cases {
        let mut command = command(program);
        command.args(arguments).current_dir(directory.path());
        let ended = run(command).await;
        assert_eq!(ended.status, Some(2), "{program} {arguments:?}: {ended:?}");
        for part in parts {
            assert!(ended.stderr.contains(part), "{program} {arguments:?}: no {part:?} in:\n{}", ended.stderr);
        }
    }
    let mut by_variable = command("flotilla-control");
    by_variable.env("FLOTILLA_LEASE_DURATION", "soon").current_dir(directory.path());
    let ended = run(by_variable).await;
    assert!(ended.status == Some(2) && ended.stderr.contains("soon"), "{ended:?}");
    let left: Vec<_> = std::fs::read_dir(directory.path()).unwrap().collect();
    assert_eq!(left.len(), 5, "nothing was made: {left:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ports_in_use() {
    let fleet = Fleet::builder().start().await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let listening = fleet.control_listening();
    let (grpc, http) = (listening.grpc.unwrap().to_string(), listening.http.to_string());
    let control = ["--redis-url", "redis://127.0.0.1:1", "--listen", &grpc, "--http-listen", "127.0.0.1:0"];
    let url = fleet.control_url();
    let worker = ["--control", &url, "--name", "w9", "--http-listen", &http];
    for (program, arguments, parts) in [
        ("flotilla-control", control, ["--listen", &grpc, "in use", "another port"]),
        ("flotilla-worker", worker, ["--http-listen", &http, "in use", "another port"]),
    ] {
        let mut command = command(program);
        command.args(arguments).current_dir(directory.path());
        let ended = run(command).await;
        assert_eq!(ended.status, Some(1), "{ended:?}");
        let said = format!("{}{}", ended.stdout, ended.stderr);
        for part in parts {
            assert!(said.contains(part), "{program}: no {part:?} in {said}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_that_cannot_be_reached() {
    let mut fleet = Fleet::builder().start().await.unwrap();
    let data = generated_flags(5, 900, 16);
    fleet.simulator.add_environment(KEY, Some("spree-id"), data.clone());
    fleet.redis.stop();
    fleet.add_environment("spree", "ld:spree", KEY, &[]).await.unwrap().expect_success();
    let status = wait_until("the store is said to be away", BOUND, async || {
        let status = fleet.environment_status("spree").await.map_err(|error| format!("{error:#}"))?;
        let away = condition(&status, "StoreAvailable").is_some_and(|found| found["status"] == "false");
        if away && status["lastError"]["kind"] == "store" { Ok(status) } else { Err(status.to_string()) }
    })
    .await;
    assert_eq!(status["initialization"], "unknown", "nobody could look: {status}");
    let message = condition(&status, "StoreAvailable").unwrap()["message"].as_str().unwrap();
    assert!(message.contains("cannot use the store") && message.contains("refused"), "{message}");
    let late = fleet.cli(&["env", "wait", "spree", "--for", "current", "--timeout", "300ms"]).await.unwrap();
    assert_refused("wait", &late, 124, &["environment/spree", "StoreAvailable"]);
    let items = fleet.cli(&["data", "list", "spree"]).await.unwrap();
    assert_refused("data", &items, 1, &["store"]);
    assert_eq!(fleet.worker_get(0, "/livez").await.unwrap().status, 200);
    assert!(fleet.worker(0).is_running() && fleet.control().is_running());
    fleet.redis.start_again().await.unwrap();
    fleet.wait_for_initialization("spree", "current", BOUND).await;
    assert_stored(&fleet.redis, "ld:spree", &data).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn control_that_cannot_be_reached() {
    let mut fleet = Fleet::builder().start().await.unwrap();
    fleet.control().kill9();
    for arguments in [
        ["env", "list", "-o", "json"].as_slice(),
        &["env", "status", "spree"],
        &["env", "wait", "spree", "--for", "current", "--timeout", "1s"],
        &["worker", "list"],
        &["status"],
    ] {
        let output = fleet.cli(arguments).await.unwrap();
        let url = fleet.control_url();
        assert_refused(
            &arguments.join(" "),
            &output,
            5,
            &["cannot reach control", &url, "refused", "hint: ", "--control"],
        );
    }
    let refused = add(&fleet, &["spree", "--prefix", "p", "--sdk-key-env", "TEST_SDK_KEY"]).await;
    assert_eq!(refused.status, 5, "{refused:?}");
    let mut nonsense = command("flotilla");
    nonsense.args(["--control", "nonsense", "env", "list"]);
    let nonsense = run(nonsense).await;
    assert_eq!(nonsense.status, Some(2));
    assert!(nonsense.stderr.contains("--control") && nonsense.stderr.contains("\"nonsense\""), "{nonsense:?}");
    assert!(fleet.worker(0).is_running(), "a worker waits for control to come back");
    fleet.restart_control().await.unwrap();
    wait_until("the worker is back", Duration::from_secs(8), async || {
        let workers = fleet.cli(&["worker", "list", "-o", "json"]).await.unwrap().json().unwrap();
        if workers["workers"][0]["state"] == "connected" { Ok(()) } else { Err(workers.to_string()) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn usage_errors() {
    let fleet = Fleet::builder().workers(0).start().await.unwrap();
    let cases: [(&[&str], &[&str]); 9] = [
        (&[], &["Usage: flotilla"]),
        (&["frobnicate"], &["frobnicate", "Usage"]),
        (&["env"], &["Usage: flotilla env"]),
        (&["env", "add", "spree"], &["--prefix"]),
        (&["env", "wait", "spree"], &["--for"]),
        (&["env", "wait", "--for", "current"], &["NAME"]),
        (&["env", "list", "-o", "xml"], &["xml", "table", "json", "yaml"]),
        (&["env", "wait", "spree", "--for", "current", "--timeout", "soon"], &["--timeout", "soon", "1m30s"]),
        (&["env", "remove", "spree"], &["yes", "no terminal", "--yes"]),
    ];
    for (arguments, parts) in cases {
        let output = fleet.cli(arguments).await.unwrap();
        assert_refused(&arguments.join(" "), &output, 2, parts);
    }
}
