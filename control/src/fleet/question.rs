//! Questions to workers, and the way of their answers back.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use flotilla_proto::session::{Answer, ControlMessage, Question};
use flotilla_proto::v1::{self, RequestFailure};
use flotilla_proto::{
    EnvironmentName, FieldViolation, Intent, Prefix, Reason, Refusal, StoreName, Timestamp, WorkerName,
};

use super::boundary::{CommandId, Effect, Reply, SessionId, StoreCheck};
use super::event::Note;
use super::{Fleet, no_such_worker, refuse};

/// Names a question since control's start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct QuestionId(u64);

/// Questions that are not answered yet.
#[derive(Debug, Clone, Default)]
pub(super) struct Questions {
    last: u64,
    open: BTreeMap<QuestionId, Open>,
    deadlines: BTreeSet<(Timestamp, QuestionId)>,
}

#[derive(Debug, Clone)]
struct Open {
    id: QuestionId,
    session: SessionId,
    worker: WorkerName,
    deadline: Timestamp,
    asker: Asker,
}

/// Who waits for an answer.
#[derive(Debug, Clone)]
pub(super) enum Asker {
    /// A caller.
    Command(CommandId),
    /// The replacement of an SDK key.
    Proof { environment: EnvironmentName },
}

impl Questions {
    fn take(&mut self, id: QuestionId) -> Option<Open> {
        let open = self.open.remove(&id)?;
        self.deadlines.remove(&(open.deadline, id));
        Some(open)
    }

    fn take_due(&mut self, now: Timestamp) -> Option<Open> {
        let (deadline, id) = self.deadlines.first().copied()?;
        if deadline > now {
            return None;
        }
        self.take(id)
    }

    fn take_of_session(&mut self, session: SessionId) -> Vec<Open> {
        let ids: Vec<_> = self.open.iter().filter(|(_, open)| open.session == session).map(|(id, _)| *id).collect();
        ids.into_iter().filter_map(|id| self.take(id)).collect()
    }

    /// Nobody waits for that command's answer any more.
    pub(super) fn abandon(&mut self, command: CommandId) {
        let of_command = |open: &Open| match &open.asker {
            Asker::Command(id) => *id == command,
            Asker::Proof { .. } => false,
        };
        let id = self.open.iter().find(|(_, open)| of_command(open)).map(|(id, _)| *id);
        if let Some(id) = id {
            self.take(id);
        }
    }
}

impl Fleet {
    /// A caller asks the worker that serves an environment.
    pub(super) fn ask_for_command(
        &mut self,
        command: CommandId,
        name: &EnvironmentName,
        question: Question,
        timeout: Duration,
    ) {
        let result = self.server_of(name);
        match result {
            Ok(worker) => {
                self.ask(&worker, question, timeout, Asker::Command(command));
            }
            Err(refusal) => self.reply(command, Err(refusal)),
        }
    }

    /// A caller wants a store looked over.
    pub(super) fn ask_to_check(&mut self, command: CommandId, check: StoreCheck) {
        let StoreCheck { store, worker, prefix, timeout } = check;
        let result = self.probe_of(&store, prefix).and_then(|probe| Ok((probe, self.prober(worker)?)));
        match result {
            Ok((probe, worker)) => {
                self.ask(&worker, Question::ProbeStore(probe), timeout, Asker::Command(command));
            }
            Err(refusal) => self.reply(command, Err(refusal)),
        }
    }

    fn probe_of(&self, store: &StoreName, prefix: Option<Prefix>) -> Result<v1::ProbeStore, Refusal> {
        let url = &self.stores.get(store).ok_or_else(|| self.no_such_store(store))?.url;
        // Whoever may write there may write this, also where its keys are restricted.
        let of_user = || {
            let user = self.users_of(store).next()?;
            Some(self.environments.get(user)?.record.spec.prefix.to_string())
        };
        let prefix = match prefix {
            Some(prefix) => {
                url.check_prefix(&prefix).map_err(|why| FieldViolation::new("prefix", &why))?;
                prefix.to_string()
            }
            None => of_user().unwrap_or_else(|| "{flotilla-check}".to_owned()),
        };
        Ok(v1::ProbeStore { store_url: url.expose().to_owned(), prefix })
    }

