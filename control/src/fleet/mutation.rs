//! What users may change, and when not. Deciding is separate from doing, so that a dry run is the same decision.

use flotilla_proto::session::TakeOver;
use flotilla_proto::{
    EnvironmentName, EnvironmentSpec, FieldViolation, Generation, Reason, Refusal, SdkKeySource, Uid,
};

use super::boundary::{
    Action, Change, Claim, Command, CommandId, Edit, Effect, EnvironmentRecord, Mutation, Proof, Regression,
    RemovalKind, RemovalRequest, Reply, RequestId, SpecChange, Subject,
};
use super::environment::Environment;
use super::event::Note;
use super::rotation::Rotation;
use super::{Fleet, refuse, request};

/// What a mutation comes to.
pub(super) enum Decision {
    /// Everything is so already.
    Unchanged,
    /// The environment's record becomes this one.
    Put(Box<EnvironmentRecord>),
    /// The environment ends now.
    End,
}

impl Fleet {
    /// Carries a mutation out, or says why not.
    pub(super) fn mutate(&mut self, command: CommandId, mutation: Mutation) {
        let Mutation { environment: name, action, etag, request, validate_only } = mutation;
        let asked = action.as_str();
        match self.replayed(request.as_ref()) {
            Ok(None) => {}
            Ok(Some(Subject::Environment(answered))) => return self.reply_present(command, answered),
            // Its digest is of another kind of request.
            Ok(Some(Subject::Store(answered))) => return self.reply_store(command, answered),
            Ok(Some(Subject::Batch)) => return self.reply_present(command, name),
            Err(refusal) => return self.reply(command, Err(refusal)),
        }
        if !validate_only && request.is_some() && self.requests.is_full() {
            return self.reply(command, refuse(Reason::TooManyRequestIds, request::FULL));
        }
        let decision = match self.decide(&name, action, etag.as_deref()) {
            Ok(decision) => decision,
            Err(refusal) => return self.reply(command, Err(refusal)),
        };
        if validate_only {
            let reply = self.foresee(&name, decision);
            return self.reply(command, Ok(reply));
        }
        if let Some(request) = request {
            let subject = Subject::Environment(name.clone());
            self.requests.answered(self.now, request.clone(), subject.clone());
            let change = Change::PutRequest { request, subject, at: self.now };
            self.gathered.changes.push(change);
        }
        self.carry_out(&name, decision, asked);
        self.reply_present(command, name);
    }

    /// Whether the command was answered before, so that nothing is done for it.
    pub(crate) fn is_repeated(&self, command: &Command) -> bool {
        matches!(self.replayed(command.request()), Ok(Some(_)))
    }

    pub(super) fn replayed(&self, request: Option<&RequestId>) -> Result<Option<Subject>, Refusal> {
        let Some(request) = request else { return Ok(None) };
        match self.requests.find(self.now, &request.id) {
            None => Ok(None),
            Some((digest, subject)) if digest == request.digest => Ok(Some(subject.clone())),
            Some(_) => refuse(
                Reason::RequestIdReused,
                format!(
                    "request_id {:?} was used for another request within the last hour; take a new id for a new request",
                    request.id
                ),
            ),
        }
    }

    fn decide(&self, name: &EnvironmentName, action: Action, etag: Option<&str>) -> Result<Decision, Refusal> {
        match action {
            Action::Create { uid, spec, sdk_key, claim } => self.decide_create(name, uid, spec, sdk_key, claim),
            Action::Delete(removal) => {
                let environment = self.existing(name)?;
                check_etag(environment, etag)?;
                Ok(self.decide_delete(environment, removal))
            }
            Action::Edit(edit) => {
                let environment = self.existing(name)?;
                check_etag(environment, etag)?;
                self.decide_edit(environment, edit)
            }
        }
    }

    fn decide_edit(&self, environment: &Environment, edit: Edit) -> Result<Decision, Refusal> {
        check_not_removing(environment)?;
        match edit {
            Edit::Update { change, sdk_key } => self.decide_update(environment, change, sdk_key),
            Edit::Pause => Ok(self.decide_pause(environment, &Pause::Paused)),
            Edit::Resume => Ok(self.decide_pause(environment, &Pause::Running)),
            Edit::Resync { claim, regression } => self.decide_resync(environment, claim, regression),
            Edit::RotateSdkKey { sdk_key, proof } => self.decide_rotate(environment, sdk_key, proof),
        }
    }

