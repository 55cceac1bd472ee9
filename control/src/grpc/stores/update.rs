//! Which parts of a store an update changes.

use std::collections::BTreeSet;

use flotilla_proto::store_url::{Login, TlsFiles};
use flotilla_proto::{FieldViolation, Refusal, StoreUrl, v1};

use super::Given;
use crate::fleet::StoreChange;
use crate::grpc::mask;

/// What can be changed, as the mask names it; a message's name stands for all its fields.
const MUTABLE: [&str; 11] = [
    "url",
    "login",
    "login.username",
    "login.password",
    "sentinel_login",
    "sentinel_login.username",
    "sentinel_login.password",
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
        let login = merged_login(&mask, "login", [&given.login, &url.login, &present.login]);
        let sentinels = [&given.sentinel_login, &url.sentinel_login, &present.sentinel_login];
        let sentinel_login = merged_login(&mask, "sentinel_login", sentinels);
        let files = merged_files(&mask, &given.files, url, present);
        let changed = StoreUrl::parse("url", &url.redacted())?.with_access("url", login, sentinel_login, files)?;
        let (before, after) = (present.endpoint(), changed.endpoint());
        // One that leads elsewhere is refused for that.
        if after.meets(&before) && (!after.is_within(&before) || (present.tls.is_some() && changed.tls.is_none())) {
            check_password(&mask, "login", [&url.login, &changed.login])?;
            check_password(&mask, "sentinel_login", [&url.sentinel_login, &changed.sentinel_login])?;
        }
        Ok(changed)
    })))
}

/// Whoever leads workers to another address, or does without TLS, has them show the password there: he must know it.
fn check_password(mask: &Mask, message: &str, [of_url, changed]: [&Login; 2]) -> Result<(), FieldViolation> {
    let field = format!("{message}.password");
    let is_given = mask.names(&field) || !of_url.password.is_empty();
    if is_given || changed.password.is_empty() {
        return Ok(());
    }
    let why = "required with an address that the store did not have, or without TLS where it had it: workers would show the \
               password there";
    Err(FieldViolation::new(&field, why))
}

/// What the URL holds counts as named; where it holds nothing, what is there stays.
fn merged_login(mask: &Mask, message: &str, [given, of_url, present]: [&Login; 3]) -> Login {
    let is_named = |field: &str| mask.names(&format!("{message}.{field}"));
    let username = match of_url.username.as_str() {
        _ if is_named("username") => given,
        "" => present,
        _ => of_url,
    };
    let password = match of_url.password.as_str() {
        _ if is_named("password") => given,
        "" => present,
        _ => of_url,
    };
    Login { username: username.username.clone(), password: password.password.clone() }
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
