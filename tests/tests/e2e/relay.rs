//! The configuration of LaunchDarkly's relay, as its documentation shows it, is imported or run.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use flotilla_tests::harness::{
    CliOutput, Fleet, Process, RedisServer, binary_directory, binary_in, require_tool, wait_until,
};
use flotilla_tests::simulator::{Simulator, generated_flags};

use crate::program;
use crate::stored::{BOUND, wait_for_stored};

/// The two examples of the relay's documentation, word for word.
const FILE: &str = include_str!("../../fixtures/relay/ld-relay.conf");
const VARIABLES: &str = include_str!("../../fixtures/relay/ld-relay.env");
/// Their keys and prefixes, and what their names become.
const ENVIRONMENTS: [(&str, &str, &str); 2] = [
    ("SPREE_PROD_SDK_KEY", "ld:spree:production", "spree-project-production"),
    ("SPREE_TEST_SDK_KEY", "ld:spree:test", "spree-project-test"),
];

const PASSWORD: &str = "hunter2-of-redis";

fn add_to_simulator(simulator: &Simulator) {
    for (seed, (key, ..)) in (1..).zip(ENVIRONMENTS) {
        simulator.add_environment(key, Some(&format!("relay-{seed}")), generated_flags(5, 500, seed));
    }
}

/// The file, with the port of the test's own Redis, and the upstream's address.
fn file_for(redis: &RedisServer, simulator: &Simulator) -> String {
    let port = format!("port = {}", redis.port());
    let uri = simulator.uri();
    FILE.replace("port = 6379", &port) + &format!("\n[Main]\n    streamUri = \"{uri}\"\n    baseUri = \"{uri}\"\n")
}

/// The variables, with the same.
fn variables_for(redis: &RedisServer, simulator: &Simulator) -> Vec<(String, String)> {
    let text = VARIABLES.replace("REDIS_PORT=6379", &format!("REDIS_PORT={}", redis.port()));
    let uri = simulator.uri();
    let text = text + &format!("STREAM_URI={uri}\nBASE_URI={uri}\n");
    let pairs = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once('='));
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

async fn wait_until_stored(redis: &RedisServer, simulator: &Simulator) {
    for (key, prefix, _) in ENVIRONMENTS {
        wait_for_stored(redis, prefix, &simulator.data(key), BOUND).await;
    }
}

#[expect(clippy::print_stdout, reason = "a transcript for whoever reads the test's output")]
fn show(line: &str, output: &CliOutput) {
    println!("$ flotilla {line}\n{}{}", output.stderr, output.stdout);
    for key in ENVIRONMENTS.map(|(key, ..)| key).into_iter().chain([PASSWORD]) {
        assert!(!output.stdout.contains(key) && !output.stderr.contains(key), "{output:?}");
    }
}

