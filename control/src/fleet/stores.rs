//! Stores: which there are, and which are the same place under two names.

// What may change of one that is in use.
mod update;

use std::collections::BTreeMap;

use flotilla_proto::store_url::{Login, StoreEndpoint, StorePlace, TlsFiles};
use flotilla_proto::{EnvironmentName, FieldViolation, Reason, Refusal, StoreName, StoreUrl, v1};

use super::boundary::{Change, CommandId, Effect, Reply, StoreAction, StoreCommand, Subject};
use super::event::Note;
use super::{Answer, Fleet, Store, refuse, request};

/// How many environments are named at most.
const NAMED: usize = 10;

/// What a command comes to.
enum Decision {
    /// Everything is so already.
    Unchanged,
    /// The store is there from now on.
    Add(Box<StoreUrl>),
    /// The same place is reached in another way from now on.
    Change(Box<StoreUrl>),
    /// The store is no more.
    Remove,
}

impl Fleet {
    /// Carries a store's command out, or says why not.
    pub(super) fn decide_store(&mut self, id: CommandId, command: StoreCommand) {
        let StoreCommand { store, action, request, validate_only } = command;
        match self.replayed(request.as_ref()) {
            Ok(None) => {}
            // A request of that digest was about a store.
            Ok(Some(Subject::Store(answered))) => return self.reply_store(id, answered),
            Ok(Some(Subject::Environment(answered))) => return self.reply_present(id, answered),
            Ok(Some(Subject::Batch)) => return self.reply_store(id, store),
            Err(refusal) => return self.reply(id, Err(refusal)),
        }
        if !validate_only && request.is_some() && self.requests.is_full() {
            return self.reply(id, refuse(Reason::TooManyRequestIds, request::FULL));
        }
        let decision = match self.decide_store_action(&store, action) {
            Ok(decision) => decision,
            Err(refusal) => return self.reply(id, Err(refusal)),
        };
        if validate_only {
            let shown = match &decision {
                Decision::Unchanged => self.store(&store),
                Decision::Add(url) | Decision::Change(url) => Some(self.show_store(&store, url)),
                Decision::Remove => None,
            };
            return self.reply(id, Ok(Reply::Store(shown.map(Box::new))));
        }
        if let Some(request) = request {
            let subject = Subject::Store(store.clone());
            self.requests.answered(self.now, request.clone(), subject.clone());
            self.gathered.changes.push(Change::PutRequest { request, subject, at: self.now });
        }
        self.carry_store_out(&store, decision);
        self.reply_store(id, store);
    }

    /// Adds a store, unless it is there already. One that is there and differs is left as it is.
    pub(super) fn add_store_if_missing(
        &mut self,
        name: &StoreName,
        url: Box<StoreUrl>,
    ) -> Result<v1::ApplyOutcome, Refusal> {
        let Some(present) = self.stores.get(name).map(|store| &store.url) else {
            let decision = self.decide_store_action(name, StoreAction::Create(url))?;
            self.carry_store_out(name, decision);
            return Ok(v1::ApplyOutcome::Created);
        };
        if is_alike(&url, present) {
            return Ok(v1::ApplyOutcome::Unchanged);
        }
        let (given, present) = (url.redacted(), present.redacted());
        let difference = if given == present {
            format!("is reached with another login, or other TLS files, at {present}")
        } else {
            format!("is {present}, not {given}")
        };
        let way_out = if *name == StoreName::default_store() {
            "it is that of control's --redis-url".to_owned()
        } else {
            format!("see `flotilla store update {name}`")
        };
        let why = format!("store \"{name}\" exists and {difference}; {way_out}");
        Err(Refusal { reason: Reason::StoreNameTaken, ..FieldViolation::new("url", &why).into() })
    }

    fn carry_store_out(&mut self, store: &StoreName, decision: Decision) {
        let action = match decision {
            Decision::Unchanged => return,
            Decision::Add(url) => {
                self.put_store(store.clone(), (*url).clone());
                self.gathered.changes.push(Change::PutStore { store: store.clone(), url });
                "added"
            }
            Decision::Change(url) => {
                self.gathered.changes.push(Change::PutStore { store: store.clone(), url: url.clone() });
                self.change_store(store, *url);
                "changed"
            }
            Decision::Remove => {
                if let Some(gone) = self.stores.remove(store) {
                    let endpoint = gone.endpoint;
                    self.gathered.changes.push(Change::DeleteStore { store: store.clone(), endpoint });
                }
                "removed"
            }
        };
        self.gathered.effects.push(Effect::Note(Note::StoreChanged { store: store.clone(), action }));
    }

    fn decide_store_action(&self, name: &StoreName, action: StoreAction) -> Result<Decision, Refusal> {
        match (action, self.stores.get(name)) {
            (StoreAction::Create(url), None) => {
                self.check_is_one_place(&url.endpoint())?;
                Ok(Decision::Add(url))
            }
            (StoreAction::Create(_), Some(_)) => refuse(
                Reason::StoreNameTaken,
                format!("a store named \"{name}\" exists; choose another name, or remove that one first"),
            ),
            (StoreAction::Update(_) | StoreAction::Delete, None) => Err(self.no_such_store(name)),
            (StoreAction::Update(change), Some(present)) => self.decide_store_change(name, present, change),
            (StoreAction::Delete, Some(_)) if *name == StoreName::default_store() => {
                let why = "the store \"default\" is that of control's --redis-url and cannot be removed";
                Err(FieldViolation::new("name", why).into())
            }
            (StoreAction::Delete, Some(_)) => {
                self.check_unused(name)?;
                Ok(Decision::Remove)
            }
        }
    }

