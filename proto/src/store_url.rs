//! Where a store is, and how one gets in: a URL that holds all of it, secrets or references to them included.
//!
//! `SCHEME://[USER:PASSWORD@]ADDRESS[,ADDRESS…][/…][?NAME=VALUE&…]`, with schemes `redis`, `rediss`, `redis+unix`,
//! `redis+sentinel`, `rediss+sentinel`, `redis+cluster` and `rediss+cluster`; an `s` means TLS.

// Its parts, read.
mod parts;

use std::collections::BTreeSet;
use std::fmt;

use url::form_urlencoded::Serializer;
use zeroize::Zeroizing;

use self::parts::{Query, addresses, percent_decoded};
use crate::names::Prefix;
use crate::secret_reference::SecretReference;
use crate::spec::FieldViolation;

/// What is said of a URL that makes no sense.
const EXPECTED: &str = "expected redis://HOST[:PORT][/DB], redis+unix:///PATH[?db=DB], \
    redis+sentinel://HOST[:PORT],…/MASTER[/DB] or redis+cluster://HOST[:PORT],…";

/// The URL of a store. It may hold passwords, and shows them to nobody but a client.
#[derive(Clone, PartialEq, Eq)]
pub struct StoreUrl {
    /// Where it is.
    pub place: StorePlace,
    /// Which database of it.
    pub database: u16,
    /// Who the workers are, towards Redis.
    pub login: Login,
    /// Who they are towards the Sentinels, which have logins of their own.
    pub sentinel_login: Login,
    /// Where workers find passwords that are not in the logins.
    pub passwords_from: PasswordsFrom,
    /// Encryption; `None`: there is none.
    pub tls: Option<TlsFiles>,
    /// All of it as text.
    text: Zeroizing<String>,
}

/// Where a store is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StorePlace {
    /// One server.
    Server(Address),
    /// A Unix socket of the worker's machine.
    Socket(String),
    /// The master of that name, found by asking Sentinels.
    Sentinel {
        /// Whom to ask.
        sentinels: Vec<Address>,
        /// The master's name there.
        master: String,
    },
    /// A cluster, found by asking any of these nodes.
    Cluster(Vec<Address>),
}

/// Host and port.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    /// A name or an IP address, without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

/// A user and a password, both of which may be missing. The password is wiped from memory when dropped.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Login {
    /// The ACL user; empty: Redis's default one.
    pub username: String,
    /// The password; empty: none.
    pub password: Zeroizing<String>,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login").field("username", &self.username).finish_non_exhaustive()
    }
}

/// Where workers find passwords, read whenever a connection is made. A password is either in the login or here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PasswordsFrom {
    /// That towards Redis.
    pub redis: Option<SecretReference>,
    /// That towards the Sentinels.
    pub sentinel: Option<SecretReference>,
}

/// Paths of PEM files on the workers, read whenever a connection is made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// Certificates to trust; `None`: those of the system.
    pub ca: Option<String>,
    /// The certificate that the workers show; `None`: none.
    pub cert: Option<String>,
    /// Its key.
    pub key: Option<String>,
}

/// The place and database that a store URL means, however it is written.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StoreEndpoint {
    /// The Sentinel master's name; empty for other places.
    master: String,
    /// Addresses, any of which leads there.
    addresses: BTreeSet<String>,
    database: String,
}

impl fmt::Display for StoreEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let addresses: Vec<_> = self.addresses.iter().map(String::as_str).collect();
        let at = if self.master.is_empty() { "" } else { "@" };
        write!(f, "{}{at}{}/{}", self.master, addresses.join(","), self.database)
    }
}

impl StoreEndpoint {
    /// Reads what `Display` writes.
    pub fn parse(text: &str) -> Option<Self> {
        let (place, database) = text.rsplit_once('/')?;
        let (master, addresses) = place.split_once('@').unwrap_or(("", place));
        let addresses = addresses.split(',').map(ToOwned::to_owned).collect();
        Some(Self { master: master.to_owned(), addresses, database: database.to_owned() })
    }

    /// Whether all its addresses are among those of the other.
    pub fn is_within(&self, other: &Self) -> bool {
        self.addresses.is_subset(&other.addresses)
    }

    /// Whether both are the same store, as far as addresses tell: they have one in common.
    pub fn meets(&self, other: &Self) -> bool {
        self.master == other.master
            && self.database == other.database
            && !self.addresses.is_disjoint(&other.addresses)
    }
}

