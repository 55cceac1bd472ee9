//! Control's questions to environments: whom they are for, and what is answered when nobody can.

use std::time::Duration;

use flotilla_proto::session::{Answer, Question};
use flotilla_proto::{Reason, StoreUrl, v1};
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::secrets::Secrets;
use crate::store::redis::check;

/// The environment that a question is about, or the store.
pub(super) fn environment_of(question: &Question) -> Result<&str, &v1::ProbeStore> {
    match question {
        Question::ListItems(question) => Ok(&question.environment),
        Question::GetItem(question) => Ok(&question.environment),
        Question::ProveKey(question) => Ok(&question.environment),
        Question::VerifyData(question) => Ok(&question.environment),
        Question::ProbeStore(probe) => Err(probe),
    }
}

/// Looks a store over, in less time than there is: what was found until then is of use.
pub(super) async fn probe(deadline: Duration, probe: v1::ProbeStore, secrets: Secrets) -> Answer {
    let url = match StoreUrl::parse("store_url", &probe.store_url) {
        Ok(url) => url,
        Err(violation) => return failure(Reason::InvalidField, &violation.to_string()),
    };
    Answer::StoreProbed(v1::StoreProbed { checks: check(url, secrets, &probe.prefix, deadline).await })
}

pub(super) async fn wait_for_answer(deadline: Duration, answer: oneshot::Receiver<Answer>) -> Answer {
    match timeout(deadline, answer).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(_)) => failure(Reason::NoWorker, "the environment ended before it answered"),
        Err(_) => failure(Reason::WorkerTimeout, "the environment did not answer in time"),
    }
}

pub(super) fn too_many_questions() -> Answer {
    failure(Reason::WorkerTimeout, "too many questions are under way")
}

pub(super) fn failure(reason: Reason, message: &str) -> Answer {
    Answer::Failure(v1::RequestFailure::new(reason, message))
}
