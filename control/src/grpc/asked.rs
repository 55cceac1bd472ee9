//! What requests that change something ask for, as it is recorded.

use flotilla_proto::manifest::key_of;
use flotilla_proto::{Refusal, v1};
use tonic::Request;

use super::Api;
use super::guard::Caller;
use crate::audit::{AuditEntry, Kind, Outcome, Place, cut, without_keys};
use crate::fleet::{Command, Reply};

/// A request that changes something.
pub(super) trait Changing {
    /// What it asks for.
    fn asked(&self) -> Asked<'_>;
}

/// What a request asks for.
pub(super) struct Asked<'a> {
    /// What it is about; `None`: many.
    subject: Option<(Kind, &'a str)>,
    details: Vec<String>,
    request_id: &'a str,
    /// Whether it is only tried.
    purpose: Purpose,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Act,
    Validate,
}

impl From<bool> for Purpose {
    fn from(validate_only: bool) -> Self {
        if validate_only { Self::Validate } else { Self::Act }
    }
}

macro_rules! changing {
    ($($message:ident($kind:ident $(, id $id:ident)?) $([$($flag:ident: $word:literal),*])?;)*) => {$(
        impl Changing for v1::$message {
            fn asked(&self) -> Asked<'_> {
                let flags: &[(bool, &str)] = &[$($((self.$flag, $word)),*)?];
                let said = flags.iter().filter(|(is_set, _)| *is_set);
                let request_id = [$(self.$id.as_str(),)? ""][0];
                Asked {
                    subject: Some((Kind::$kind, &self.name)),
                    details: said.map(|(_, word)| (*word).to_owned()).collect(),
                    request_id,
                    purpose: self.validate_only.into(),
                }
            }
        }
    )*};
}

changing! {
    CreateEnvironmentRequest(Environment, id request_id) [take_over: "takeOver"];
    DeleteEnvironmentRequest(Environment, id request_id) [purge: "purge", abandon: "abandon"];
    PauseEnvironmentRequest(Environment, id request_id);
    ResumeEnvironmentRequest(Environment, id request_id);
    ResyncEnvironmentRequest(Environment, id request_id) [take_over: "takeOver", accept_regression: "acceptRegression"];
    RotateSdkKeyRequest(Environment, id request_id) [force: "force"];
    CordonWorkerRequest(Worker);
    UncordonWorkerRequest(Worker);
    DrainWorkerRequest(Worker);
    DeleteWorkerRequest(Worker);
    CreateStoreRequest(Store, id request_id);
    DeleteStoreRequest(Store, id request_id);
}

impl Changing for v1::UpdateEnvironmentRequest {
    fn asked(&self) -> Asked<'_> {
        let mut details = fields(self.update_mask.as_ref());
        details.extend((!self.sdk_key.is_empty()).then(|| "sdkKey".to_owned()));
        Asked {
            subject: Some((Kind::Environment, &self.name)),
            details,
            request_id: &self.request_id,
            purpose: self.validate_only.into(),
        }
    }
}

impl Changing for v1::UpdateStoreRequest {
    fn asked(&self) -> Asked<'_> {
        Asked {
            subject: Some((Kind::Store, &self.name)),
            details: fields(self.update_mask.as_ref()),
            request_id: &self.request_id,
            purpose: self.validate_only.into(),
        }
    }
}

impl Changing for v1::BatchApplyEnvironmentsRequest {
    fn asked(&self) -> Asked<'_> {
        let pruning = self.prune.as_ref();
        let words = [
            (pruning.is_some(), "prune"),
            (pruning.is_some_and(|prune| prune.accept_blast_radius), "acceptBlastRadius"),
            (self.entries.iter().any(|entry| entry.take_over), "takeOver"),
        ];
        Asked {
            subject: None,
            details: words.iter().filter(|(said, _)| *said).map(|(_, word)| (*word).to_owned()).collect(),
            request_id: &self.request_id,
            purpose: self.validate_only.into(),
        }
    }
}

/// It has a worker write keys of its own.
impl Changing for v1::CheckStoreRequest {
    fn asked(&self) -> Asked<'_> {
        Asked {
            subject: Some((Kind::Store, &self.name)),
            details: Vec::new(),
            request_id: "",
            purpose: Purpose::Act,
        }
    }
}

/// It changes something when it repairs.
impl Changing for v1::VerifyDataRequest {
    fn asked(&self) -> Asked<'_> {
        Asked {
            subject: Some((Kind::Environment, &self.environment)),
            details: self.repair.then(|| "repair".to_owned()).into_iter().collect(),
            request_id: "",
            purpose: (!self.repair).into(),
        }
    }
}

/// The fields that an update names. What is no word may be anything.
fn fields(mask: Option<&prost_types::FieldMask>) -> Vec<String> {
    let is_word = |path: &&String| path.bytes().all(|byte| byte.is_ascii_lowercase() || b"._".contains(&byte));
    let paths = mask.map(|mask| mask.paths.as_slice()).unwrap_or_default();
    paths.iter().filter(is_word).map(|path| key_of(path)).collect()
}

impl Caller {
    /// The record in the making of what is asked for.
    pub(super) fn entry(&self, asked: &Asked<'_>) -> AuditEntry {
        let is_id = asked.request_id.chars().count() <= 128 && !asked.request_id.chars().any(char::is_control);
        AuditEntry {
            subject: asked.subject.map(|(kind, name)| kind.named(name)).unwrap_or_default(),
            details: cut(&asked.details.join(", ")),
            request_id: if is_id { without_keys(asked.request_id) } else { String::new() },
            ..self.bare_entry()
        }
    }
}

/// Takes a request that changes something. The entry is for the record of it; without one it is only tried.
pub(super) fn begin<T: Changing>(request: Request<T>) -> Result<(T, Option<AuditEntry>), Refusal> {
    let caller = Caller::of(&request)?;
    let request = request.into_inner();
    let asked = request.asked();
    let entry = (asked.purpose == Purpose::Act).then(|| caller.entry(&asked));
    Ok((request, entry))
}

impl Api {
    /// Carries a command out, or not if it was wrong from the start. Either is recorded.
    pub(super) async fn carry_out(
        &self,
        entry: Option<AuditEntry>,
        command: Result<Command, Refusal>,
    ) -> Result<Reply, Refusal> {
        match command {
            Ok(command) => self.driver.recorded_command(command, entry).await,
            Err(refusal) => {
                self.note_refused(entry, &refusal).await;
                Err(refusal)
            }
        }
    }

    /// Records that a request was wrong from the start.
    pub(super) async fn note_refused(&self, entry: Option<AuditEntry>, refusal: &Refusal) {
        if let Some(entry) = entry {
            self.driver.record(entry, Outcome::refused(refusal), Place::Inside).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_is_told_in_words_without_values() {
        let paths = ["sdk_key", "spec.display_name", "My Secret", "labels"].map(ToOwned::to_owned).to_vec();
        let request = v1::UpdateEnvironmentRequest {
            name: "a".to_owned(),
            update_mask: Some(prost_types::FieldMask { paths }),
            sdk_key: "sdk-secret".to_owned(),
            ..Default::default()
        };
        let asked = request.asked();
        assert!(!asked.details.join(" ").contains("ecret"), "{:?}", asked.details);
        assert!(asked.details.contains(&"labels".to_owned()) && asked.purpose == Purpose::Act);
        let request = v1::DeleteEnvironmentRequest { purge: true, validate_only: true, ..Default::default() };
        assert_eq!(request.asked().details, ["purge"]);
        assert!(request.asked().purpose == Purpose::Validate);
    }
}