    fn prober(&self, wanted: Option<WorkerName>) -> Result<WorkerName, Refusal> {
        match wanted {
            Some(worker) if !self.workers.contains_key(&worker) => Err(no_such_worker(&worker)),
            Some(worker) if !self.is_connected(&worker) => {
                refuse(Reason::NoWorker, format!("worker \"{worker}\" is not connected now"))
            }
            Some(worker) => Ok(worker),
            None => self.workers.keys().find(|worker| self.is_connected(worker)).cloned().ok_or_else(|| {
                Refusal::new(Reason::NoWorker, "no worker is connected now, and stores are reached by workers only")
            }),
        }
    }

    fn server_of(&self, name: &EnvironmentName) -> Result<WorkerName, Refusal> {
        let environment = self.existing(name)?;
        let holder = environment.holder.as_ref().filter(|worker| self.is_connected(worker));
        match (holder, environment.granted_intent()) {
            (Some(worker), Some(Intent::Serve)) => Ok(worker.clone()),
            (Some(_) | None, Some(_) | None) => refuse(
                Reason::NoWorker,
                format!(
                    "no connected worker serves environment \"{name}\" now; see its condition Assigned and try again"
                ),
            ),
        }
    }

    /// Asks a worker; `None` if it has no session.
    pub(super) fn ask(
        &mut self,
        worker: &WorkerName,
        question: Question,
        timeout: Duration,
        asker: Asker,
    ) -> Option<QuestionId> {
        let session = self.workers.get(worker)?.session()?.id;
        self.questions.last += 1;
        let id = QuestionId(self.questions.last);
        let deadline = self.now.after(timeout);
        self.questions.deadlines.insert((deadline, id));
        self.questions.open.insert(id, Open { id, session, worker: worker.clone(), deadline, asker });
        let message = ControlMessage::Request { id: id.0, deadline: timeout, question };
        self.gathered.effects.push(Effect::Send { session, message });
        Some(id)
    }

    /// A worker answered.
    pub(super) fn answered(&mut self, session: SessionId, id: u64, answer: Answer) {
        let id = QuestionId(id);
        // An answer that came too late, or to a question of another session, is nobody's.
        if self.questions.open.get(&id).is_none_or(|open| open.session != session) {
            return;
        }
        let Some(open) = self.questions.take(id) else { return };
        match open.asker {
            Asker::Command(command) => {
                let result = match answer {
                    Answer::Failure(failure) => Err(self.refusal_of(open.worker, failure)),
                    Answer::StoreProbed(v1::StoreProbed { checks }) => {
                        Ok(Reply::Checked(v1::CheckStoreResponse { worker: open.worker.to_string(), checks }))
                    }
                    Answer::ListItems(_) | Answer::GetItem(_) | Answer::KeyProved(_) | Answer::VerifyData(_) => {
                        Ok(Reply::Answer(answer))
                    }
                };
                self.reply(command, result);
            }
            Asker::Proof { environment } => self.key_answered(&environment, id, answer),
        }
    }

    fn refusal_of(&mut self, worker: WorkerName, failure: RequestFailure) -> Refusal {
        let RequestFailure { reason, message, status: _ } = failure;
        let known = Reason::parse(&reason);
        if known.is_none() {
            let note = Note::UnknownReason { worker, reason, message: message.clone() };
            self.gathered.effects.push(Effect::Note(note));
        }
        Refusal::new(known.unwrap_or(Reason::Internal), message)
    }

    /// Ends the questions whose time is over.
    pub(super) fn expire_questions(&mut self) {
        while let Some(open) = self.questions.take_due(self.now) {
            let message = format!("worker \"{}\" did not answer in time; try again", open.worker);
            self.fail_question(open, Reason::WorkerTimeout, message);
        }
    }

    /// Ends the questions to a session that is over.
    pub(super) fn fail_questions_of(&mut self, session: SessionId) {
        for open in self.questions.take_of_session(session) {
            let message =
                format!("the connection to worker \"{}\" was lost before it answered; try again", open.worker);
            self.fail_question(open, Reason::NoWorker, message);
        }
    }

    fn fail_question(&mut self, open: Open, reason: Reason, message: String) {
        match open.asker {
            Asker::Command(command) => self.reply(command, refuse(reason, message)),
            Asker::Proof { environment } => self.proof_failed(&environment, open.id, message),
        }
    }
}
