//! update.

use std::io;

use flotilla_proto::v1::UpdateStoreRequest;
use prost_types::FieldMask;

use super::password::Passwords;
use super::{access_messages, in_answer, password, tell, warn_of_password};
use crate::arguments::UpdateStore;
use crate::failure::Failure;
use crate::session::Session;

/// Changes how a store is reached.
pub(super) async fn update(session: &mut Session, options: &UpdateStore) -> Result<(), Failure> {
    let passwords = password::read(&options.secrets, io::stdin())?;
    let paths = changed(options, &passwords)?;
    let url = options.url.clone().unwrap_or_default();
    warn_of_password(session, &url);
    let (login, sentinel_login, tls) = access_messages(&options.access, passwords);
    let request = session.client.request(UpdateStoreRequest {
        name: options.name.to_string(),
        url,
        login: Some(login),
        sentinel_login: Some(sentinel_login),
        tls: Some(tls),
        update_mask: Some(FieldMask { paths }),
        request_id: String::new(),
        validate_only: options.dry_run,
    });
    let answer = session.client.stores().update_store(request).await;
    let store = in_answer(session.client.answer(answer)?.store)?;
    tell(session, &store, if options.dry_run { "updated (dry run)" } else { "updated" })
}

/// The names of the fields that change.
fn changed(options: &UpdateStore, passwords: &Passwords) -> Result<Vec<String>, Failure> {
    let UpdateStore { url, access, .. } = options;
    let fields = [
        ("url", url.is_some()),
        ("login.username", access.username.is_some()),
        ("login.password", !passwords.redis.text.is_empty()),
        ("login.password_from", !passwords.redis.from.is_empty()),
        ("sentinel_login.username", access.sentinel_username.is_some()),
        ("sentinel_login.password", !passwords.sentinel.text.is_empty()),
        ("sentinel_login.password_from", !passwords.sentinel.from.is_empty()),
        ("tls.ca_file", access.tls_ca.is_some()),
        ("tls.cert_file", access.tls_cert.is_some()),
        ("tls.key_file", access.tls_key.is_some()),
    ];
    let paths: Vec<_> = fields.iter().filter(|(_, given)| *given).map(|(path, _)| (*path).to_owned()).collect();
    if paths.is_empty() {
        return Err(Failure::usage(
            "nothing to change: give --url, --username, --sentinel-username, --tls-ca, --tls-cert, --tls-key, or a password \
             with --password-file, --password-env, --password-stdin, --password-from, --sentinel-password-file, \
             --sentinel-password-env or --sentinel-password-from",
        ));
    }
    Ok(paths)
}
