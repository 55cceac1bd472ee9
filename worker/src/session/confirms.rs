//! Grants that environments want confirmed: one question to control at a time, about all of them.

use std::collections::BTreeMap;

use flotilla_proto::session::WorkerMessage;
use flotilla_proto::{EnvironmentName, GrantId, HeldGrant};

use super::Effect;

/// What is asked and what is to be asked. An environment is in at most one of both, but for one that asks again
/// while its question is under way: that answer may be older than what it has seen since, so it does not get it.
#[derive(Debug, Default)]
pub(super) struct Confirms {
    wanted: BTreeMap<EnvironmentName, HeldGrant>,
    under_way: Option<UnderWay>,
    last_id: u64,
}

#[derive(Debug)]
struct UnderWay {
    id: u64,
    grants: BTreeMap<EnvironmentName, HeldGrant>,
}

impl Confirms {
    /// An environment asks.
    pub(super) fn want(&mut self, held: HeldGrant) {
        self.wanted.insert(held.environment.clone(), held);
    }

    /// The next question, if there is one and none is under way.
    pub(super) fn next(&mut self) -> Option<WorkerMessage> {
        if self.under_way.is_some() || self.wanted.is_empty() {
            return None;
        }
        self.last_id += 1;
        let grants = std::mem::take(&mut self.wanted);
        let message = WorkerMessage::Confirm { id: self.last_id, grants: grants.values().cloned().collect() };
        self.under_way = Some(UnderWay { id: self.last_id, grants });
        Some(message)
    }

    /// Control answered: of the question's grants, these are valid.
    pub(super) fn answered(&mut self, id: u64, valid: &[GrantId]) -> Vec<Effect> {
        let Some(under_way) = self.under_way.take_if(|under_way| under_way.id == id) else {
            return Vec::new();
        };
        under_way
            .grants
            .into_iter()
            .filter(|(environment, _)| !self.wanted.contains_key(environment))
            .map(|(environment, held)| Effect::Confirmed {
                environment,
                valid: valid.contains(&held.grant.id),
                grant: held.grant.id,
            })
            .collect()
    }

    /// The question under way will not be answered: it is to be asked again.
    pub(super) fn session_lost(&mut self) {
        if let Some(under_way) = self.under_way.take() {
            let newer = std::mem::replace(&mut self.wanted, under_way.grants);
            self.wanted.extend(newer);
        }
    }

    /// The environment is gone.
    pub(super) fn forget(&mut self, environment: &EnvironmentName) {
        self.wanted.remove(environment);
        if let Some(under_way) = &mut self.under_way {
            under_way.grants.remove(environment);
        }
    }

    /// The environment's grant is that one now; questions about another are void.
    pub(super) fn keep_only(&mut self, environment: &EnvironmentName, grant: &GrantId) {
        let under_way = self.under_way.as_ref().and_then(|under_way| under_way.grants.get(environment));
        let asked = self.wanted.get(environment).or(under_way);
        if asked.is_some_and(|held| held.grant.id != *grant) {
            self.forget(environment);
        }
    }
}
