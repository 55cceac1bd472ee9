//! The format, as it is written. The descriptions are those of the published schema.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::secret::SecretSource;
use crate::names::StoreName;
use crate::v1;

/// One document of a manifest. A file may hold several.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(title = "Flotilla environments"))]
pub struct Document {
    /// Stores that shall be there. One that is missing is added; one that is there and differs is an error.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stores: Vec<StoreDocument>,
    /// What environments shall be. What is not given goes back to its default.
    #[serde(default)]
    pub environments: Vec<EnvironmentDocument>,
}

/// A Redis database that environments are kept in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct StoreDocument {
    /// Its name: letters a-z, digits, '.', '_' and '-'.
    pub name: String,
    /// redis://HOST[:PORT][/DB], redis+unix:///PATH, redis+sentinel://HOST,HOST/MASTER or redis+cluster://HOST,HOST;
    /// rediss for TLS. As the workers reach it, and without a password.
    pub url: String,
    /// ACL user of the workers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// Where the password is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<SecretSource>,
    /// User of the workers towards the Sentinels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sentinel_username: Option<String>,
    /// Where the password of the Sentinels is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sentinel_password: Option<SecretSource>,
    /// File on the workers with the certificates to trust.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_ca: Option<String>,
    /// File on the workers with the certificate that they show.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_cert: Option<String>,
    /// File on the workers with its key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_key: Option<String>,
}

/// A LaunchDarkly environment that is kept in a store.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct EnvironmentDocument {
    /// Its name, which never changes: letters a-z, digits, '.', '_' and '-', up to 63 characters.
    #[cfg_attr(test, schemars(regex(pattern = r"^[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?$")))]
    pub name: String,
    /// Free text for people, up to 256 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    /// What its keys in the store begin with, which never changes.
    #[cfg_attr(test, schemars(length(min = 1, max = 256)))]
    pub prefix: String,
    /// Where the SDK key is. Without it the key that control has stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sdk_key: Option<SecretSource>,
    /// Name of the store, which never changes. Default: default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store: Option<String>,
    /// Where the data comes from: stream, poll or file:PATH, relative to the workers' --file-source-dir. Default: stream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(regex(pattern = r"^(stream|poll|file:.+)$")))]
    pub source: Option<String>,
    /// Delay before the first reconnect of a stream: 100ms to 30s. Default: 1s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initial_retry_delay: Option<String>,
    /// Time between polls: 30s to 24h; shorter only with a loopback baseUri. Default: 30s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub poll_interval: Option<String>,
    /// Key of a LaunchDarkly payload filter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter: Option<String>,
    /// Base of LaunchDarkly's streaming service. Changing it needs the SDK key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream_uri: Option<String>,
    /// Base of LaunchDarkly's polling service. Changing it needs the SDK key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_uri: Option<String>,
    /// Sent to LaunchDarkly as application-id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub application_id: Option<String>,
    /// Sent to LaunchDarkly as application-version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub application_version: Option<String>,
    /// Labels. With --prune, what carries the same managed-by and is not in the files is removed.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Only workers with all of these labels serve it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub worker_selector: BTreeMap<String, String>,
    /// What a payload meets that would remove more than half of the items. Default: confirm.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guard: Option<GuardWord>,
}

/// What a payload meets that would remove more than half of the items.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub enum GuardWord {
    /// It is held back until a second one says the same.
    Confirm,
    /// It is applied at once.
    Off,
}

impl StoreDocument {
    /// The part of a request that is about it.
    pub(super) fn entry(
        &self,
        name: &StoreName,
        login: v1::StoreLogin,
        sentinel_login: v1::StoreLogin,
    ) -> v1::StoreEntry {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        v1::StoreEntry {
            name: name.to_string(),
            url: self.url.clone(),
            login: Some(login),
            sentinel_login: Some(sentinel_login),
            tls: Some(v1::StoreTls {
                ca_file: text(&self.tls_ca),
                cert_file: text(&self.tls_cert),
                key_file: text(&self.tls_key),
            }),
        }
    }
}
