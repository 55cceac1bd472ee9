//! From a token or a client certificate to who somebody is and what they may.

use std::fmt;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use super::rights::{Rights, Role, WorkerPattern};
use crate::hex;
use crate::names::WorkerName;

/// The SHA-256 of a token, which is all that a server keeps of it.
#[derive(Clone, Copy)]
pub struct TokenHash([u8; 32]);

impl TokenHash {
    /// Of a token as it came with a call.
    pub fn of(token: &str) -> Self {
        Self(Sha256::digest(token.as_bytes()).into())
    }

    /// From 64 hexadecimal digits.
    pub fn parse(text: &str) -> Option<Self> {
        let mut hash = [0; 32];
        hex::fill(&mut hash, text)?;
        Some(Self(hash))
    }

    /// The same, in a time that does not tell how much of it is.
    pub fn matches(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

/// As `sha256sum` prints it. It is no secret: no token can be made of it.
impl fmt::Display for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(&self.0))
    }
}

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenHash")
    }
}

/// What somebody came with.
#[derive(Debug, Clone)]
pub enum Credential {
    /// Nothing.
    None,
    /// A header that holds no token.
    Malformed,
    /// A token.
    Token(TokenHash),
    /// A client certificate with these DNS names, whose authority was checked.
    Certificate(Arc<[String]>),
}

/// Who somebody is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The name of the token or certificate.
    pub name: String,
    /// What they may.
    pub rights: Rights,
}

/// Why nobody knows who somebody is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unknown {
    /// They came with nothing.
    #[error("neither a token nor a client certificate came with the call")]
    NoCredential,
    /// The header holds no token.
    #[error("the authorization header is not \"Bearer\" and a token")]
    Malformed,
    /// The token is not in the file, or not any more.
    #[error("the token is not known here, or not any more")]
    Token,
    /// No name of the certificate is in the file.
    #[error("no name of the client certificate is known here ({})", .names.join(", "))]
    Certificate {
        /// Its DNS names.
        names: Vec<String>,
    },
}

/// Everybody who is known.
#[derive(Debug)]
pub enum Keys {
    /// Nobody is told apart.
    Open,
    /// Whoever has a certificate may do everything.
    AnyCertificate,
    /// Those in the files.
    Listed(Listed),
}

/// Those in the files.
#[derive(Debug, Default)]
pub struct Listed {
    /// Callers of the API.
    pub(super) api: List<Role>,
    /// Workers.
    pub(super) workers: List<WorkerPattern>,
}

/// Tokens and certificates of one file.
#[derive(Debug)]
pub(super) struct List<G> {
    pub(super) tokens: Vec<(TokenHash, String, G)>,
    pub(super) certificates: Vec<(String, G)>,
}

impl<G> Default for List<G> {
    fn default() -> Self {
        Self { tokens: Vec::new(), certificates: Vec::new() }
    }
}

impl<G> List<G> {
    /// The entry of a token. All are compared, so that the time tells nothing.
    fn token(&self, hash: &TokenHash) -> Option<(&str, &G)> {
        let mut found = None;
        for (known, name, grants) in &self.tokens {
            if known.matches(hash) {
                found = Some((name.as_str(), grants));
            }
        }
        found
    }
}

impl Keys {
    /// Whether callers are told apart.
    pub fn tell_apart(&self) -> bool {
        match self {
            Self::Open => false,
            Self::AnyCertificate | Self::Listed(_) => true,
        }
    }

    /// Who somebody is.
    pub fn identify(&self, credential: &Credential) -> Result<Identity, Unknown> {
        match (self, credential) {
            (Self::Open, Credential::None | Credential::Malformed | Credential::Token(_)) => {
                Ok(Identity { name: "anyone".to_owned(), rights: Rights::Everything })
            }
            (Self::Open | Self::AnyCertificate, Credential::Certificate(names)) => {
                Ok(Identity { name: first_name(names), rights: Rights::Everything })
            }
            // Without files no token is known.
            (Self::AnyCertificate, Credential::Token(_)) => Err(Unknown::Token),
            (Self::AnyCertificate | Self::Listed(_), Credential::None) => Err(Unknown::NoCredential),
            (Self::AnyCertificate | Self::Listed(_), Credential::Malformed) => Err(Unknown::Malformed),
            (Self::Listed(listed), Credential::Token(hash)) => listed.of_token(hash),
            (Self::Listed(listed), Credential::Certificate(names)) => listed.of_certificate(names),
        }
    }
}

