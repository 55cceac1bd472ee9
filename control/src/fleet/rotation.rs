//! Replacing an SDK key: the new one is proved by the owner before the old one is dropped.

use std::time::Duration;

use flotilla_proto::session::{Answer, Question};
use flotilla_proto::{EnvironmentName, Intent, Reason, SdkKeySource, Timestamp, v1};

use super::Fleet;
use super::boundary::{FailedRotation, RotationFailure};
use super::question::{Asker, QuestionId};

/// How long a worker may take to prove a key.
const PROOF_DEADLINE: Duration = Duration::from_secs(20);
/// The shortest and the longest time before a proof that could not be had is asked for again.
const SHORTEST_RETRY: Duration = Duration::from_secs(1);
const LONGEST_RETRY: Duration = Duration::from_mins(1);

/// Where the replacement of a key is. That it failed is in the record, to survive a restart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Rotation {
    /// None is under way, and none succeeded since start.
    Idle,
    /// A new key waits for a worker that can prove it.
    Waiting {
        /// Not before this.
        not_before: Timestamp,
        /// The wait after this one.
        delay: Duration,
        /// What stood in the way last time.
        message: Option<String>,
    },
    /// A worker was asked.
    Asked {
        /// The question that counts: answers to others are about another key, or another environment of the name.
        question: QuestionId,
        /// The wait if it cannot say.
        delay: Duration,
    },
    /// The new key is in force.
    Replaced,
}

impl Rotation {
    /// A new key that nobody was asked about yet.
    pub(super) fn waiting() -> Self {
        Self::Waiting { not_before: Timestamp(0), delay: SHORTEST_RETRY, message: None }
    }
}

impl Fleet {
    /// Asks the owner of an environment to prove its new key, if there is one and it can be asked now.
    pub(super) fn ask_for_proof(&mut self, name: &EnvironmentName) {
        let Some(environment) = self.environments.get(name) else { return };
        let Some(key) = environment.record.pending_key.clone() else { return };
        let Rotation::Waiting { not_before, delay, .. } = environment.rotation else { return };
        if not_before > self.now || environment.record.removal.is_some() {
            return;
        }
        if environment.is_key_refused() {
            self.commit_key(name, key);
            return;
        }
        if environment.granted_intent() != Some(Intent::Serve) || !self.is_in_force(environment) {
            return;
        }
        let Some(worker) = environment.holder.clone() else { return };
        let question =
            Question::ProveKey(v1::ProveKey { environment: name.to_string(), sdk_key: key.expose().to_owned() });
        let asker = Asker::Proof { environment: name.clone() };
        if let Some(question) = self.ask(&worker, question, PROOF_DEADLINE, asker) {
            self.set_rotation(name, Rotation::Asked { question, delay });
        }
    }

    /// What the owner found of the new key.
    pub(super) fn key_answered(&mut self, name: &EnvironmentName, question: QuestionId, answer: Answer) {
        let Some(delay) = self.delay_after(name, question) else { return };
        let Some(environment) = self.environments.get(name) else { return };
        let Some(key) = environment.record.pending_key.clone() else { return };
        match answer {
            Answer::KeyProved(proved) => self.key_proved(name, key, proved),
            Answer::Failure(failure) if Reason::parse(&failure.reason) == Some(Reason::KeyRejected) => {
                let status = match failure.status {
                    0 => String::new(),
                    status => format!(" with HTTP status {status}"),
                };
                let message = format!("LaunchDarkly refused the new SDK key{status}; the old one stays in force");
                self.drop_key(name, RotationFailure::KeyRejected, message);
            }
            Answer::Failure(failure) => self.retry_proof(name, delay, failure.message),
            Answer::ListItems(_) | Answer::GetItem(_) | Answer::StoreProbed(_) | Answer::VerifyData(_) => {
                self.retry_proof(name, delay, "the worker gave an answer to another question".to_owned());
            }
        }
    }

    /// The new key works. It is put in force if it is as good as the present one.
    fn key_proved(&mut self, name: &EnvironmentName, key: SdkKeySource, proved: v1::KeyProved) {
        let Some(environment) = self.environments.get(name) else { return };
        let observed = environment.report_of_grant().and_then(|report| report.environment_id.clone());
        let present = match proved.present_environment_id.as_str() {
            "" => observed.unwrap_or_default(),
            id => id.to_owned(),
        };
        let new = proved.environment_id;
        if !new.is_empty() && !present.is_empty() && new != present {
            let message = format!(
                "the new SDK key belongs to another LaunchDarkly environment ({new}, not {present}); the old one stays in force"
            );
            return self.drop_key(name, RotationFailure::OtherEnvironment, message);
        }
        if proved.missing > 0 {
            let more = proved.missing.saturating_sub(proved.missing_items.len() as u64);
            let more = if more == 0 { String::new() } else { format!(" and {more} more") };
            let message = format!(
                "the new SDK key does not bring {}{more}, as if it were limited to views; the old one stays in force",
                proved.missing_items.join(", ")
            );
            return self.drop_key(name, RotationFailure::FewerItems, message);
        }
        self.commit_key(name, key);
    }

    /// The proof could not be had: ask again later.
    pub(super) fn proof_failed(&mut self, name: &EnvironmentName, question: QuestionId, message: String) {
        if let Some(delay) = self.delay_after(name, question) {
            self.retry_proof(name, delay, message);
        }
    }

    /// The wait after that question; `None`: it is not the one that counts. Another key may have been given meanwhile,
    /// or another environment may have the name; those are proved in their own right.
    fn delay_after(&self, name: &EnvironmentName, question: QuestionId) -> Option<Duration> {
        match self.environments.get(name)?.rotation {
            Rotation::Asked { question: asked, delay } if asked == question => Some(delay),
            Rotation::Asked { .. } | Rotation::Idle | Rotation::Waiting { .. } | Rotation::Replaced => None,
        }
    }

    fn retry_proof(&mut self, name: &EnvironmentName, delay: Duration, message: String) {
        let not_before = self.now.after(delay);
        let delay = (delay * 2).min(LONGEST_RETRY);
        self.set_rotation(name, Rotation::Waiting { not_before, delay, message: Some(message) });
        self.wakes.insert((not_before, name.clone()));
    }

    fn commit_key(&mut self, name: &EnvironmentName, key: SdkKeySource) {
        let Some(environment) = self.environments.get_mut(name) else { return };
        environment.record.sdk_key = Some(key);
        environment.record.pending_key = None;
        environment.record.generation = environment.record.generation.next();
        environment.parked.clear();
        self.account(name);
        self.set_rotation(name, Rotation::Replaced);
        self.gathered.unsaved.insert(name.clone());
        self.tell_all(name);
    }

    fn drop_key(&mut self, name: &EnvironmentName, reason: RotationFailure, message: String) {
        let Some(environment) = self.environments.get_mut(name) else { return };
        environment.record.pending_key = None;
        environment.record.failed_rotation = Some(FailedRotation { reason, message });
        self.set_rotation(name, Rotation::Idle);
        self.gathered.unsaved.insert(name.clone());
    }

    fn set_rotation(&mut self, name: &EnvironmentName, rotation: Rotation) {
        if let Some(environment) = self.environments.get_mut(name) {
            environment.rotation = rotation;
            self.gathered.touched.insert(name.clone());
        }
    }
}
