//! Parts of a store's URL, read. What is wrong is told without what may be a secret.

use url::Url;
use url::form_urlencoded::parse;
use zeroize::Zeroizing;

use super::{Address, EXPECTED};
use crate::secret_reference::{InvalidReference, SecretReference};

/// The names of what may stand in a URL's query.
const QUERY: [&str; 10] = [
    "db",
    "user",
    "pass",
    "password-from",
    "sentinel-username",
    "sentinel-password",
    "sentinel-password-from",
    "tls-ca",
    "tls-cert",
    "tls-key",
];

/// A list of hosts, each with a port or the default one.
pub(super) fn addresses(hosts: &str, default_port: u16) -> Result<Vec<Address>, String> {
    let address = |text: &str| {
        // What may be part of a password is not repeated.
        let url = Url::parse(&format!("redis://{text}"))
            .map_err(|error| format!("not a valid store URL: {error}; {EXPECTED}"))?;
        let host = url.host_str().filter(|host| !host.is_empty());
        let host = host.ok_or_else(|| format!("the store URL has no host; {EXPECTED}"))?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        Ok(Address { host, port: url.port().unwrap_or(default_port) })
    };
    hosts.split(',').map(address).collect()
}

/// What a URL's query says.
pub(super) struct Query(Vec<(String, Zeroizing<String>)>);

impl Query {
    pub(super) fn read(text: &str) -> Result<Self, String> {
        let pairs: Vec<_> = parse(text.as_bytes())
            .map(|(name, value)| (name.into_owned(), Zeroizing::new(value.into_owned())))
            .collect();
        // The value that follows may be a secret, and so may the name of one that lacks its "=".
        if pairs.iter().any(|(name, _)| !QUERY.contains(&name.as_str())) {
            return Err(format!("its query holds another name than {}", QUERY.join(", ")));
        }
        Ok(Self(pairs))
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(found, _)| found == name);
        found.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }

    /// Where a secret is that is not here.
    pub(super) fn reference(&self, name: &str) -> Result<Option<SecretReference>, String> {
        let reference =
            self.get(name).map(|text| text.parse().map_err(|error: InvalidReference| format!("{name}: {error}")));
        reference.transpose()
    }
}

/// Decoding is the query's: there a plus means a blank, and "&" and "=" divide.
pub(super) fn percent_decoded(text: &str) -> String {
    let text = Zeroizing::new(text.replace('+', "%2B").replace('&', "%26").replace('=', "%3D"));
    parse(text.as_bytes()).next().map(|(name, _)| name.into_owned()).unwrap_or_default()
}
