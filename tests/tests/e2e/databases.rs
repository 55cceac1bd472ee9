//! Control's database is an old one, or there are two of it: flag data go on, and nothing falls back.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use flotilla_proto::v1::Initialization;
use flotilla_tests::harness::{Fleet, Listening, Process, require_tool, wait_until};
use flotilla_worker::fence::Fence;

use crate::cuts::{SHORT, assert_well};
use crate::out_of_reach::wait_until_released;
use crate::population::{BOUND, Population, environments_api, list, owners, status, wait_until_connected};
use crate::reader::Reader;

/// Copies the files of a directory.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
    }
}

/// Stops control, copies its database, and starts it again.
async fn back_up(fleet: &mut Fleet, to: &Path) {
    fleet.control().terminate();
    fleet.control().wait(BOUND).await.unwrap();
    copy(&fleet.directory().join("control"), to);
    fleet.restart_control().await.unwrap();
    wait_until_connected(fleet, fleet.worker_count()).await;
}

async fn say(fleet: &Fleet, arguments: &[&str]) {
    fleet.cli(arguments).await.unwrap().expect_success();
}

/// Waits until an environment has this condition with status `true`.
async fn wait_for_condition(fleet: &Fleet, name: &str, kind: &str) {
    let mut api = environments_api(fleet);
    wait_until(&format!("{name} shows {kind}"), BOUND, async || {
        let found = list(&mut api).await?;
        let found = found.iter().find(|one| one.name == name).map(status).unwrap_or_default();
        if found.conditions.iter().any(|one| one.r#type == kind) { Ok(()) } else { Err(format!("{found:?}")) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_from_before_takes_nothing_away() {
    if !require_tool("redis-server") {
        return;
    }
    let mut fleet = Fleet::builder().workers(2).control_arguments(&SHORT).start().await.unwrap();
    let known = Population::settle_in(&fleet, 3).await;
    let backup = fleet.directory().join("backup");
    back_up(&mut fleet, &backup).await;

    // The hour that is forgotten: one more environment, all epochs higher, and one paused.
    Population::add_to_simulator(&fleet, 3);
    Population::add(&fleet, 3).await.expect_success();
    let all = Population { count: 4 };
    all.wait_until_current(&fleet, BOUND).await;
    for worker in ["w1", "w2"] {
        say(&fleet, &["worker", "drain", worker, "--wait"]).await;
        say(&fleet, &["worker", "uncordon", worker]).await;
    }
    say(&fleet, &["env", "pause", &Population::name(1)]).await;
    wait_until_released(&fleet, all, 1).await;
    all.patch(&fleet, 2);
    let reader = Reader::start(&fleet, all).await;

    fleet.control().kill9();
    let data = fleet.directory().join("control");
    fs::remove_dir_all(&data).unwrap();
    copy(&backup, &data);
    fleet.restart_control().await.unwrap();
    wait_until_connected(&fleet, 2).await;
    // What it knows it has again, the paused one too, for that is what it knows.
    known.wait_until_current(&fleet, BOUND).await;
    // What it does not know goes on all the same.
    all.wait_until_stored(&fleet, BOUND).await;
    all.patch(&fleet, 3);
    all.wait_until_stored(&fleet, BOUND).await;
    known.assert_owned_once(&fleet).await;
    assert!(fleet.control().log().contains(&Population::name(3)), "it says so: {}", fleet.control().log());

    reader.stop().await.assert_never_rolled_back();

    // To be known again, it is added again; the prefix is taken until its user insists.
    Population::add(&fleet, 3).await.expect_success();
    wait_for_condition(&fleet, &Population::name(3), "Conflict").await;
    say(&fleet, &["env", "resync", &Population::name(3), "--take-over"]).await;
    all.wait_until_current(&fleet, BOUND).await;
    all.patch(&fleet, 4);
    all.wait_until_stored(&fleet, BOUND).await;
    all.assert_owned_once(&fleet).await;
}

/// A second control, started on a copy of the database, and a worker of its own.
async fn start_clone(fleet: &Fleet, data: &Path) -> (Process, Process) {
    let free = SocketAddr::from(([127, 0, 0, 1], 0));
    let command = fleet.control_command(data, Listening { grpc: Some(free), http: free }).unwrap();
    let mut control = fleet.start_process("clone", command).unwrap();
    let address = control.listening(BOUND).await.unwrap().grpc.unwrap();
    let state = fleet.directory().join("w9");
    let command = fleet.worker_command_towards(&format!("http://{address}"), "w9", &state).unwrap();
    let worker = fleet.start_process("w9", command).unwrap();
    (control, worker)
}

/// Both believe that everything is theirs. They take it from each other, ever more slowly, and mix nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_controls_on_copies_of_one_database_mix_nothing() {
    if !require_tool("redis-server") {
        return;
    }
    let mut fleet = Fleet::builder().control_arguments(&SHORT).start().await.unwrap();
    let population = Population::settle_in(&fleet, 3).await;
    let copied = fleet.directory().join("copied");
    back_up(&mut fleet, &copied).await;
    let before = owners(&fleet).await;
    let reader = Reader::start(&fleet, population).await;
    let (mut control, mut worker) = start_clone(&fleet, &copied).await;

    let (mut version, mut incarnations) = (2, BTreeSet::new());
    wait_until("each environment went back and forth", BOUND, async || {
        population.patch(&fleet, version);
        version += 1;
        let fences: Vec<Fence> =
            population.fences(&fleet).await.iter().map(|fence| Fence::parse(fence).unwrap()).collect();
        incarnations.extend(fences.iter().map(|fence| fence.incarnation.random));
        let rose = |(index, fence): (usize, &Fence)| fence.epoch.0 >= before[&Population::name(index)].1 + 3;
        let all_rose = fences.iter().enumerate().all(rose);
        if all_rose && incarnations.len() == 2 { Ok(()) } else { Err(format!("{fences:?}")) }
    })
    .await;
    population.wait_until_stored(&fleet, BOUND).await;

    control.kill9();
    worker.kill9();
    let mut api = environments_api(&fleet);
    wait_until("the first one has everything again", BOUND * 2, async || {
        let found = list(&mut api).await?;
        let other = found.iter().find(|one| status(one).initialization() != Initialization::Current);
        other.map_or(Ok(()), |one| Err(format!("{one:?}")))
    })
    .await;
    assert_well(&fleet, population, version).await;
    reader.stop().await.assert_never_rolled_back();
}
