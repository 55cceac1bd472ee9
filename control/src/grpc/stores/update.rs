//! Which parts of a store an update changes.

use std::collections::BTreeSet;

use flotilla_proto::store_url::{Login, PasswordsFrom, TlsFiles};
use flotilla_proto::{FieldViolation, Refusal, SecretReference, StoreUrl, v1};
use zeroize::Zeroizing;

use super::Given;
use crate::fleet::StoreChange;
use crate::grpc::mask;

/// What can be changed, as the mask names it; a message's name stands for all its fields.
const MUTABLE: [&str; 13] = [
    "url",
    "login",
    "login.username",
    "login.password",
    "login.password_from",
    "sentinel_login",
    "sentinel_login.username",
    "sentinel_login.password",
    "sentinel_login.password_from",
    "tls",
    "tls.ca_file",
    "tls.cert_file",
    "tls.key_file",
];

/// The paths of a mask, all of which are known.
struct Mask(BTreeSet<String>);

impl Mask {
    /// Whether a path is named, or the message that it is a part of.
    fn names(&self, path: &str) -> bool {
        let whole = path.split_once('.').map_or(path, |(message, _)| message);
        self.0.contains(path) || self.0.contains(whole)
    }
}

/// The change that a request describes. What its mask does not name stays as it is.
pub(super) fn change(request: v1::UpdateStoreRequest) -> Result<StoreChange, Refusal> {
    let v1::UpdateStoreRequest { url, login, sentinel_login, tls, update_mask, .. } = request;
    let mask = Mask(mask::paths(update_mask, &MUTABLE, |_| None)?.into_iter().collect());
    let given = Given::new(url, login, sentinel_login, tls)?;
    let url = if mask.names("url") { Some(StoreUrl::parse("url", &given.url)?) } else { None };
    Ok(StoreChange(Box::new(move |present: &StoreUrl| {
        let url = url.as_ref().unwrap_or(present);
        let of = |login, from| Access { login, from };
        let redis = [
            of(&given.login, given.passwords_from.redis.as_ref()),
            of(&url.login, url.passwords_from.redis.as_ref()),
            of(&present.login, present.passwords_from.redis.as_ref()),
        ];
        let sentinel = [
            of(&given.sentinel_login, given.passwords_from.sentinel.as_ref()),
            of(&url.sentinel_login, url.passwords_from.sentinel.as_ref()),
            of(&present.sentinel_login, present.passwords_from.sentinel.as_ref()),
        ];
        let (login, from) = merged_login(&mask, "login", redis);
        let (sentinel_login, sentinel_from) = merged_login(&mask, "sentinel_login", sentinel);
        let files = merged_files(&mask, &given.files, url, present);
        let changed = StoreUrl::parse("url", &url.redacted())?
            .with_access("url", login, sentinel_login, files)?
            .with_passwords_from("url", PasswordsFrom { redis: from, sentinel: sentinel_from })?;
        let (before, after) = (present.endpoint(), changed.endpoint());
        // One that leads elsewhere is refused for that.
        if after.meets(&before) && (!after.is_within(&before) || (present.tls.is_some() && changed.tls.is_none())) {
            let PasswordsFrom { redis: from, sentinel: sentinel_from } = &changed.passwords_from;
            let [given, of_url, _] = redis;
            check_password(&mask, "login", [given, of_url], of(&changed.login, from.as_ref()))?;
            let [given, of_url, _] = sentinel;
            let changed = of(&changed.sentinel_login, sentinel_from.as_ref());
            check_password(&mask, "sentinel_login", [given, of_url], changed)?;
        }
        Ok(changed)
    })))
}

/// A login, and where workers find its password if it does not hold it.
#[derive(Clone, Copy)]
struct Access<'a> {
    login: &'a Login,
    from: Option<&'a SecretReference>,
}

impl Access<'_> {
    fn has_password(self) -> bool {
        self.from.is_some() || !self.login.password.is_empty()
    }
}

/// Whoever leads workers to another address, or does without TLS, has them show the password there: he must know it, or where
/// it is.
fn check_password(
    mask: &Mask,
    message: &str,
    [given, of_url]: [Access<'_>; 2],
    changed: Access<'_>,
) -> Result<(), FieldViolation> {
    let names = |field: &str| mask.names(&format!("{message}.{field}"));
    let is_given = of_url.has_password()
        || (names("password") && !given.login.password.is_empty())
        || (names("password_from") && given.from.is_some());
    if is_given || !changed.has_password() {
        return Ok(());
    }
    let why = "required with an address that the store did not have, or without TLS where it had it: workers would show the \
               password there";
    Err(FieldViolation::new(&format!("{message}.password"), why))
}

/// What the URL holds counts as named; where it holds nothing, what is there stays. A password takes the place of a reference
/// to one, and the other way round.
fn merged_login(
    mask: &Mask,
    message: &str,
    [given, of_url, present]: [Access<'_>; 3],
) -> (Login, Option<SecretReference>) {
    let is_named = |field: &str| mask.names(&format!("{message}.{field}"));
    let username = match of_url.login.username.as_str() {
        _ if is_named("username") => given,
        "" => present,
        _ => of_url,
    };
    let there = if of_url.has_password() { of_url } else { present };
    let password = match (is_named("password"), is_named("password_from")) {
        (true, _) => given.login.password.clone(),
        (false, true) if given.from.is_some() => Zeroizing::default(),
        (false, _) => there.login.password.clone(),
    };
    let from = match (is_named("password"), is_named("password_from")) {
        (_, true) => given.from,
        (true, false) if !password.is_empty() => None,
        (_, false) => there.from,
    };
    (Login { username: username.login.username.clone(), password }, from.cloned())
}

/// With a scheme that has no TLS there are no files but those that the mask names, which are refused then.
fn merged_files(mask: &Mask, given: &TlsFiles, url: &StoreUrl, present: &StoreUrl) -> TlsFiles {
    let of_url = url.tls.clone().unwrap_or_default();
    let present = present.tls.clone().filter(|_| url.tls.is_some()).unwrap_or_default();
    let merged = |path, given: &Option<String>, of_url: Option<String>, present| {
        if mask.names(path) { given.clone() } else { of_url.or(present) }
    };
    TlsFiles {
        ca: merged("tls.ca_file", &given.ca, of_url.ca, present.ca),
        cert: merged("tls.cert_file", &given.cert, of_url.cert, present.cert),
        key: merged("tls.key_file", &given.key, of_url.key, present.key),
    }
}

#[cfg(test)]
mod tests;