impl StoreUrl {
    /// Takes URLs of the schemes that the module names. A violation never shows what may be a secret.
    pub fn parse(field: &'static str, text: &str) -> Result<Self, FieldViolation> {
        Self::read(text).map_err(|why| FieldViolation::new(field, &why))
    }

    fn read(text: &str) -> Result<Self, String> {
        let (scheme, rest) =
            text.split_once("://").ok_or_else(|| format!("not a valid store URL: it has no scheme; {EXPECTED}"))?;
        if rest.contains('#') {
            return Err("it holds a \"#\"; in a login that is written %23".to_owned());
        }
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let query = Query::read(query)?;
        let (authority, path) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, ""),
        };
        let (user, hosts) = authority.rsplit_once('@').unwrap_or(("", authority));
        let (kind, is_encrypted) = match scheme.strip_prefix("rediss") {
            Some(kind) => (kind, true),
            None => (scheme.strip_prefix("redis").unwrap_or(scheme), false),
        };
        let segments: Vec<&str> = path.split('/').skip(1).filter(|part| !part.is_empty()).collect();
        let (place, database) = match (kind, is_encrypted, segments.as_slice()) {
            ("", _, [] | [_]) => {
                let mut addresses = addresses(hosts, 6379)?;
                if addresses.len() > 1 {
                    return Err(format!("it names more than one host; {EXPECTED}"));
                }
                (StorePlace::Server(addresses.remove(0)), segments.first().copied())
            }
            ("+unix" | "unix", false, _) if !hosts.is_empty() => {
                return Err("a socket has a path and no host; write redis+unix:///PATH".to_owned());
            }
            ("+unix" | "unix", false, _) if !path.is_empty() => {
                let path = percent_decoded(path);
                (StorePlace::Socket(path), query.get("db"))
            }
            ("+sentinel", _, [master] | [master, _]) => {
                let sentinels = addresses(hosts, 26379)?;
                let master = percent_decoded(master);
                if master.contains(['@', ',', '/']) {
                    return Err("the master's name holds '@', ',' or '/'".to_owned());
                }
                (StorePlace::Sentinel { sentinels, master }, segments.get(1).copied())
            }
            ("+sentinel", _, []) => return Err(format!("the name of the Sentinel master is missing; {EXPECTED}")),
            ("+cluster", _, [] | ["0"]) => (StorePlace::Cluster(addresses(hosts, 6379)?), None),
            ("+cluster", _, _) => return Err("a cluster has one database, 0; leave the path out".to_owned()),
            ("" | "+unix" | "unix" | "+sentinel", _, _) => {
                return Err(format!("not a valid store URL; {EXPECTED}"));
            }
            _ => {
                return Err(format!(
                    "store URLs of scheme {scheme:?} are not supported; use redis://, rediss://, redis+unix://, \
                     redis+sentinel://, rediss+sentinel://, redis+cluster:// or rediss+cluster://"
                ));
            }
        };
        if query.get("db").is_some() && !matches!(place, StorePlace::Socket(_)) {
            return Err(format!("only a socket has its database in db=; {EXPECTED}"));
        }
        let database = match (database, &place) {
            (None | Some(""), _) => 0,
            (Some(text), place) => text.parse().map_err(|_| match place {
                // Beside it in the query stands the password, and they may have been mixed up; before an "@" stands one
                // with a "/" in it.
                _ if text.contains('@') => {
                    format!("the database is not a number; in a login \"/\" is written %2F; {EXPECTED}")
                }
                StorePlace::Socket(_) => format!("db is not a number from 0 to 65535; {EXPECTED}"),
                StorePlace::Server(_) | StorePlace::Sentinel { .. } | StorePlace::Cluster(_) => {
                    format!("{text:?} is not a database number; {EXPECTED}")
                }
            })?,
        };
        let (username, password) = user.split_once(':').unwrap_or((user, ""));
        let given = |name: &str, otherwise: &str| match query.get(name) {
            Some(value) if otherwise.is_empty() => value.to_owned(),
            Some(_) | None => percent_decoded(otherwise),
        };
        let login = Login { username: given("user", username), password: Zeroizing::new(given("pass", password)) };
        let sentinel_login = Login {
            username: given("sentinel-username", ""),
            password: Zeroizing::new(given("sentinel-password", "")),
        };
        let passwords_from = PasswordsFrom {
            redis: query.reference("password-from")?,
            sentinel: query.reference("sentinel-password-from")?,
        };
        let file = |name: &str| query.get(name).map(ToOwned::to_owned);
        let files = TlsFiles { ca: file("tls-ca"), cert: file("tls-cert"), key: file("tls-key") };
        if !is_encrypted && files != TlsFiles::default() {
            return Err(format!(
                "TLS files are given, but scheme {scheme:?} has no TLS; use its form with an \"s\""
            ));
        }
        Self::new(place, database, [login, sentinel_login], passwords_from, is_encrypted.then_some(files))
    }

    /// Puts a URL together, or says what does not fit.
    fn new(
        place: StorePlace,
        database: u16,
        [login, sentinel_login]: [Login; 2],
        passwords_from: PasswordsFrom,
        tls: Option<TlsFiles>,
    ) -> Result<Self, String> {
        if let Some(TlsFiles { ca, cert, key }) = &tls {
            if cert.is_some() != key.is_some() {
                return Err("tls-cert and tls-key come together: a certificate is of no use without its key".into());
            }
            let paths = [ca, cert, key].into_iter().flatten();
            if let Some(path) = paths.clone().find(|path| !path.starts_with('/')) {
                return Err(format!("{path:?} is no absolute path; TLS files are read on the workers"));
            }
        }
        let has_sentinel_login = sentinel_login != Login::default() || passwords_from.sentinel.is_some();
        if !matches!(place, StorePlace::Sentinel { .. }) && has_sentinel_login {
            return Err("a login for Sentinels is given, but the URL names none".to_owned());
        }
        for (login, from) in [(&login, &passwords_from.redis), (&sentinel_login, &passwords_from.sentinel)] {
            if let Some(from) = from.as_ref().filter(|_| !login.password.is_empty()) {
                return Err(format!(
                    "a password is given, and that workers read it from {from}; say one of the two"
                ));
            }
        }
        let text = Zeroizing::new(String::new());
        let mut url = Self { place, database, login, sentinel_login, passwords_from, tls, text };
        url.text = url.write();
        Ok(url)
    }

    fn write(&self) -> Zeroizing<String> {
        let mut query = Serializer::new(String::new());
        let mut add = |name: &str, value: &str| {
            if !value.is_empty() {
                query.append_pair(name, value);
            }
        };
        if matches!(self.place, StorePlace::Socket(_)) && self.database != 0 {
            add("db", &self.database.to_string());
        }
        add("user", &self.login.username);
        add("pass", &self.login.password);
        let from =
            |reference: &Option<SecretReference>| reference.as_ref().map(ToString::to_string).unwrap_or_default();
        add("password-from", &from(&self.passwords_from.redis));
        add("sentinel-username", &self.sentinel_login.username);
        add("sentinel-password", &self.sentinel_login.password);
        add("sentinel-password-from", &from(&self.passwords_from.sentinel));
        for (name, file) in self.files() {
            add(name, file);
        }
        let query = Zeroizing::new(query.finish());
        let question = if query.is_empty() { "" } else { "?" };
        Zeroizing::new(format!("{}{question}{}", self.bare(), *query))
    }

    fn files(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let files = self
            .tls
            .iter()
            .flat_map(|files| [("tls-ca", &files.ca), ("tls-cert", &files.cert), ("tls-key", &files.key)]);
        files.filter_map(|(name, path)| Some((name, path.as_deref()?)))
    }

    /// The URL without its query.
    fn bare(&self) -> String {
        let s = if self.tls.is_some() { "s" } else { "" };
        let join = |addresses: &[Address]| addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        let database = if self.database == 0 { String::new() } else { format!("/{}", self.database) };
        match &self.place {
            StorePlace::Server(address) => format!("redis{s}://{address}{database}"),
            StorePlace::Socket(path) => {
                format!("redis+unix://{}", path.replace('%', "%25").replace('?', "%3F").replace('#', "%23"))
            }
            StorePlace::Sentinel { sentinels, master } => {
                let master = master.replace('%', "%25").replace('?', "%3F").replace('#', "%23");
                format!("redis{s}+sentinel://{}/{master}{database}", join(sentinels))
            }
            StorePlace::Cluster(nodes) => format!("redis{s}+cluster://{}", join(nodes)),
        }
    }

    /// The same store, entered with these instead. Empty ones change nothing.
    pub fn with_access(
        self,
        field: &'static str,
        login: Login,
        sentinel_login: Login,
        files: TlsFiles,
    ) -> Result<Self, FieldViolation> {
        let wrong = |why: String| FieldViolation::new(field, &why);
        let pick = |given: Login, present: Login| Login {
            username: if given.username.is_empty() { present.username } else { given.username },
            password: if given.password.is_empty() { present.password } else { given.password },
        };
        let tls = match self.tls {
            None if files != TlsFiles::default() => {
                return Err(wrong("TLS files are given, but the URL's scheme has no TLS; use rediss://, rediss+sentinel:// or rediss+cluster://".to_owned()));
            }
            None => None,
            Some(present) => Some(TlsFiles {
                ca: files.ca.or(present.ca),
                cert: files.cert.or(present.cert),
                key: files.key.or(present.key),
            }),
        };
        let from = self.passwords_from;
        let passwords_from = PasswordsFrom {
            redis: from.redis.filter(|_| login.password.is_empty()),
            sentinel: from.sentinel.filter(|_| sentinel_login.password.is_empty()),
        };
        let logins = [pick(login, self.login), pick(sentinel_login, self.sentinel_login)];
        Self::new(self.place, self.database, logins, passwords_from, tls).map_err(wrong)
    }

    /// The same store, with passwords that workers find there, instead of those that it had. `None` changes nothing.
    pub fn with_passwords_from(
        self,
        field: &'static str,
        PasswordsFrom { redis, sentinel }: PasswordsFrom,
    ) -> Result<Self, FieldViolation> {
        let without = |login: Login, from: &Option<SecretReference>| match from {
            Some(_) => Login { password: Zeroizing::default(), ..login },
            None => login,
        };
        let logins = [without(self.login, &redis), without(self.sentinel_login, &sentinel)];
        let present = self.passwords_from;
        let from = PasswordsFrom { redis: redis.or(present.redis), sentinel: sentinel.or(present.sentinel) };
        Self::new(self.place, self.database, logins, from, self.tls).map_err(|why| FieldViolation::new(field, &why))
    }

    /// The whole URL, passwords included: for the wire, the store of control, and the key of a client only.
    pub fn expose(&self) -> &str {
        &self.text
    }

    /// The URL without users, passwords, where these are, and files.
    pub fn redacted(&self) -> String {
        match (&self.place, self.database) {
            (StorePlace::Socket(_), 1..) => format!("{}?db={}", self.bare(), self.database),
            _ => self.bare(),
        }
    }

    /// Where it leads: two URLs whose endpoints meet are the same store.
    pub fn endpoint(&self) -> StoreEndpoint {
        let all = |addresses: &[Address]| addresses.iter().map(normal).collect();
        let (master, addresses) = match &self.place {
            StorePlace::Server(address) => ("", BTreeSet::from([normal(address)])),
            StorePlace::Socket(path) => ("", BTreeSet::from([format!("unix:{path}")])),
            StorePlace::Sentinel { sentinels, master } => (master.as_str(), all(sentinels)),
            StorePlace::Cluster(nodes) => ("", all(nodes)),
        };
        StoreEndpoint { master: master.to_owned(), addresses, database: self.database.to_string() }
    }

    /// Whether an environment can have this prefix there; else why not, and what would do.
    ///
    /// In a cluster all keys of a prefix must have one slot, which a hash tag decides.
    pub fn check_prefix(&self, prefix: &Prefix) -> Result<(), String> {
        if !matches!(self.place, StorePlace::Cluster(_)) || hash_tag(prefix.as_str()).is_some() {
            return Ok(());
        }
        let plain: String = prefix.as_str().chars().filter(|c| !matches!(c, '{' | '}')).collect();
        Err(format!(
            "{:?} has no hash tag, and the store is a cluster, where it takes one to keep the keys of a prefix together; \
             use {{{plain}}}",
            prefix.as_str()
        ))
    }
}

/// The part of a key between the first `{` and the next `}`, if it is not empty: it alone decides about the slot.
pub fn hash_tag(key: &str) -> Option<&str> {
    let (_, rest) = key.split_once('{')?;
    let (tag, _) = rest.split_once('}')?;
    Some(tag).filter(|tag| !tag.is_empty())
}

impl fmt::Debug for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.redacted())
    }
}

/// One address in one writing.
fn normal(address: &Address) -> String {
    let host = match address.host.to_ascii_lowercase().as_str() {
        "localhost" | "127.0.0.1" | "::1" => "localhost".to_owned(),
        other => other.trim_end_matches('.').to_owned(),
    };
    Address { host, port: address.port }.to_string()
}

#[cfg(test)]
mod tests;
