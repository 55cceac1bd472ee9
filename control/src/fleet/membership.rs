//! Whether workers take part, as users say: cordon, drain, forget.

use flotilla_proto::{Reason, Refusal, WorkerName, v1};

use super::Fleet;
use super::boundary::{Change, CommandId, Effect, Reply, Scheduling, WorkerAction, WorkerCommand};
use super::environment::MoveReason;
use super::event::{Note, WorkerChange};
use super::refuse;
use super::worker::Worker;

impl Fleet {
    /// Carries a user's decision about a worker out, or says why not.
    pub(super) fn decide_worker(&mut self, command: CommandId, asked: &WorkerCommand) {
        let name = &asked.worker;
        let Some(worker) = self.workers.get(name) else {
            return self.reply(command, Err(no_such_worker(name)));
        };
        if asked.action == WorkerAction::Forget && worker.session().is_some() {
            let why = format!("worker \"{name}\" is connected; stop it first, or drain it and leave it running");
            return self.reply(command, refuse(Reason::WorkerConnected, why));
        }
        match (asked.action, asked.validate_only) {
            (WorkerAction::Schedule(scheduling), true) => {
                let shown = self.worker_summary(name);
                let shown =
                    shown.map(|shown| Box::new(v1::Worker { scheduling: scheduling.to_proto().into(), ..shown }));
                return self.reply(command, Ok(Reply::Worker(shown)));
            }
            (WorkerAction::Forget, true) => {}
            (WorkerAction::Schedule(scheduling), false) => self.schedule(name, scheduling),
            (WorkerAction::Forget, false) => self.forget(name),
        }
        self.reply_worker(command, name.clone());
    }

    fn schedule(&mut self, name: &WorkerName, scheduling: Scheduling) {
        let Some(worker) = self.workers.get_mut(name) else { return };
        if worker.scheduling == scheduling {
            return;
        }
        worker.scheduling = scheduling;
        let worker = name.clone();
        let (change, noted) = match scheduling {
            Scheduling::Active => (Change::DeleteWorker { worker }, WorkerChange::Uncordoned),
            Scheduling::Cordoned => (Change::PutWorker { worker, scheduling }, WorkerChange::Cordoned),
            Scheduling::Draining => (Change::PutWorker { worker, scheduling }, WorkerChange::Draining),
        };
        self.gathered.changes.push(change);
        self.note_worker(name, noted);
        self.reconsider_worker(name);
        self.gathered.retry_unplaced = true;
    }

    /// What it had moves at once, and nothing is remembered of it.
    fn forget(&mut self, name: &WorkerName) {
        self.lose(name, MoveReason::Forgotten);
        self.note_worker(name, WorkerChange::Forgotten);
        self.remove_worker(name);
        self.gathered.changes.push(Change::DeleteWorker { worker: name.clone() });
    }

    /// A worker that holds nothing is known no more.
    pub(super) fn remove_worker(&mut self, name: &WorkerName) {
        let Some(worker) = self.workers.remove(name) else { return };
        for rejected in &worker.rejected {
            if let Some(environment) = self.environments.get_mut(rejected) {
                environment.parked.remove(name);
            }
        }
        for environment in self.environments.values_mut() {
            environment.shunned.forgive(name);
        }
        self.gathered.effects.push(Effect::WorkerRemoved { worker: name.clone() });
    }

    /// What may be given to a worker, or is to be taken from it, may have changed.
    pub(super) fn reconsider_worker(&mut self, name: &WorkerName) {
        let Some(worker) = self.workers.get(name) else { return };
        self.gathered.to_plan.extend(worker.holds.iter().cloned());
        // Those that it gets ready are not among what it holds.
        self.gathered.to_plan.extend(self.handovers.iter().cloned());
        self.gathered.touched_workers.insert(name.clone());
        self.gathered.handovers_due = true;
    }

    /// Notes what became of a worker.
    pub(super) fn note_worker(&mut self, name: &WorkerName, change: WorkerChange) {
        self.gathered.touched_workers.insert(name.clone());
        self.gathered.effects.push(Effect::Note(Note::Worker { worker: name.clone(), change }));
    }

    /// Whether a worker is to be empty, and is. A lost one has been emptied otherwise.
    pub(super) fn is_drained(&self, name: &WorkerName, worker: &Worker) -> bool {
        worker.scheduling == Scheduling::Draining
            && worker.is_within_lease()
            && worker.holds.is_empty()
            && self.standbys_at(name) == 0
    }

    /// Whether a worker's session is alive.
    pub(super) fn is_connected(&self, name: &WorkerName) -> bool {
        self.workers.get(name).is_some_and(|worker| worker.session().is_some())
    }

    /// The reply about a worker: as it is at the end of the step.
    fn reply_worker(&mut self, id: CommandId, worker: WorkerName) {
        self.gathered.replies.push((id, super::Answer::Worker(worker)));
    }

    pub(super) fn present_worker(&self, name: &WorkerName) -> Reply {
        Reply::Worker(self.worker(name).map(Box::new))
    }
}

/// There is no worker of that name.
pub(crate) fn no_such_worker(name: &WorkerName) -> Refusal {
    Refusal::new(Reason::WorkerNotFound, format!("no worker is named \"{name}\"; list those that exist"))
}
