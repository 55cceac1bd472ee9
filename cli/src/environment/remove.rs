//! remove: the name and the prefix are free when the removal stands in the store.

use flotilla_proto::v1::DeleteEnvironmentRequest;
use tonic::Code;

use crate::arguments::Remove;
use crate::failure::{ExitStatus, Failure};
use crate::output::Shown;
use crate::output::document::RemovedDocument;
use crate::session::Session;
use crate::wait::{Goal, wait};

pub(super) async fn remove(session: &mut Session, options: &Remove) -> Result<(), Failure> {
    let name = options.name.as_str();
    if !options.yes && !options.dry_run {
        let what = if options.purge {
            "and delete its data from the store"
        } else if options.abandon {
            "without touching the store"
        } else {
            "and leave its data in the store as it is"
        };
        if !session.confirm(&format!("remove environment {name} {what}?"))? {
            return Err(Failure::new(ExitStatus::Failed, "nothing was removed"));
        }
    }
    let request = session.client.request(DeleteEnvironmentRequest {
        name: name.to_owned(),
        purge: options.purge,
        abandon: options.abandon,
        validate_only: options.dry_run,
        ..DeleteEnvironmentRequest::default()
    });
    let answer = session.client.environments().delete_environment(request).await;
    if let Err(status) = &answer
        && status.code() == Code::NotFound
        && options.ignore_not_found
    {
        session.note(&format!("there is no environment {name:?}"));
        return Ok(());
    }
    let environment = session.client.answer(answer)?.environment;
    let uid = environment.as_ref().map(|environment| environment.uid.clone());
    let must_wait = environment.is_some() && !options.no_wait && !options.dry_run;
    if must_wait {
        let uids = uid.iter().map(|uid| (name.to_owned(), uid.clone())).collect();
        let goal = Goal::Removed { uids };
        let waited = wait(&session.client, vec![name.to_owned()], goal, options.timeout).await;
        waited.map_err(|failure| match failure.status() {
            ExitStatus::TimedOut => failure.hint("the removal goes on; --abandon ends it without the store"),
            ExitStatus::Done
            | ExitStatus::Failed
            | ExitStatus::Usage
            | ExitStatus::NotFound
            | ExitStatus::Exists
            | ExitStatus::Unreachable
            | ExitStatus::Denied => failure,
        })?;
    }
    let gone = environment.is_none() || must_wait;
    let line = match (options.dry_run, gone) {
        (true, _) => "removed (dry run)",
        (false, true) => "removed",
        (false, false) => "removal started",
    };
    session.show(&Shown {
        document: &RemovedDocument { name: name.to_owned(), uid, removed: gone && !options.dry_run, matches: None },
        names: vec![format!("environment/{name}")],
        table: &|_| format!("environment/{name} {line}\n"),
    })
}