    pub(super) fn decide_create(
        &self,
        name: &EnvironmentName,
        uid: Uid,
        spec: EnvironmentSpec,
        sdk_key: Option<SdkKeySource>,
        claim: Claim,
    ) -> Result<Decision, Refusal> {
        if let Some(taken) = self.environments.get(name) {
            let message = match taken.record.removal {
                None => format!("an environment named \"{name}\" exists; choose another name, or change that one"),
                Some(_) => format!(
                    "environment \"{name}\" is still being removed and holds its name until then; wait for that, or end it with --abandon"
                ),
            };
            return refuse(Reason::NameTaken, message);
        }
        let Some(store) = self.stores.get(&spec.store) else {
            let why = self.no_such_store(&spec.store).message;
            let violation = FieldViolation::new("spec.store", &why);
            return Err(Refusal { reason: Reason::StoreNotFound, ..violation.into() });
        };
        if let Some(other) = self.prefixes.get(&(store.endpoint.clone(), spec.prefix.clone())) {
            return Err(self.prefix_taken(&spec, other));
        }
        store.url.check_prefix(&spec.prefix).map_err(|why| FieldViolation::new("spec.prefix", &why))?;
        check_key(&spec, sdk_key.as_ref())?;
        Ok(Decision::Put(Box::new(EnvironmentRecord {
            name: name.clone(),
            uid,
            spec,
            sdk_key,
            pending_key: None,
            failed_rotation: None,
            paused: false,
            removal: None,
            generation: Generation(1),
            change_number: 1,
            resync: 0,
            accepted_resync: None,
            take_over: match claim {
                Claim::Respect => None,
                Claim::TakeOver => Some(TakeOver::Any),
            },
            grant: None,
            predecessor: None,
            released: None,
            created: self.now,
            updated: self.now,
        })))
    }

    fn prefix_taken(&self, spec: &EnvironmentSpec, other: &EnvironmentName) -> Refusal {
        let holder = self.environments.get(other);
        let store = match holder.map(|holder| &holder.record.spec.store) {
            Some(store) if *store != spec.store => {
                format!("store \"{}\" (the same place as store \"{store}\")", spec.store)
            }
            Some(_) | None => format!("store \"{}\"", spec.store),
        };
        let way_out = if holder.is_some_and(|holder| holder.record.removal.is_some()) {
            "which is being removed; wait until it is gone, or end it with --abandon"
        } else {
            "choose another prefix, or remove that environment first"
        };
        let why = format!("\"{}\" on {store} belongs to environment \"{other}\"; {way_out}", spec.prefix);
        Refusal { reason: Reason::PrefixTaken, ..FieldViolation::new("spec.prefix", &why).into() }
    }

    pub(super) fn decide_update(
        &self,
        environment: &Environment,
        change: SpecChange,
        sdk_key: Option<SdkKeySource>,
    ) -> Result<Decision, Refusal> {
        let old = &environment.record.spec;
        let new = (change.0)(old).map_err(Refusal::fields)?;
        check_immutable(old, &new)?;
        let moved = moves_upstream(old, &new);
        // Without this, whoever may update but does not know the key could have it sent to a server of theirs.
        let needs_key = !new.is_file() && (moved || environment.record.sdk_key.is_none());
        match &sdk_key {
            None if needs_key => {
                let why = if moved {
                    "changing stream_uri or base_uri needs the SDK key again"
                } else {
                    "a source other than a file needs an SDK key"
                };
                return Err(FieldViolation::new("sdk_key", why).into());
            }
            Some(_) if new.is_file() => return Err(key_for_file()),
            Some(_) if !needs_key => {
                let hint = "given, but neither stream_uri nor base_uri changes; to replace the key use rotate-key";
                return Err(FieldViolation::new("sdk_key", hint).into());
            }
            Some(_) | None => {}
        }
        let mut record = environment.record.clone();
        record.spec = new;
        if record.spec.is_file() || sdk_key.is_some() {
            record.sdk_key = sdk_key;
            record.pending_key = None;
            record.failed_rotation = None;
        }
        if record.spec == *old && record.sdk_key == environment.record.sdk_key {
            return Ok(Decision::Unchanged);
        }
        record.generation = record.generation.next();
        Ok(self.changed(record))
    }

