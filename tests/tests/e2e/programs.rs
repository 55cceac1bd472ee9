//! Programs that use the API: the client of the proto crate, and the examples in other languages.

use std::process::Stdio;
use std::time::Duration;

use flotilla_proto::Reason;
use flotilla_proto::client::{Client, ClientError, EnvironmentWatch, Event, Retry, WaitError};
use flotilla_proto::v1::{
    CreateEnvironmentRequest, DeleteEnvironmentRequest, EnvironmentFilter, EnvironmentSpec, GetEnvironmentRequest,
    PauseEnvironmentRequest,
};
use flotilla_tests::harness::{Fleet, require_tool, workspace_directory};
use flotilla_tests::simulator::generated_flags;
use futures_util::StreamExt as _;
use tokio::process::Command;

use crate::stored::{BOUND, keys};

const KEY: &str = "sdk-00000000-0000-4000-8000-000000000001";
const NEW_KEY: &str = "sdk-00000000-0000-4000-8000-000000000002";

fn creation(name: &str) -> CreateEnvironmentRequest {
    CreateEnvironmentRequest {
        name: name.to_owned(),
        spec: Some(EnvironmentSpec { prefix: format!("ld:{name}"), ..EnvironmentSpec::default() }),
        sdk_key: KEY.to_owned(),
        ..CreateEnvironmentRequest::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_client_waits_follows_and_names_refusals() {
    let fleet = Fleet::builder().start().await.unwrap();
    fleet.simulator.add_environment(KEY, Some("id"), generated_flags(5, 500, 1));
    let client = Client::new(&fleet.control_url()).unwrap();

    let waiting = client.wait_until_current("spree", BOUND).await;
    assert!(matches!(waiting, Err(WaitError::NotFound(name)) if name == "spree"));
    let request = CreateEnvironmentRequest { request_id: "once".to_owned(), ..creation("spree") };
    let created = client.call(request.clone()).await.unwrap().environment.unwrap();
    let again = client.call(request).await.unwrap().environment.unwrap();
    assert_eq!(created.uid, again.uid, "the same id is done once");
    match client.call(creation("spree")).await {
        Err(ClientError::Refused { refusal, .. }) => assert_eq!(refusal.reason, Reason::NameTaken),
        other => panic!("{other:?}"),
    }
    let current = client.wait_until_current("spree", BOUND).await.unwrap();
    assert_eq!(current.status.unwrap().flags, Some(5));
    client.call(PauseEnvironmentRequest { name: "spree".to_owned(), ..Default::default() }).await.unwrap();
    let waiting = client.wait_until_current("spree", BOUND).await;
    assert!(matches!(waiting, Err(WaitError::Paused(_))), "{waiting:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_goes_on_and_calls_are_repeated_while_control_is_restarted() {
    let mut fleet = Fleet::builder().start().await.unwrap();
    fleet.simulator.add_environment(KEY, Some("id"), generated_flags(5, 500, 1));
    let client = Client::new(&fleet.control_url()).unwrap();
    let mut events = Box::pin(EnvironmentWatch::new(&client, EnvironmentFilter::default()).into_stream());
    let mut next = async || tokio::time::timeout(BOUND, events.next()).await.unwrap().unwrap().unwrap();
    assert_eq!(next().await, Event::Snapshot(Vec::new()));
    client.call(creation("spree")).await.unwrap();
    assert!(matches!(next().await, Event::Changed(environment) if environment.name == "spree"));

    fleet.control().kill9();
    let request = GetEnvironmentRequest { name: "spree".to_owned() };
    let once = client.clone().with_retry(Retry::NEVER).call(request.clone()).await;
    assert!(matches!(once, Err(ClientError::Unreachable { .. })), "{once:?}");
    let waiting = client.wait_until_current("spree", BOUND);
    let (restarted, repeated, waited) = tokio::join!(fleet.restart_control(), client.call(request), waiting);
    restarted.unwrap();
    repeated.unwrap();
    waited.unwrap();
    client.call(DeleteEnvironmentRequest { name: "spree".to_owned(), ..Default::default() }).await.unwrap();
    // Control is another one: it tells of everything anew, and then of what changes.
    loop {
        match next().await {
            Event::Removed { name, .. } if name == "spree" => break,
            Event::Snapshot(environments) if environments.is_empty() => break,
            Event::Snapshot(_) | Event::Changed(_) | Event::Removed { .. } => {}
        }
    }
    let nobody = Client::new("http://127.0.0.1:1").unwrap().with_request_timeout(Duration::from_secs(1));
    let refused = nobody.call(GetEnvironmentRequest::default()).await;
    assert!(matches!(refused, Err(ClientError::Unreachable { .. })), "{refused:?}");
}

/// The life of an environment as an example in that language has it, from beginning to end.
async fn lifecycle(name: &str, tools: &[&str], program: impl FnOnce(std::path::PathBuf) -> Command) {
    if !tools.iter().all(|tool| require_tool(tool)) {
        return;
    }
    let setup = workspace_directory().join("tests/sdks/setup.sh");
    let ready = Command::new(setup).arg(name).stdin(Stdio::null()).output().await.unwrap();
    assert!(ready.status.success(), "{}", String::from_utf8_lossy(&ready.stderr));
    let fleet = Fleet::builder().start().await.unwrap();
    for key in [KEY, NEW_KEY] {
        fleet.simulator.add_environment(key, Some("id"), generated_flags(7, 500, 1));
    }
    let control = fleet.control_url();
    let mut command = program(workspace_directory().join(".tools/sdks").join(name));
    command.args(["--control", control.trim_start_matches("http://")]);
    command.env("SDK_KEY", KEY).env("NEW_SDK_KEY", NEW_KEY).stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(BOUND * 2, command.output()).await.expect("it comes to an end").unwrap();
    let [stdout, stderr] = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
    assert!(output.status.success(), "{stderr}");
    assert_eq!(
        stdout,
        "environment/example created\nenvironment/example current: 7 flags\nenvironment/example updated\n\
         environment/example key rotated\nenvironment/example removed\n"
    );
    assert_eq!(keys(&fleet.redis).await, ["ld:example:$flotilla"], "the released fence alone");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_python_example_runs() {
    lifecycle("example-python", &["python3"], |directory| {
        let mut command = Command::new(directory.join("bin/python"));
        command.arg(directory.join("lifecycle.py"));
        command
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_go_example_runs() {
    lifecycle("example-go", &["go"], |directory| Command::new(directory.join("lifecycle"))).await;
}
