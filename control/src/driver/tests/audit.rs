//! A change and its record are one transaction, and a call that waits has its record in the end.

use flotilla_proto::Prefix;
use tonic::Code;

use super::*;
use crate::audit::{Attempt, AuditRecord, Door};
use crate::fleet::{RequestId, StoreCheck};

fn entry(subject: &str) -> AuditEntry {
    AuditEntry { subject: subject.to_owned(), ..AuditEntry::of_file(std::path::Path::new("f"), Attempt::First) }
}

fn records(changes: &[Change]) -> Vec<&AuditRecord> {
    changes
        .iter()
        .filter_map(|change| if let Change::PutAudit(record) = change { Some(&**record) } else { None })
        .collect()
}

#[tokio::test]
async fn a_change_and_its_record_are_one_transaction() {
    let (driver, handle, store) = make();
    let asking = async {
        handle.recorded_command(create("a"), Some(entry("environment/a"))).await.unwrap();
        let refusal = handle.recorded_command(create("a"), Some(entry("environment/a"))).await.unwrap_err();
        handle.record(entry("environment"), Outcome::refused(&refusal), Place::Inside).await;
        let newest = handle.read(|view| view.audit).await.unwrap();
        assert_eq!(newest, Some(Revision::at(Term(1), 3)), "a read after it sees it");
        handle.stop().await;
    };
    let (ended, ()) = tokio::join!(driver.run(), asking);
    ended.unwrap();
    let commits = store.commits();
    let with_change =
        commits.iter().find(|changes| changes.iter().any(|change| matches!(change, Change::PutEnvironment(_))));
    let recorded = records(with_change.unwrap());
    assert_eq!(recorded.iter().map(|record| record.number).collect::<Vec<_>>(), [1]);
    assert_eq!((recorded[0].entry.subject.as_str(), recorded[0].outcome.code), ("environment/a", Code::Ok));
    let all: Vec<_> = commits.iter().flat_map(|changes| records(changes)).collect();
    let outcomes: Vec<_> = all.iter().map(|record| (record.number, record.outcome.reason.as_str())).collect();
    assert_eq!(outcomes, [(1, ""), (2, "NAME_TAKEN"), (3, "NAME_TAKEN")]);
}

/// Asks for what a worker has to answer, which it does not.
fn check() -> Command {
    let prefix: Prefix = "p".parse().unwrap();
    let timeout = Duration::from_mins(1);
    Command::CheckStore(StoreCheck {
        store: StoreName::default_store(),
        worker: None,
        prefix: Some(prefix),
        timeout,
    })
}

#[tokio::test]
async fn a_call_whose_caller_leaves_and_one_that_control_leaves_are_recorded() {
    let (driver, handle, store) = make();
    let asking = async {
        let (sink, _outgoing) = mpsc::channel(64);
        let knock = Knock { door: Door::new().0, entry: entry("worker/w1") };
        let ended = CancellationToken::new();
        handle.open_session(String::new(), hello("w1"), sink, ended, knock).await.unwrap();
        let left = handle.recorded_command(check(), Some(entry("store/left")));
        tokio::time::timeout(Duration::from_millis(1), left).await.unwrap_err();
        let recorded = async || {
            loop {
                if let Some(place) = handle.read(|view| view.audit).await.unwrap() {
                    return place;
                }
                tokio::task::yield_now().await;
            }
        };
        recorded().await;
        let waits = handle.recorded_command(check(), Some(entry("store/waits")));
        let (refused, ()) = tokio::join!(waits, handle.stop());
        assert_eq!(refused.unwrap_err().reason, Reason::ShuttingDown);
    };
    let (ended, ()) = tokio::join!(driver.run(), asking);
    ended.unwrap();
    let commits = store.commits();
    let all = commits.iter().flat_map(|changes| records(changes));
    let outcomes: Vec<_> = all.map(|record| (record.entry.subject.as_str(), record.outcome.code)).collect();
    assert_eq!(outcomes, [("store/left", Code::Cancelled), ("store/waits", Code::Unavailable)]);
}

#[tokio::test]
async fn a_worker_that_is_refused_at_once_is_told_of_at_the_door() {
    let (driver, handle, store) = make();
    let (door, keeper) = Door::new();
    let asking = async {
        let mut kept = Vec::new();
        for name in ["the first", "the second"] {
            let (sink, outgoing) = mpsc::channel(64);
            let knock = Knock { door: door.clone(), entry: entry(name) };
            let mut said = hello("w1");
            said.incarnation.random = name.len() as u64;
            said.incarnation.state_directory = name.replace(' ', "-").parse().unwrap();
            handle.open_session(String::new(), said, sink, CancellationToken::new(), knock).await.unwrap();
            kept.push(outgoing);
        }
        drop(door);
        while handle.read(|view| view.audit).await.unwrap().is_none() {
            tokio::task::yield_now().await;
        }
        handle.stop().await;
    };
    let keeping = keeper.keep(handle.clone(), Clock::start());
    let ((ended, ()), ()) = tokio::join!(async { tokio::join!(driver.run(), asking) }, keeping);
    ended.unwrap();
    let commits = store.commits();
    let all: Vec<_> = commits.iter().flat_map(|changes| records(changes)).collect();
    assert_eq!(all.len(), 1, "{all:?}");
    assert_eq!(
        (all[0].entry.subject.as_str(), all[0].outcome.reason.as_str()),
        ("the second", "WORKER_NAME_TAKEN")
    );
    assert_eq!(all[0].place, Place::Door { left_out: 0 });
}

/// Anybody can have records of refusals made, and a full disk is no reason to end for them.
#[tokio::test]
async fn records_alone_that_cannot_be_written_wait_and_end_nothing() {
    let (driver, handle, store) = make();
    let asking = async {
        let refusal = Refusal::new(Reason::CredentialMissing, "no");
        let refused = async |subject: &str| {
            handle.record(entry(subject), Outcome::refused(&refusal), Place::Door { left_out: 0 }).await;
            handle.read(|_| ()).await.unwrap();
        };
        refused("1").await;
        store.fails.store(true, Ordering::Relaxed);
        refused("2").await;
        refused("3").await;
        store.fails.store(false, Ordering::Relaxed);
        refused("4").await;
        handle.recorded_command(create("a"), Some(entry("5"))).await.unwrap();
        handle.stop().await;
    };
    let (ended, ()) = tokio::join!(driver.run(), asking);
    ended.unwrap();
    let commits = store.commits();
    let subjects = commits.iter().flat_map(|changes| records(changes)).map(|record| record.entry.subject.as_str());
    assert_eq!(subjects.collect::<Vec<_>>(), ["1", "2", "3", "4", "5"]);
}

#[tokio::test]
async fn what_is_sent_again_is_recorded_as_that() {
    let (driver, handle, store) = make();
    let request = |name: &str| {
        let Command::Mutate(mutation) = create(name) else { unreachable!("it is one") };
        let request = RequestId { id: "r1".to_owned(), digest: "d".to_owned() };
        Command::Mutate(Mutation { request: Some(request), ..mutation })
    };
    let asking = async {
        for _ in 0..2 {
            handle.recorded_command(request("a"), Some(entry("environment/a"))).await.unwrap();
        }
        handle.stop().await;
    };
    let (ended, ()) = tokio::join!(driver.run(), asking);
    ended.unwrap();
    let commits = store.commits();
    let details = commits.iter().flat_map(|changes| records(changes)).map(|record| record.entry.details.as_str());
    assert_eq!(details.collect::<Vec<_>>(), ["", "sent again: nothing was done"]);
}