/// Imports, and waits until both environments are current.
async fn import(fleet: &Fleet, redis: &RedisServer, source: &str, variables: &[(&str, &str)]) {
    let run = async |line: &str| {
        let words: Vec<_> = line.split(' ').collect();
        let output = fleet.cli_with(&words, variables, "").await.unwrap().expect_success();
        show(line, &output);
        output
    };
    let printed = run(&format!("import {source}")).await;
    assert!(printed.stderr.contains("not needed: "), "{printed:?}");
    let dry = run(&format!("import {source} --dry-run")).await;
    assert!(dry.stdout.ends_with("2 to create, 0 to update, 0 to remove, 0 unchanged\n"), "{dry:?}");
    run(&format!("import {source} --apply")).await;
    run("env wait --all --for current").await;
    run("env list").await;
    wait_until_stored(redis, &fleet.simulator).await;
    for (_, prefix, name) in ENVIRONMENTS {
        let status = fleet.environment_status(name).await.unwrap();
        assert_eq!((&status["prefix"], &status["initialization"]), (&prefix.into(), &"current".into()), "{status}");
    }
    // Once more it changes nothing, and what was printed says the same.
    let again = run(&format!("import {source} --apply")).await;
    assert_eq!((again.stdout.as_str(), again.status), ("", 0));
    let made_up = [
        ("SDK_KEY_SPREE_PROJECT_PRODUCTION", ENVIRONMENTS[0].0),
        ("SDK_KEY_SPREE_PROJECT_TEST", ENVIRONMENTS[1].0),
    ];
    let all: Vec<_> = variables.iter().copied().chain(made_up).collect();
    let plan = fleet.cli_with(&["plan", "-f", "-"], &all, &printed.stdout).await.unwrap();
    assert_eq!(plan.status, 0, "{plan:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_file_of_the_relays_documentation_ends_current() {
    if !require_tool("redis-server") {
        return;
    }
    let fleet = Fleet::builder().start().await.unwrap();
    add_to_simulator(&fleet.simulator);
    std::fs::write(fleet.directory().join("ld-relay.conf"), file_for(&fleet.redis, &fleet.simulator)).unwrap();
    import(&fleet, &fleet.redis, "--from ld-relay.conf", &[]).await;

    // Keys in files of their own.
    let words = ["import", "--from", "ld-relay.conf", "--write-keys", "keys", "--store", "mine"];
    let printed = fleet.cli(&words).await.unwrap().expect_success();
    show(&words.join(" "), &printed);
    for (key, _, name) in ENVIRONMENTS {
        let path = fleet.directory().join("keys").join(name);
        assert_eq!(std::fs::read_to_string(&path).unwrap().trim_end(), key);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
    fleet.cli(&words).await.unwrap().expect_success();
    std::fs::write(fleet.directory().join("keys").join(ENVIRONMENTS[0].2), "mine").unwrap();
    let refused = fleet.cli(&words).await.unwrap();
    assert!(refused.status == 2 && refused.stderr.contains("it is there already"), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_variables_of_the_relays_documentation_end_current() {
    if !require_tool("redis-server") {
        return;
    }
    let fleet = Fleet::builder().start().await.unwrap();
    add_to_simulator(&fleet.simulator);
    // It is no store of this control yet, and has a login.
    let redis = RedisServer::start().await.unwrap();
    let mut user = redis::cmd("ACL");
    user.arg("SETUSER").arg("flotilla").arg("on").arg(format!(">{PASSWORD}")).arg("~*").arg("&*").arg("+@all");
    user.exec_async(&mut redis.connection().await.unwrap()).await.unwrap();
    let variables = variables_for(&redis, &fleet.simulator);
    let login = [("REDIS_USERNAME", "flotilla"), ("REDIS_PASSWORD", PASSWORD)];
    let variables: Vec<_> =
        variables.iter().map(|(name, value)| (name.as_str(), value.as_str())).chain(login).collect();
    import(&fleet, &redis, "--from-env", &variables).await;
    let store = fleet.cli(&["store", "get", "relay", "-o", "json"]).await.unwrap().expect_success().json().unwrap();
    assert_eq!((&store["username"], &store["hasPassword"]), (&"flotilla".into(), &true.into()), "{store}");
}

#[tokio::test]
async fn a_manifest_is_printed_without_control() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ld-relay.conf");
    std::fs::write(&path, FILE).unwrap();
    let import = |more: &[&str]| {
        let mut command = program::command("flotilla");
        command.args(["--control", "http://127.0.0.1:1", "import", "--from"]).arg(&path).args(more);
        program::run(command)
    };
    let printed = import(&[]).await;
    assert_eq!(printed.status, Some(0), "{printed:?}");
    assert!(printed.stderr.contains("cannot reach control"), "{printed:?}");
    assert!(printed.stdout.contains("name: relay\n  url: redis://localhost:6379"), "{printed:?}");
    assert_eq!(import(&["--apply"]).await.status, Some(5));
    std::fs::write(&path, FILE.replace("localTtl", "localTTLs")).unwrap();
    let refused = import(&[]).await;
    assert_eq!(refused.status, Some(2));
    assert!(
        refused
            .stderr
            .contains("ld-relay.conf:6: unsupported or misspelled section \"Redis\", variable \"localTTLs\""),
        "{refused:?}"
    );
}

/// `flotilla dev` in a directory of its own.
fn dev(directory: &Path, arguments: &[&str], variables: &[(String, String)]) -> Process {
    let mut command = Command::new(binary_in(&binary_directory().unwrap(), "flotilla").unwrap());
    for (variable, _) in std::env::vars_os() {
        if variable.to_string_lossy().starts_with("FLOTILLA_") {
            command.env_remove(variable);
        }
    }
    command.current_dir(directory).arg("dev").args(arguments).envs(variables.iter().cloned());
    Process::start("dev", command, directory).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_whole_product_runs_on_the_examples() {
    if !require_tool("redis-server") {
        return;
    }
    let simulator = Simulator::start().await.unwrap();
    add_to_simulator(&simulator);
    for from in ["--from", "--from-env"] {
        let redis = RedisServer::start().await.unwrap();
        let directory = tempfile::tempdir().unwrap();
        let (arguments, variables) = if from == "--from" {
            std::fs::write(directory.path().join("ld-relay.conf"), file_for(&redis, &simulator)).unwrap();
            (vec![from, "ld-relay.conf"], Vec::new())
        } else {
            (vec![from], variables_for(&redis, &simulator))
        };
        // The second finds what the first has kept.
        for _ in 0..2 {
            run_until_current(&redis, &simulator, directory.path(), &arguments, &variables).await;
        }
    }
}

#[expect(clippy::print_stdout, reason = "a transcript for whoever reads the test's output")]
async fn run_until_current(
    redis: &RedisServer,
    simulator: &Simulator,
    directory: &Path,
    arguments: &[&str],
    variables: &[(String, String)],
) {
    let mut process = dev(directory, arguments, variables);
    wait_until_stored(redis, simulator).await;
    wait_until("both environments are current", BOUND, async || {
        let said = process.log();
        let is_current = |(.., name): &(&str, &str, &str)| said.contains(&format!("environment/{name}  current"));
        if ENVIRONMENTS.iter().all(is_current) { Ok(()) } else { Err(said) }
    })
    .await;
    println!("$ flotilla dev {}\n{}", arguments.join(" "), process.log());
    process.terminate();
    assert!(process.wait(BOUND).await.unwrap().success(), "{}", process.log());
}

/// Its environment and what its filters make of it are read side by side.
#[tokio::test(flavor = "multi_thread")]
async fn filters_of_a_project_end_current() {
    if !require_tool("redis-server") {
        return;
    }
    let fleet = Fleet::builder().start().await.unwrap();
    let key = ENVIRONMENTS[0].0;
    let filtered = format!("{key}?filter=mobile");
    for (seed, name) in [(1, key), (2, &filtered)] {
        fleet.simulator.add_environment(name, Some("relay"), generated_flags(5, 500, seed));
    }
    let (port, uri) = (fleet.redis.port(), fleet.simulator.uri());
    let file = format!(
        "[Main]\nstreamUri = {uri}\nbaseUri = {uri}\n[Redis]\nport = {port}\n[Environment \"Spree\"]\nsdkKey = {key}\n\
         prefix = ld:spree\nprojKey = spree\n[Filters \"spree\"]\nkeys = mobile\n"
    );
    std::fs::write(fleet.directory().join("ld-relay.conf"), file).unwrap();
    fleet.cli(&["import", "--from", "ld-relay.conf", "--apply"]).await.unwrap().expect_success();
    fleet.cli(&["env", "wait", "--all", "--for", "current"]).await.unwrap().expect_success();
    for (name, prefix) in [(key, "ld:spree"), (&filtered, "ld:spree/mobile")] {
        wait_for_stored(&fleet.redis, prefix, &fleet.simulator.data(name), BOUND).await;
    }
}
