//! Secrets in rows: each is bound to what it is the secret of.

use std::borrow::Cow;

use flotilla_proto::process::{SealCondition, Sealing};
use flotilla_proto::{EnvironmentSpec, StoreName, Uid};
use url::Url;
use zeroize::Zeroizing;

use super::rows::corrupt;
use crate::store::StoreError;

/// What a key of an environment, in this column, is bound to: the addresses too, for whoever could change those in the
/// database would have the key sent to them.
pub(super) fn place_of_key(uid: &Uid, spec: &EnvironmentSpec, column: &str) -> String {
    let shown = |uri: &Option<Url>| uri.as_ref().map_or("the fleet's own", Url::as_str).to_owned();
    let (stream, base) = (shown(&spec.stream_uri), shown(&spec.base_uri));
    format!("{column} of the environment with uid {uid}, for stream URI {stream} and base URI {base}")
}

/// What the URL of a store is bound to.
pub(super) fn place_of_store(store: &StoreName) -> String {
    format!("the URL of store {store}")
}

/// What the digest of a request is bound to.
pub(super) fn place_of_digest(request: &str) -> String {
    format!("the digest of request {request}")
}

/// As it is written.
pub(super) fn seal<'a>(sealing: &Sealing, place: &str, secret: &'a str) -> Cow<'a, str> {
    match sealing.seal(place, secret.as_bytes()) {
        Cow::Borrowed(_) => Cow::Borrowed(secret),
        Cow::Owned(sealed) => Cow::Owned(String::from_utf8(sealed).expect("text is sealed as text")),
    }
}

/// Opens what is sealed, and notes whether all of it was sealed as it would be now.
pub(super) struct Opener<'a> {
    sealing: &'a Sealing,
    condition: SealCondition,
}

impl<'a> Opener<'a> {
    pub(super) fn new(sealing: &'a Sealing) -> Self {
        Self { sealing, condition: SealCondition::Current }
    }

    /// Outdated as soon as one of them is.
    pub(super) fn condition(&self) -> SealCondition {
        self.condition
    }

    pub(super) fn open(&mut self, place: &str, stored: &str) -> Result<Zeroizing<String>, StoreError> {
        let opened = self.sealing.open(place, stored.as_bytes())?;
        if opened.condition == SealCondition::Outdated {
            self.condition = SealCondition::Outdated;
        }
        let text = std::str::from_utf8(&opened.content.0).map_err(|error| corrupt(place, &error))?;
        Ok(Zeroizing::new(text.to_owned()))
    }
}