    /// Environments of two places are told apart by their place, and may have one prefix: then it must not turn out to be
    /// one place.
    fn check_is_one_place(&self, endpoint: &StoreEndpoint) -> Result<(), Refusal> {
        let met = self.stores.iter().filter(|(_, store)| store.url.endpoint().meets(endpoint));
        let met: BTreeMap<_, _> = met.map(|(name, store)| (&store.endpoint, format!("\"{name}\""))).collect();
        if met.len() < 2 {
            return Ok(());
        }
        let names = met.into_values().collect::<Vec<_>>().join(" and ");
        let why = format!(
            "it leads to the places of stores {names}, which were given as different ones; remove one of them first"
        );
        Err(FieldViolation::new("url", &why).into())
    }

    fn check_unused(&self, name: &StoreName) -> Result<(), Refusal> {
        let users: Vec<_> = self.users_of(name).collect();
        if users.is_empty() {
            return Ok(());
        }
        let users = some_of(&users);
        refuse(Reason::StoreInUse, format!("store \"{name}\" is used by {users}; remove the environments first"))
    }

    pub(super) fn users_of(&self, store: &StoreName) -> impl Iterator<Item = &EnvironmentName> {
        let uses = move |environment: &&super::Environment| environment.record.spec.store == *store;
        self.environments.values().filter(uses).map(|environment| &environment.record.name)
    }

    /// There is no store of that name.
    pub(super) fn no_such_store(&self, name: &StoreName) -> Refusal {
        let known: Vec<_> = self.stores.keys().map(|store| format!("\"{store}\"")).collect();
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        Refusal::new(Reason::StoreNotFound, format!("no store is named \"{name}\"; known stores: {known}"))
    }

    /// A store is there from now on.
    pub(super) fn put_store(&mut self, name: StoreName, url: StoreUrl) {
        let endpoint = self.place(url.endpoint());
        self.stores.insert(name, Store { url, endpoint });
    }

    /// The endpoint under which that place is known: addresses of one place may be given in several ways.
    pub(super) fn place(&self, endpoint: StoreEndpoint) -> StoreEndpoint {
        let of_stores = self.stores.values().find(|store| store.url.endpoint().meets(&endpoint));
        let known = of_stores.map(|store| &store.endpoint);
        let known =
            known.or_else(|| self.epochs.keys().map(|(known, _)| known).find(|known| known.meets(&endpoint)));
        known.cloned().unwrap_or(endpoint)
    }

    /// The store as a message.
    pub(crate) fn store(&self, name: &StoreName) -> Option<v1::Store> {
        Some(self.show_store(name, &self.stores.get(name)?.url))
    }

    /// The store as a message, or that there is none.
    pub(crate) fn existing_store(&self, name: &StoreName) -> Result<v1::Store, Refusal> {
        self.store(name).ok_or_else(|| self.no_such_store(name))
    }

    /// The stores whose names come after that one.
    pub(crate) fn stores_after(&self, after: Option<&StoreName>) -> impl Iterator<Item = v1::Store> {
        let later = self.stores.iter().filter(move |(name, _)| after.is_none_or(|after| *name > after));
        later.map(|(name, store)| self.show_store(name, &store.url))
    }

    fn show_store(&self, name: &StoreName, url: &StoreUrl) -> v1::Store {
        let topology = match &url.place {
            StorePlace::Server(_) => v1::StoreTopology::Server,
            StorePlace::Socket(_) => v1::StoreTopology::Socket,
            StorePlace::Sentinel { .. } => v1::StoreTopology::Sentinel,
            StorePlace::Cluster(_) => v1::StoreTopology::Cluster,
        };
        let tls = url.tls.clone().map(|TlsFiles { ca, cert, key }| v1::StoreTls {
            ca_file: ca.unwrap_or_default(),
            cert_file: cert.unwrap_or_default(),
            key_file: key.unwrap_or_default(),
        });
        let from = &url.passwords_from;
        v1::Store {
            name: name.to_string(),
            url: url.redacted(),
            topology: topology.into(),
            username: url.login.username.clone(),
            has_password: !url.login.password.is_empty() || from.redis.is_some(),
            sentinel_username: url.sentinel_login.username.clone(),
            has_sentinel_password: !url.sentinel_login.password.is_empty() || from.sentinel.is_some(),
            tls,
            environments: self.users_of(name).count() as u64,
            password_from: from.redis.as_ref().map(ToString::to_string).unwrap_or_default(),
            sentinel_password_from: from.sentinel.as_ref().map(ToString::to_string).unwrap_or_default(),
        }
    }

    /// The reply about a store: as it is at the end of the step.
    pub(super) fn reply_store(&mut self, id: CommandId, store: StoreName) {
        self.gathered.replies.push((id, Answer::Store(store)));
    }
}

/// The first of them by name, and how many more there are.
pub(super) fn some_of(environments: &[&EnvironmentName]) -> String {
    let mut names: Vec<_> = environments.iter().take(NAMED).map(|name| format!("\"{name}\"")).collect();
    if environments.len() > NAMED {
        names.push(format!("{} more", environments.len() - NAMED));
    }
    names.join(", ")
}

/// Whether a store is what is asked for. A password that is not given is not compared.
fn is_alike(given: &StoreUrl, present: &StoreUrl) -> bool {
    let logins = [(&given.login, &present.login), (&given.sentinel_login, &present.sentinel_login)];
    let is_same = |(given, present): (&Login, &Login)| {
        given.username == present.username && (given.password.is_empty() || given.password == present.password)
    };
    let references = [
        (&given.passwords_from.redis, &present.passwords_from.redis),
        (&given.passwords_from.sentinel, &present.passwords_from.sentinel),
    ];
    let is_there = given.place == present.place && given.database == present.database && given.tls == present.tls;
    is_there
        && logins.into_iter().all(is_same)
        && references.into_iter().all(|(given, present)| given.is_none() || given == present)
}
