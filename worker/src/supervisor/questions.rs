//! Control's questions to environments: whom they are for, and what is answered when nobody can.

use std::time::Duration;

use flotilla_proto::session::{Answer, Question};
use flotilla_proto::{Reason, v1};
use tokio::sync::oneshot;
use tokio::time::timeout;

pub(super) fn environment_of(question: &Question) -> &str {
    match question {
        Question::ListItems(question) => &question.environment,
        Question::GetItem(question) => &question.environment,
        Question::ProveKey(question) => &question.environment,
    }
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
