//! Workers in tables and words.

use flotilla_proto::Timestamp;
use flotilla_proto::v1::{Worker, WorkerScheduling};

use crate::output::Width;
use crate::output::document::worker_state_text;
use crate::output::table::{Align, columns, pairs};
use crate::output::text::{age, ago, labels, or_dash, size};

/// The state of its session, and whether it takes part.
fn state(worker: &Worker) -> String {
    let session = worker_state_text(worker.state());
    match (worker.scheduling(), worker.leaving) {
        (_, true) => format!("{session}, leaving"),
        (WorkerScheduling::Cordoned, false) => format!("{session}, cordoned"),
        (WorkerScheduling::Draining, false) if worker.environments + worker.standby == 0 => {
            format!("{session}, drained")
        }
        (WorkerScheduling::Draining, false) => format!("{session}, draining"),
        (WorkerScheduling::Active | WorkerScheduling::Unspecified, false) => session.to_owned(),
    }
}

fn capacity(worker: &Worker) -> String {
    if worker.capacity == 0 { "unlimited".to_owned() } else { worker.capacity.to_string() }
}

pub(super) fn worker_table(workers: &[Worker], now: Timestamp, width: Width) -> String {
    let mut headers = vec![
        ("name", Align::Left),
        ("state", Align::Left),
        ("environments", Align::Right),
        ("capacity", Align::Right),
        ("size", Align::Right),
        ("connected", Align::Right),
        ("heard of", Align::Right),
        ("version", Align::Left),
    ];
    if width == Width::Wide {
        headers.extend([("address", Align::Left), ("labels", Align::Left)]);
    }
    let rows: Vec<Vec<String>> = workers
        .iter()
        .map(|worker| {
            let mut row = vec![
                worker.name.clone(),
                state(worker),
                worker.environments.to_string(),
                capacity(worker),
                size(worker.bytes),
                age(now, worker.connect_time.as_ref()),
                age(now, worker.last_heartbeat_time.as_ref()),
                or_dash(&worker.version),
            ];
            if width == Width::Wide {
                row.extend([or_dash(&worker.address), labels(&worker.labels)]);
            }
            row
        })
        .collect();
    columns(&headers, &rows)
}

pub(super) fn worker_pairs(worker: &Worker, now: Timestamp) -> String {
    let mut text = pairs(
        0,
        &[
            ("Name", worker.name.clone()),
            ("State", state(worker)),
            ("Address", or_dash(&worker.address)),
            ("Version", or_dash(&worker.version)),
            ("Labels", labels(&worker.labels)),
            ("Capacity", capacity(worker)),
            ("Data", size(worker.bytes)),
            ("Connected", ago(now, worker.connect_time.as_ref())),
            ("Heard of", ago(now, worker.last_heartbeat_time.as_ref())),
            ("Stands by for", worker.standby.to_string()),
            ("Environments", worker.environments.to_string()),
        ],
    );
    for name in &worker.environment_names {
        text.push_str("  ");
        text.push_str(name);
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use flotilla_proto::v1::WorkerState;

    use super::*;

    const NOW: Timestamp = Timestamp(1_793_000_000_000);

    fn ago(seconds: u64) -> prost_types::Timestamp {
        Timestamp(NOW.0 - seconds * 1000).to_proto()
    }

    fn workers() -> Vec<Worker> {
        let w1 = Worker {
            name: "w1".to_owned(),
            state: WorkerState::Connected.into(),
            address: "127.0.0.1:50000".to_owned(),
            version: "0.1.0".to_owned(),
            labels: [("zone".to_owned(), "eu".to_owned())].into(),
            environments: 2,
            bytes: 5_000_000,
            connect_time: Some(ago(300)),
            last_heartbeat_time: Some(ago(1)),
            environment_names: vec!["a".to_owned(), "b".to_owned()],
            ..Worker::default()
        };
        let w2 = Worker {
            name: "w2".to_owned(),
            state: WorkerState::Gone.into(),
            scheduling: WorkerScheduling::Cordoned.into(),
            capacity: 10,
            ..Worker::default()
        };
        vec![w1, w2]
    }

    #[test]
    fn tables() {
        insta::assert_snapshot!("workers", worker_table(&workers(), NOW, Width::Normal));
        insta::assert_snapshot!("workers_wide", worker_table(&workers(), NOW, Width::Wide));
        insta::assert_snapshot!("worker", worker_pairs(&workers()[0], NOW));
    }

    #[test]
    fn a_state_says_whether_a_worker_takes_part() {
        let connected = WorkerState::Connected.into();
        let worker = |scheduling: WorkerScheduling, environments, standby| Worker {
            state: connected,
            scheduling: scheduling.into(),
            environments,
            standby,
            ..Worker::default()
        };
        assert_eq!(state(&worker(WorkerScheduling::Active, 3, 0)), "connected");
        assert_eq!(state(&worker(WorkerScheduling::Cordoned, 3, 0)), "connected, cordoned");
        assert_eq!(state(&worker(WorkerScheduling::Draining, 3, 0)), "connected, draining");
        assert_eq!(state(&worker(WorkerScheduling::Draining, 0, 1)), "connected, draining");
        assert_eq!(state(&worker(WorkerScheduling::Draining, 0, 0)), "connected, drained");
        let leaving = Worker { leaving: true, ..worker(WorkerScheduling::Active, 1, 0) };
        assert_eq!(state(&leaving), "connected, leaving");
    }
}
