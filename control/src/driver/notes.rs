//! What operators ask about afterwards, in the log.

use crate::fleet::{Note, WorkerChange};

/// Writes a note to the log.
pub(super) fn log(note: &Note) {
    match note {
        Note::Moved { environment, from, to, epoch, reason } => tracing::info!(
            environment = environment.as_str(),
            from = from.as_str(),
            to = to.as_str(),
            epoch = epoch.0,
            reason,
            "environment moved"
        ),
        Note::Assigned { environment, worker, epoch, reason } => tracing::info!(
            environment = environment.as_str(),
            worker = worker.as_str(),
            epoch = epoch.0,
            reason,
            "environment assigned"
        ),
        Note::HandoverBegun { environment, from, to, epoch, reason } => tracing::info!(
            environment = environment.as_str(),
            from = from.as_str(),
            to = to.as_str(),
            epoch = epoch.0,
            reason,
            "handover begun"
        ),
        Note::HandoverAbandoned { environment, to, reason: reason @ "superseded" } => {
            tracing::info!(environment = environment.as_str(), to = to.as_str(), reason, "handover abandoned");
        }
        Note::HandoverAbandoned { environment, to, reason } => {
            tracing::warn!(environment = environment.as_str(), to = to.as_str(), reason, "handover abandoned");
        }
        Note::InitializationChanged { environment, from, to } => tracing::info!(
            environment = environment.as_str(),
            from = from.as_str(),
            to = to.as_str(),
            "initialization changed"
        ),
        Note::Changed { environment, action } => {
            tracing::info!(environment = environment.as_str(), action, "request carried out");
        }
        // The log tells of it when its watchers are told, with its uid.
        Note::Ended { .. } => {}
        Note::Rejected { environment, worker, message } => tracing::warn!(
            environment = environment.as_str(),
            worker = worker.as_str(),
            error = message,
            "a worker cannot carry an environment out"
        ),
        Note::WriteFenced { environment, worker, epoch } => tracing::warn!(
            environment = environment.as_str(),
            worker = worker.as_str(),
            epoch = epoch.0,
            "the store refused a write for its fence"
        ),
        Note::Repaired { environment, worker, epoch, reason } => tracing::warn!(
            environment = environment.as_str(),
            worker = worker.as_str(),
            epoch = epoch.0,
            reason,
            "a worker mended the store"
        ),
        Note::StoreChanged { store, action } => {
            tracing::info!(store = store.as_str(), action, "request carried out");
        }
        Note::Worker { worker, change } => log_worker(worker.as_str(), *change),
        Note::UnknownReason { worker, reason, message } => tracing::warn!(
            worker = worker.as_str(),
            reason,
            error = message,
            "a worker refused a question for a reason that is not known here"
        ),
        Note::UnknownHeld { worker, count, example } => tracing::warn!(
            worker = worker.as_str(),
            count,
            environment = example.as_str(),
            "a worker holds environments that are not known here; they are left running"
        ),
    }
}

fn log_worker(worker: &str, change: WorkerChange) {
    match change {
        WorkerChange::Connected => tracing::info!(worker, "worker connected"),
        WorkerChange::Disconnected => tracing::warn!(worker, "worker disconnected"),
        WorkerChange::Gone(reason @ ("goodbye" | "forgotten")) => {
            tracing::info!(worker, reason, "worker holds nothing any more");
        }
        WorkerChange::Gone(reason) => tracing::warn!(worker, reason, "worker holds nothing any more"),
        WorkerChange::Leaving => tracing::info!(worker, "worker wants to leave"),
        WorkerChange::Cordoned => tracing::info!(worker, "worker cordoned"),
        WorkerChange::Uncordoned => tracing::info!(worker, "worker uncordoned"),
        WorkerChange::Draining => tracing::info!(worker, "worker drains"),
        WorkerChange::Drained => tracing::info!(worker, "worker is drained"),
        WorkerChange::Forgotten => tracing::info!(worker, "worker forgotten"),
    }
}