    fn decide_pause(&self, environment: &Environment, wanted: &Pause) -> Decision {
        let paused = match wanted {
            Pause::Paused => true,
            Pause::Running => false,
        };
        if environment.record.paused == paused {
            return Decision::Unchanged;
        }
        let mut record = environment.record.clone();
        record.paused = paused;
        record.generation = record.generation.next();
        self.changed(record)
    }

    fn decide_resync(
        &self,
        environment: &Environment,
        claim: Claim,
        regression: Regression,
    ) -> Result<Decision, Refusal> {
        let name = &environment.record.name;
        if environment.record.paused {
            return refuse(
                Reason::EnvironmentPaused,
                format!("environment \"{name}\" is paused; resume it first, which compares in full too"),
            );
        }
        let mut record = environment.record.clone();
        if claim == Claim::TakeOver {
            let shown = environment.conflict().and_then(|report| report.found_fence.clone());
            let Some(shown) = shown else {
                return refuse(
                    Reason::NoConflict,
                    format!(
                        "environment \"{name}\" shows no conflict, so there is nothing to take over; leave take_over out"
                    ),
                );
            };
            record.take_over = Some(TakeOver::Value(shown));
        }
        record.resync += 1;
        if regression == Regression::Accept {
            record.accepted_resync = Some(record.resync);
        }
        Ok(self.changed(record))
    }

    pub(super) fn decide_rotate(
        &self,
        environment: &Environment,
        key: SdkKeySource,
        proof: Proof,
    ) -> Result<Decision, Refusal> {
        let mut record = environment.record.clone();
        if record.spec.is_file() {
            return refuse(
                Reason::NoSdkKey,
                format!(
                    "environment \"{}\" reads a file and takes no SDK key; there is nothing to rotate",
                    record.name
                ),
            );
        }
        if record.sdk_key.as_ref() == Some(&key) {
            let failed = record.failed_rotation.take().is_some();
            return Ok(match record.pending_key.take() {
                Some(_) => self.changed(record),
                // Nothing is changed, but how an earlier rotation failed is old news.
                None if failed => Decision::Put(Box::new(record)),
                None => Decision::Unchanged,
            });
        }
        record.failed_rotation = None;
        if proof == Proof::Skipped || environment.is_key_refused() {
            record.sdk_key = Some(key);
            record.pending_key = None;
            record.generation = record.generation.next();
            return Ok(self.changed(record));
        }
        if record.pending_key.as_ref() == Some(&key) {
            return Ok(Decision::Unchanged);
        }
        record.pending_key = Some(key);
        Ok(self.changed(record))
    }

    /// A user changed this record.
    fn changed(&self, mut record: EnvironmentRecord) -> Decision {
        record.change_number += 1;
        record.updated = self.now;
        Decision::Put(Box::new(record))
    }

    /// What the reply would be if the decision were carried out.
    fn foresee(&self, name: &EnvironmentName, decision: Decision) -> Reply {
        let shown = match decision {
            Decision::End => None,
            Decision::Unchanged => self.environment(name),
            Decision::Put(record) => Some(match self.environments.get(name) {
                Some(present) => self.show(&Environment { record: *record, ..present.clone() }),
                None => self.show(&Environment::new(*record, self.now)),
            }),
        };
        Reply::Environment(shown.map(Box::new))
    }

    pub(super) fn carry_out(&mut self, name: &EnvironmentName, decision: Decision, action: &'static str) {
        match decision {
            Decision::Unchanged => return,
            Decision::End => self.end(name),
            Decision::Put(record) => self.put(*record),
        }
        self.gathered.effects.push(Effect::Note(Note::Changed { environment: name.clone(), action }));
    }

