//! Secrets at rest: sealed with a key that is kept elsewhere.
//!
//! What is sealed reads `sealed:1:` and the base64 of a random nonce of 24 bytes and XChaCha20-Poly1305's ciphertext (RFC
//! 8439, with the nonce of draft-irtf-cfrg-xchacha-03). What it is the secret of is authenticated with it, so that a value
//! that somebody moves to another place does not open there. What is not sealed is taken too: so sealing is begun. Whoever
//! can write the file can therefore put in a value of their own, but not read one.

use std::borrow::Cow;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chacha20poly1305::aead::{Aead as _, KeyInit as _, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use zeroize::Zeroizing;

use crate::files::{open_regular, read_bounded};
use crate::hex;

/// What is sealed begins so; no SDK key and no URL of a store does.
const MARK: &str = "sealed:1:";
const NONCE_BYTES: usize = 24;
const KEY_BYTES: usize = 32;
const LONGEST_FILE: u64 = 64 << 10;
/// The one that seals, and those that what was sealed before may need.
const MOST_KEYS: usize = 16;

/// How secrets are kept on disk: sealed, or as they are.
#[derive(Clone, Default)]
pub struct Sealing {
    /// The first seals, all of them open; none: nothing is sealed.
    keys: Arc<[XChaCha20Poly1305]>,
}

/// A secret from the disk.
#[derive(Debug)]
pub struct Opened {
    /// The secret.
    pub content: Secret,
    /// How it lay there.
    pub condition: SealCondition,
}

/// A secret's bytes, wiped from memory when dropped.
pub struct Secret(pub Zeroizing<Vec<u8>>);

/// Whether what lay there is as it would be written now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SealCondition {
    /// It is.
    Current,
    /// It was not sealed, or with an earlier key: it is to be written again.
    Outdated,
}

/// Why secrets cannot be sealed or opened. Shows none.
#[derive(Debug, thiserror::Error)]
pub enum SealingError {
    /// The file of keys cannot be read: mend its path or its permissions.
    #[error("--encryption-key-file: cannot read {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file of keys holds something else: make one by `openssl rand -hex 32`.
    #[error(
        "--encryption-key-file: {}:{line}: expected 64 hexadecimal digits, as `openssl rand -hex 32` makes them, \
         on at most {MOST_KEYS} lines",
        path.display()
    )]
    WrongKey {
        /// The file.
        path: PathBuf,
        /// Its line.
        line: usize,
    },
    /// It is sealed, and there is no key: give the one that it was sealed with.
    #[error("{what} is sealed, and there is no key for it; give --encryption-key-file")]
    NoKey {
        /// What it is the secret of.
        what: String,
    },
    /// It was sealed with another key, or somebody has changed it.
    #[error(
        "{what} does not open: it was sealed with another key, or changed since; add that key to the file of \
         --encryption-key-file, on a line after the first"
    )]
    DoesNotOpen {
        /// What it is the secret of.
        what: String,
    },
}

impl Sealing {
    /// Keys from a file: one a line, 64 hexadecimal digits; the first seals, the others only open what was sealed before.
    /// Empty lines and lines that begin with '#' say nothing.
    pub fn from_file(path: &Path) -> Result<Self, SealingError> {
        let text = open_regular(path).and_then(|file| read_bounded(file, LONGEST_FILE));
        let text = text.map_err(|source| SealingError::Unreadable { path: path.to_owned(), source })?;
        let wrong = |line| SealingError::WrongKey { path: path.to_owned(), line };
        let mut keys = Vec::new();
        for (line, text) in (1..).zip(text.lines()) {
            let text = text.trim();
            if text.is_empty() || text.starts_with('#') {
                continue;
            }
            let key = key(text).filter(|_| keys.len() < MOST_KEYS).ok_or_else(|| wrong(line))?;
            keys.push(key);
        }
        if keys.is_empty() { Err(wrong(1)) } else { Ok(Self { keys: keys.into() }) }
    }

    /// Whether anything is sealed.
    pub fn is_on(&self) -> bool {
        !self.keys.is_empty()
    }

