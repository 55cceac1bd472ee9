//! Waiting and watching: at once, in order, and from where one was.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use flotilla_proto::v1::environment_service_client::EnvironmentServiceClient;
use flotilla_proto::v1::watch_environments_response::Event;
use flotilla_proto::v1::{WatchEnvironmentsRequest, WatchEnvironmentsResponse};
use flotilla_proto::{Reason, Refusal};
use flotilla_tests::harness::{CliOutput, Fleet, require_tool, wait_until};
use flotilla_tests::simulator::Fault;
use serde_json::Value;
use tonic::transport::Channel;
use tonic::{Code, Streaming};

use crate::population::{BOUND, Population, environments_api, wait_until_connected};

/// How long a command took.
#[expect(clippy::disallowed_methods, reason = "measures how long a command takes")]
async fn timed(fleet: &Fleet, arguments: &[&str]) -> (CliOutput, Duration) {
    let since = Instant::now();
    let output = fleet.cli(arguments).await.unwrap();
    (output, since.elapsed())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wait_ends_with_what_it_waits_for_or_with_the_reason_why_not() {
    if !require_tool("redis-server") {
        return;
    }
    let fleet = Fleet::builder().start().await.unwrap();
    Population::settle_in(&fleet, 2).await;
    let [first, second, third] = [0, 1, 2].map(Population::name);

    // Long before the time that it was given.
    let (unknown, took) = timed(&fleet, &["env", "wait", "nobody", "--for", "current", "--timeout", "1m"]).await;
    assert!(unknown.status == 3 && unknown.stderr.contains("nobody") && took < BOUND, "{unknown:?} {took:?}");
    fleet.cli(&["env", "pause", &second]).await.unwrap().expect_success();
    let (paused, took) =
        timed(&fleet, &["env", "wait", &first, &second, "--for", "current", "--timeout", "1m"]).await;
    assert!(paused.status == 1 && paused.stderr.contains("paused") && took < BOUND, "{paused:?} {took:?}");
    let removed = fleet.cli(&["env", "wait", "nobody", "--for", "removed"]).await.unwrap();
    assert_eq!(removed.status, 0, "{removed:?}");
    fleet.cli(&["env", "wait", "--all", "--for", "current"]).await.unwrap().expect_success();

    Population::add_to_simulator(&fleet, 2);
    fleet.simulator.set_fault(&Population::key(2), Fault::Status(503));
    let (prefix, key) = (Population::prefix(2), Population::key(2));
    let quick = ["--initial-retry-delay", "100ms"];
    fleet.add_environment(&third, &prefix, &key, &quick).await.unwrap().expect_success();
    let (late, _) = timed(&fleet, &["env", "wait", &third, "--for", "initialized", "--timeout", "300ms"]).await;
    assert!(late.status == 124 && late.stderr.contains("503"), "{late:?}");

    // Waiting first, then what is waited for.
    let wait_for_current = ["env", "wait", &third, "--for", "current", "--timeout", "1m"];
    let waiting = timed(&fleet, &wait_for_current);
    let clearing = async {
        wait_until("LaunchDarkly was tried again", BOUND, async || {
            let faults = fleet.simulator.counters(&key).faults;
            if faults > 2 { Ok(()) } else { Err(format!("{faults} faults")) }
        })
        .await;
        fleet.simulator.clear_fault(&key);
    };
    let ((reached, took), ()) = tokio::join!(waiting, clearing);
    assert!(reached.status == 0 && took < BOUND, "{reached:?} {took:?}");
    let wait_for_removal = ["env", "wait", &third, "--for", "removed", "--timeout", "1m"];
    let remove = ["env", "remove", &third, "--purge", "--yes"];
    let ((gone, took), removed) = tokio::join!(timed(&fleet, &wait_for_removal), fleet.cli(&remove));
    removed.unwrap().expect_success();
    assert!(gone.status == 0 && took < BOUND, "{gone:?} {took:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watching_list_prints_one_document_a_line() {
    if !require_tool("redis-server") {
        return;
    }
    let mut fleet = Fleet::builder().start().await.unwrap();
    Population::settle_in(&fleet, 2).await;
    let name = Population::name(0);
    let command = fleet.cli_command(&["env", "list", "-w", "-o", "json"]).unwrap();
    let mut watching = fleet.start_process("watching", command).unwrap();
    let wait_for = async |what: &str, is_it: &dyn Fn(&Value) -> bool| {
        wait_until(what, BOUND, async || {
            let log = watching.log();
            // The last line may not be complete yet.
            let complete = log.rsplit_once('\n').map(|(complete, _)| complete).unwrap_or_default();
            let documents: Vec<Value> =
                complete.lines().map(|line| serde_json::from_str(line).expect("a line is a document")).collect();
            if documents.iter().any(is_it) { Ok(()) } else { Err(log) }
        })
        .await;
    };
    let is_named = |document: &Value| document["name"] == name.as_str();
    wait_for("the first is there", &|one| is_named(one) && one["initialization"] == "current").await;
    wait_for("the other is there", &|one| one["name"] == Population::name(1)).await;
    fleet.cli(&["env", "pause", &name]).await.unwrap().expect_success();
    wait_for("it is paused", &|one| is_named(one) && one["paused"] == true).await;
    fleet.restart_control().await.unwrap();
    fleet.cli(&["env", "remove", &name, "--yes"]).await.unwrap().expect_success();
    wait_for("it is removed", &|one| is_named(one) && one["removed"] == true).await;
    assert!(watching.is_running(), "{}", watching.log());
}

async fn watch(
    api: &mut EnvironmentServiceClient<Channel>,
    revision: &str,
) -> Result<Streaming<WatchEnvironmentsResponse>, tonic::Status> {
    let request = WatchEnvironmentsRequest {
        resume_from_revision: revision.to_owned(),
        ..WatchEnvironmentsRequest::default()
    };
    Ok(api.watch_environments(request).await?.into_inner())
}

/// What a watch says until it is in step: `+name` and `-name`, and the revision at which it is in step.
async fn until_synced(
    stream: &mut Streaming<WatchEnvironmentsResponse>,
) -> Result<(Vec<String>, String), tonic::Status> {
    let mut told = Vec::new();
    loop {
        let next = tokio::time::timeout(BOUND, stream.message()).await.expect("the watch says something");
        let message = next?.expect("the watch goes on");
        match message.event.unwrap() {
            Event::Changed(environment) => told.push(format!("+{}", environment.name)),
            Event::Removed(removed) => told.push(format!("-{}", removed.name)),
            Event::Synced(_) => return Ok((told, message.revision)),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_goes_on_from_its_revision_or_is_told_to_list_again() {
    if !require_tool("redis-server") {
        return;
    }
    let mut fleet = Fleet::builder().start().await.unwrap();
    let population = Population::settle_in(&fleet, 4).await;
    let mut api = environments_api(&fleet);

    let (snapshot, revision) = until_synced(&mut watch(&mut api, "").await.unwrap()).await.unwrap();
    let names: BTreeSet<String> = snapshot.into_iter().collect();
    assert_eq!(names, population.indices().map(|index| format!("+{}", Population::name(index))).collect());

    // Patches change counters and times only: a watch does not speak of them.
    population.patch(&fleet, 2);
    population.wait_until_stored(&fleet, BOUND).await;
    let [first, second, fifth] = [0, 1, 4].map(Population::name);
    fleet.cli(&["env", "pause", &first]).await.unwrap().expect_success();
    fleet.cli(&["env", "remove", &second, "--yes"]).await.unwrap().expect_success();
    Population::add_to_simulator(&fleet, 4);
    Population::add(&fleet, 4).await.expect_success();
    fleet.cli(&["env", "wait", &fifth, "--for", "current"]).await.unwrap().expect_success();

    let mut resumed = watch(&mut api, &revision).await.unwrap();
    let (told, later) = until_synced(&mut resumed).await.unwrap();
    let told: BTreeSet<String> = told.into_iter().collect();
    let wanted = [format!("+{first}"), format!("-{second}"), format!("+{fifth}")];
    assert_eq!(told, BTreeSet::from(wanted), "what was missed, and nothing else");
    let (nothing, _) = until_synced(&mut watch(&mut api, &later).await.unwrap()).await.unwrap();
    assert!(nothing.len() <= 1, "{nothing:?}");
    // It goes on live.
    fleet.cli(&["env", "resume", &first]).await.unwrap().expect_success();
    let next = tokio::time::timeout(BOUND, resumed.message()).await.expect("the change is told").unwrap().unwrap();
    assert!(matches!(next.event, Some(Event::Changed(one)) if one.name == first));

    drop(resumed);
    fleet.restart_control().await.unwrap();
    wait_until_connected(&fleet, 1).await;
    let status = match watch(&mut api, &later).await {
        Ok(mut stream) => until_synced(&mut stream).await.unwrap_err(),
        Err(status) => status,
    };
    assert_eq!(status.code(), Code::OutOfRange, "{status:?}");
    assert_eq!(Refusal::from_status(&status).unwrap().reason, Reason::RevisionCompacted);
    let (again, _) = until_synced(&mut watch(&mut api, "").await.unwrap()).await.unwrap();
    assert_eq!(again.len(), 4);
}