    pub(super) fn decide_delete(&self, environment: &Environment, wanted: RemovalRequest) -> Decision {
        let present = environment.record.removal;
        let removal = match (wanted, present) {
            (RemovalRequest::Abandon, _) => return Decision::End,
            (RemovalRequest::Purge, _) | (RemovalRequest::Release, Some(RemovalKind::Purge)) => RemovalKind::Purge,
            (RemovalRequest::Release, Some(RemovalKind::Release) | None) => RemovalKind::Release,
        };
        if present == Some(removal) {
            return Decision::Unchanged;
        }
        let mut record = environment.record.clone();
        record.removal = Some(removal);
        record.pending_key = None;
        let candidate = Environment { record: record.clone(), ..environment.clone() };
        if candidate.wanted().is_none() {
            return Decision::End;
        }
        self.changed(record)
    }

    fn put(&mut self, record: EnvironmentRecord) {
        let name = record.name.clone();
        match self.environments.get_mut(&name) {
            None => {
                if let Some(key) = self.epoch_key(&record.spec) {
                    self.prefixes.insert(key, name.clone());
                }
                self.environments.insert(name.clone(), Environment::new(record, self.now));
            }
            Some(environment) => {
                if environment.record.generation != record.generation {
                    environment.parked.clear();
                }
                if environment.record.pending_key != record.pending_key {
                    environment.rotation =
                        if record.pending_key.is_some() { Rotation::waiting() } else { Rotation::Idle };
                }
                if record.pending_key.is_none() && environment.record.sdk_key != record.sdk_key {
                    environment.rotation = Rotation::Replaced;
                }
                environment.record = record;
            }
        }
        self.account(&name);
        self.gathered.unsaved.insert(name.clone());
        self.gathered.to_plan.insert(name.clone());
        self.tell_all(&name);
    }
}

/// Whether requests, and with them the SDK key, go elsewhere.
pub(super) fn moves_upstream(old: &EnvironmentSpec, new: &EnvironmentSpec) -> bool {
    old.stream_uri != new.stream_uri || old.base_uri != new.base_uri
}

pub(super) fn check_not_removing(environment: &Environment) -> Result<(), Refusal> {
    if environment.record.removal.is_none() {
        return Ok(());
    }
    refuse(
        Reason::EnvironmentRemoving,
        format!(
            "environment \"{}\" is being removed and takes no more changes; wait until it is gone and add it again",
            environment.record.name
        ),
    )
}

/// Whether an environment shall stream and write.
enum Pause {
    Paused,
    Running,
}

/// There is no environment of that name.
pub(crate) fn no_such_environment(name: &EnvironmentName) -> Refusal {
    let message = format!("no environment is named \"{name}\"; list those that exist");
    Refusal::new(Reason::EnvironmentNotFound, message)
}

fn check_etag(environment: &Environment, given: Option<&str>) -> Result<(), Refusal> {
    let present = environment.etag();
    match given {
        None | Some("") => Ok(()),
        Some(etag) if etag == present => Ok(()),
        Some(etag) => {
            let shown: String = etag.chars().take(80).collect();
            refuse(
                Reason::EtagMismatch,
                format!(
                    "environment \"{}\" was changed meanwhile: etag {shown:?} was given, {present:?} is present; read it again and repeat",
                    environment.record.name
                ),
            )
        }
    }
}

fn check_key(spec: &EnvironmentSpec, key: Option<&SdkKeySource>) -> Result<(), Refusal> {
    match (spec.is_file(), key) {
        (true, None) | (false, Some(_)) => Ok(()),
        (true, Some(_)) => Err(key_for_file()),
        (false, None) => {
            let violation = FieldViolation::new(
                "sdk_key",
                "required: give the SDK key of the LaunchDarkly environment; only file sources take none",
            );
            Err(violation.into())
        }
    }
}

fn key_for_file() -> Refusal {
    FieldViolation::new("sdk_key", "a file source takes no SDK key; leave it out").into()
}

fn check_immutable(old: &EnvironmentSpec, new: &EnvironmentSpec) -> Result<(), Refusal> {
    let mut violations = Vec::new();
    let mut check = |field: &str, old: &str, new: &str| {
        if old != new {
            let why = format!(
                "immutable: it is {old:?} and cannot become {new:?}; remove the environment and add it again"
            );
            violations.push(FieldViolation::new(field, &why));
        }
    };
    check("spec.prefix", old.prefix.as_str(), new.prefix.as_str());
    check("spec.store", old.store.as_str(), new.store.as_str());
    if violations.is_empty() { Ok(()) } else { Err(Refusal::fields(violations)) }
}