impl Listed {
    fn of_token(&self, hash: &TokenHash) -> Result<Identity, Unknown> {
        let worker = self.workers.token(hash);
        if let Some((name, role)) = self.api.token(hash) {
            return Ok(Identity { name: name.to_owned(), rights: Rights::Api(*role) });
        }
        let (name, pattern) = worker.ok_or(Unknown::Token)?;
        Ok(Identity { name: name.to_owned(), rights: Rights::Worker(vec![pattern.clone()]) })
    }

    /// Of several names that are known the one with the largest role counts. As a worker, a certificate speaks for its own
    /// names only.
    fn of_certificate(&self, names: &Arc<[String]>) -> Result<Identity, Unknown> {
        let api = self.api.certificates.iter().filter(|(known, _)| names.contains(known));
        if let Some((name, role)) = api.max_by_key(|(_, role)| *role) {
            return Ok(Identity { name: name.clone(), rights: Rights::Api(*role) });
        }
        let own: Vec<WorkerName> = names.iter().filter_map(|name| name.parse().ok()).collect();
        let covered = own
            .into_iter()
            .filter(|name| self.workers.certificates.iter().any(|(_, pattern)| pattern.covers(name)));
        let patterns: Vec<WorkerPattern> = covered.map(WorkerPattern::Name).collect();
        match patterns.first() {
            Some(first) => Ok(Identity { name: first.to_string(), rights: Rights::Worker(patterns) }),
            None => Err(Unknown::Certificate { names: names.to_vec() }),
        }
    }
}

fn first_name(names: &Arc<[String]>) -> String {
    names.first().cloned().unwrap_or_else(|| "a certificate without a DNS name".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed() -> Keys {
        let hash = |token: &str| TokenHash::of(token);
        Keys::Listed(Listed {
            api: List {
                tokens: vec![
                    (hash("a"), "ci".to_owned(), Role::Viewer),
                    (hash("b"), "ops".to_owned(), Role::Admin),
                ],
                certificates: vec![("ops.example".to_owned(), Role::Operator)],
            },
            workers: List {
                tokens: vec![(hash("w"), "edge-*".to_owned(), WorkerPattern::parse("edge-*").unwrap())],
                certificates: vec![("*".to_owned(), WorkerPattern::parse("*").unwrap())],
            },
        })
    }

    fn certificate(names: &[&str]) -> Credential {
        Credential::Certificate(names.iter().map(|&name| name.to_owned()).collect())
    }

    #[test]
    fn tokens_and_certificates_are_told_apart() {
        let keys = listed();
        let token = |text: &str| keys.identify(&Credential::Token(TokenHash::of(text)));
        assert_eq!(token("a").unwrap(), Identity { name: "ci".to_owned(), rights: Rights::Api(Role::Viewer) });
        assert_eq!(token("b").unwrap().rights, Rights::Api(Role::Admin));
        let worker = token("w").unwrap().rights;
        assert!(worker.include_worker_named(&"edge-1".parse().unwrap()));
        assert!(!worker.include_worker_named(&"core-1".parse().unwrap()) && !worker.include(Role::Viewer));
        assert_eq!(token("c"), Err(Unknown::Token));
        assert_eq!(keys.identify(&Credential::None), Err(Unknown::NoCredential));
        assert_eq!(keys.identify(&certificate(&["x", "ops.example"])).unwrap().rights, Rights::Api(Role::Operator));
        // A certificate is the worker of its own name, whatever the pattern covers.
        let worker = keys.identify(&certificate(&["w7"])).unwrap().rights;
        assert!(worker.include_worker_named(&"w7".parse().unwrap()));
        assert!(!worker.include_worker_named(&"w8".parse().unwrap()));
        assert!(matches!(keys.identify(&certificate(&["NOT-A-WORKER"])), Err(Unknown::Certificate { .. })));
    }

    #[test]
    fn hashes_are_read_as_sha256sum_prints_them() {
        let hash = TokenHash::parse("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad").unwrap();
        assert!(hash.matches(&TokenHash::of("abc")) && !hash.matches(&TokenHash::of("abd")));
        for wrong in ["", "ba78", &"g".repeat(64), &"a".repeat(65)] {
            assert!(TokenHash::parse(wrong).is_none(), "{wrong}");
        }
    }
}