    /// As it is to be written: sealed, or, without a key, as it is; `what` says what it is the secret of.
    ///
    /// # Panics
    /// Where the system has no random numbers: a nonce that is not random would give the secret away.
    pub fn seal<'a>(&self, what: &str, secret: &'a [u8]) -> Cow<'a, [u8]> {
        let Some(key) = self.keys.first() else { return Cow::Borrowed(secret) };
        let mut nonce = [0; NONCE_BYTES];
        getrandom::fill(&mut nonce).expect("the system has random numbers");
        let payload = Payload { msg: secret, aad: what.as_bytes() };
        let ciphertext = key.encrypt(&XNonce::from(nonce), payload).expect("secrets are shorter than 256 GB");
        let mut text = MARK.to_owned();
        STANDARD.encode_string([nonce.as_slice(), &ciphertext].concat(), &mut text);
        Cow::Owned(text.into_bytes())
    }

    /// What was written, by this or an earlier process; `what` as when it was sealed.
    pub fn open(&self, what: &str, stored: &[u8]) -> Result<Opened, SealingError> {
        let Some(sealed) = stored.strip_prefix(MARK.as_bytes()) else {
            let condition = if self.is_on() { SealCondition::Outdated } else { SealCondition::Current };
            return Ok(Opened { content: Secret(Zeroizing::new(stored.to_vec())), condition });
        };
        if !self.is_on() {
            return Err(SealingError::NoKey { what: what.to_owned() });
        }
        let does_not_open = || SealingError::DoesNotOpen { what: what.to_owned() };
        let bytes = STANDARD.decode(sealed).map_err(|_| does_not_open())?;
        let (nonce, ciphertext) = bytes.split_first_chunk::<NONCE_BYTES>().ok_or_else(does_not_open)?;
        let payload = || Payload { msg: ciphertext, aad: what.as_bytes() };
        let opened = self.keys.iter().enumerate().find_map(|(number, key)| {
            let content = key.decrypt(&XNonce::from(*nonce), payload()).ok()?;
            Some((number, Secret(Zeroizing::new(content))))
        });
        let (number, content) = opened.ok_or_else(does_not_open)?;
        let condition = if number == 0 { SealCondition::Current } else { SealCondition::Outdated };
        Ok(Opened { content, condition })
    }
}

fn key(text: &str) -> Option<XChaCha20Poly1305> {
    let mut bytes = Zeroizing::new([0; KEY_BYTES]);
    hex::fill(bytes.as_mut_slice(), text)?;
    XChaCha20Poly1305::new_from_slice(bytes.as_slice()).ok()
}

impl fmt::Debug for Sealing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sealing({} keys)", self.keys.len())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("********")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &[u8] = b"sdk-secret";

    fn sealing(keys: &str) -> Result<Sealing, SealingError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), keys).unwrap();
        Sealing::from_file(file.path())
    }

    fn digits(digit: &str) -> String {
        digit.repeat(64)
    }

    #[test]
    fn what_is_sealed_opens_where_it_was_sealed_for_and_nowhere_else() {
        let sealing = sealing(&digits("1")).unwrap();
        let sealed = sealing.seal("a", SECRET).into_owned();
        assert!(!sealed.windows(SECRET.len()).any(|part| part == SECRET));
        assert_ne!(sealed, *sealing.seal("a", SECRET), "equal secrets do not look equal");
        let opened = sealing.open("a", &sealed).unwrap();
        assert_eq!((opened.content.0.as_slice(), opened.condition), (SECRET, SealCondition::Current));
        let mut changed = sealed.clone();
        let last = changed.len() - 5;
        changed[last] = if changed[last] == b'A' { b'B' } else { b'A' };
        for (what, stored) in [("b", &sealed), ("a", &changed), ("a", &MARK.as_bytes().to_vec())] {
            let error = sealing.open(what, stored).unwrap_err();
            assert!(matches!(error, SealingError::DoesNotOpen { .. }), "{error}");
        }
        assert!(matches!(Sealing::default().open("a", &sealed), Err(SealingError::NoKey { .. })));
    }

    #[test]
    fn keys_are_changed_and_sealing_is_begun_without_a_gap() {
        let plain = Sealing::default().seal("a", SECRET);
        assert_eq!(&*plain, SECRET);
        let (old, new) = (digits("1"), digits("2"));
        let sealed = sealing(&old).unwrap().seal("a", SECRET);
        let both = sealing(&format!("# keys\n{new}\n\n{old}\n")).unwrap();
        for stored in [plain, sealed] {
            let opened = both.open("a", &stored).unwrap();
            assert_eq!((opened.content.0.as_slice(), opened.condition), (SECRET, SealCondition::Outdated));
        }
        let again = both.seal("a", SECRET);
        assert!(
            sealing(&new).unwrap().open("a", &again).is_ok() && sealing(&old).unwrap().open("a", &again).is_err()
        );
    }

    #[test]
    fn wrong_files_are_named_and_not_shown() {
        for text in
            ["", "# none\n", "secret", &digits("x"), &"11".repeat(31), &format!("{}\n", digits("1")).repeat(17)]
        {
            let error = sealing(text).unwrap_err().to_string();
            assert!(error.contains("64 hexadecimal digits") && !error.contains("secret"), "{error}");
        }
        let error = Sealing::from_file(Path::new("/nowhere/at/all")).unwrap_err().to_string();
        assert!(error.contains("/nowhere/at/all"), "{error}");
    }
}
