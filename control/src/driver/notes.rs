//! What operators ask about afterwards, in the log.

use crate::fleet::Note;

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
        Note::InitializationChanged { environment, from, to } => tracing::info!(
            environment = environment.as_str(),
            from = from.as_str(),
            to = to.as_str(),
            "initialization changed"
        ),
        Note::Changed { environment, action } => {
            tracing::info!(environment = environment.as_str(), action, "request carried out");
        }
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
