//! A relay's configuration as a manifest.

use std::collections::{BTreeMap, BTreeSet};

use flotilla_proto::StoreName;
use flotilla_proto::manifest::{Document, EnvironmentDocument, SecretSource, StoreDocument};

use super::{Hidden, RelayConfiguration, RelayEnvironment, Secret};

/// In characters, as the API has it.
const LONGEST_DISPLAY_NAME: usize = 256;

/// Which store the environments go to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum StoreChoice {
    /// One that is there.
    Present(StoreName),
    /// One that is declared.
    New(StoreName),
}

/// Where the manifest says that secrets are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SecretPlace {
    /// In variables: those of the relay, or made-up ones where it has none.
    Variables,
    /// In files of this directory.
    Files(String),
}

/// A manifest, and the secrets that it refers to.
#[derive(Debug)]
pub(crate) struct Declared {
    /// What is printed.
    pub(crate) document: Document,
    /// Where each secret is said to be, and the secret.
    secrets: BTreeMap<SecretSource, Hidden>,
    /// The variables that were made up.
    pub(crate) made_up: BTreeSet<String>,
}

impl RelayConfiguration {
    /// The equivalent manifest.
    pub(crate) fn declared(&self, store: &StoreChoice, secrets: &SecretPlace) -> Declared {
        let mut places = Places { chosen: secrets, secrets: BTreeMap::new(), made_up: BTreeSet::new() };
        let (name, stores) = match store {
            StoreChoice::Present(name) => (name, Vec::new()),
            StoreChoice::New(name) => (name, vec![self.store(name, &mut places)]),
        };
        let environments = self.environments.iter();
        let environments =
            environments.map(|environment| self.environment(environment, name, &mut places)).collect();
        let Places { secrets, made_up, .. } = places;
        Declared { document: Document { stores, environments }, secrets, made_up }
    }

    fn store(&self, name: &StoreName, places: &mut Places<'_>) -> StoreDocument {
        let given = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        let tls = self.redis.tls.clone().unwrap_or_default();
        StoreDocument {
            name: name.to_string(),
            url: self.redis.redacted(),
            username: given(&self.redis.login.username),
            password: self.password.as_ref().map(|password| places.of(password)),
            sentinel_username: None,
            sentinel_password: None,
            tls_ca: tls.ca,
            tls_cert: tls.cert,
            tls_key: tls.key,
        }
    }

    fn environment(
        &self,
        environment: &RelayEnvironment,
        store: &StoreName,
        places: &mut Places<'_>,
    ) -> EnvironmentDocument {
        let RelayEnvironment { name, original, prefix, filter, sdk_key } = environment;
        EnvironmentDocument {
            name: name.to_string(),
            display_name: (original != name.as_str()).then(|| display_name(original)),
            prefix: prefix.to_string(),
            sdk_key: Some(places.of(sdk_key)),
            store: (*store != StoreName::default_store()).then(|| store.to_string()),
            filter: filter.clone(),
            stream_uri: self.stream_uri.clone(),
            base_uri: self.base_uri.clone(),
            ..EnvironmentDocument::default()
        }
    }
}

/// The relay's name, as far as it can be one here. It is only for people, so nothing is refused for it.
fn display_name(original: &str) -> String {
    original.chars().filter(|character| !character.is_control()).take(LONGEST_DISPLAY_NAME).collect()
}

impl Declared {
    /// The secret that is said to be there.
    pub(crate) fn secret(&self, source: &SecretSource) -> Option<&str> {
        self.secrets.get(source).map(Hidden::text)
    }

    /// Where each secret is said to be, and the secret.
    pub(crate) fn secrets(&self) -> impl Iterator<Item = (&SecretSource, &str)> {
        self.secrets.iter().map(|(source, text)| (source, text.text()))
    }
}

/// Where secrets are.
struct Places<'a> {
    chosen: &'a SecretPlace,
    secrets: BTreeMap<SecretSource, Hidden>,
    made_up: BTreeSet<String>,
}

impl Places<'_> {
    /// Where this one is; the same for one that was asked for before.
    fn of(&mut self, secret: &Secret) -> SecretSource {
        let source = match (self.chosen, &secret.variable) {
            (SecretPlace::Variables, Some(variable)) => SecretSource::Env(variable.clone()),
            (SecretPlace::Variables | SecretPlace::Files(_), _) => self.free(secret),
        };
        if let (SecretSource::Env(name), None) = (&source, &secret.variable) {
            self.made_up.insert(name.clone());
        }
        self.secrets.insert(source.clone(), secret.text.clone());
        source
    }

    /// A place where nothing else is said to be.
    fn free(&self, Secret { name, made_up, text, .. }: &Secret) -> SecretSource {
        let proposed = |number: &str| match self.chosen {
            SecretPlace::Files(directory) => {
                SecretSource::File(format!("{}/{name}{number}", directory.trim_end_matches('/')))
            }
            SecretPlace::Variables => {
                let allowed = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
                SecretSource::Env(format!("{made_up}{number}").chars().map(allowed).collect())
            }
        };
        let numbers = std::iter::once(String::new()).chain((2_u32..).map(|number| format!("-{number}")));
        let mut places = numbers.map(|number| proposed(&number));
        let is_free = |place: &SecretSource| self.secrets.get(place).is_none_or(|other| other == text);
        places.find(is_free).expect("there are more numbers than secrets")
    }
}
