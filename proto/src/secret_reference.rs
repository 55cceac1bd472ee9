//! Secrets that only workers read: whoever manages environments says where a secret is, and control never has it.

use std::fmt;
use std::str::FromStr;

use crate::secret::SdkKey;
use crate::spec::FieldViolation;

/// What the names of variables that a reference may mean begin with. No other variable of a worker can be sent anywhere.
pub const VARIABLE_PREFIX: &str = "FLOTILLA_SECRET_";

const LONGEST_FILE: usize = 253;
const LONGEST_VARIABLE: usize = 128;

/// Where workers find a secret: `file:NAME` or `env:NAME`. It is no secret itself.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SecretReference(Box<str>);

/// What a reference means on a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretPlace<'a> {
    /// The file of this relative path below `--secrets-dir`.
    File(&'a str),
    /// The environment variable of this name.
    Variable(String),
}

/// Why a text is no reference. It does not repeat the text, which may be a secret in the wrong place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidReference {
    /// It begins with neither of the two.
    #[error(
        "a reference to a secret is file:NAME, for a file below the workers' --secrets-dir, or env:NAME, for their \
         variable {VARIABLE_PREFIX}NAME"
    )]
    Kind,
    /// It names no file below a directory.
    #[error(
        "in file:NAME the name is the path of a file below the workers' --secrets-dir: up to {LONGEST_FILE} characters of A-Z, \
         a-z, 0-9, '.', '_', '-' and '/', without a '.' at the beginning of a part"
    )]
    File,
    /// It names no variable.
    #[error(
        "in env:NAME the name is 1 to {LONGEST_VARIABLE} characters of A-Z, 0-9 and '_', for the workers' variable \
         {VARIABLE_PREFIX}NAME"
    )]
    Variable,
}

impl SecretReference {
    /// As [`str::parse`], for a field of a request.
    pub fn parse(field: &'static str, text: &str) -> Result<Self, FieldViolation> {
        text.parse().map_err(|error: InvalidReference| FieldViolation::new(field, &error.to_string()))
    }

    /// As users write it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What it means on a worker.
    pub fn place(&self) -> SecretPlace<'_> {
        match self.0.strip_prefix("env:") {
            Some(name) => SecretPlace::Variable(format!("{VARIABLE_PREFIX}{name}")),
            None => SecretPlace::File(self.0.trim_start_matches("file:")),
        }
    }
}

impl FromStr for SecretReference {
    type Err = InvalidReference;

    fn from_str(text: &str) -> Result<Self, InvalidReference> {
        let (is_valid, invalid) = match text.split_once(':') {
            Some(("file", name)) => {
                (name.len() <= LONGEST_FILE && name.split('/').all(is_part), InvalidReference::File)
            }
            Some(("env", name)) => (is_variable(name), InvalidReference::Variable),
            Some(_) | None => (false, InvalidReference::Kind),
        };
        if is_valid { Ok(Self(text.into())) } else { Err(invalid) }
    }
}

/// A part of a path that leads down, and to no hidden file.
fn is_part(text: &str) -> bool {
    !text.is_empty()
        && !text.starts_with('.')
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

fn is_variable(text: &str) -> bool {
    (1..=LONGEST_VARIABLE).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_')
}

impl fmt::Display for SecretReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An SDK key as control has it: the key, or where workers find it. Only a worker makes a key of the latter, so it can never
/// be sent in a key's place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SdkKeySource {
    /// The key itself.
    Key(SdkKey),
    /// Where workers find it.
    Reference(SecretReference),
}

impl SdkKeySource {
    /// Checks and takes a key or a reference, which a key cannot be taken for: it holds no ':'. The violation never shows it.
    pub fn parse(field: &'static str, text: &str) -> Result<Self, FieldViolation> {
        if !text.contains(':') {
            return SdkKey::parse(field, text).map(Self::Key);
        }
        let text = text.trim_end_matches(['\r', '\n']);
        let reference = text.parse().map_err(|error: InvalidReference| match error {
            InvalidReference::Kind => FieldViolation::new(field, &format!("an SDK key holds no ':'; {error}")),
            InvalidReference::File | InvalidReference::Variable => FieldViolation::new(field, &error.to_string()),
        });
        reference.map(Self::Reference)
    }

    /// The key or the reference as text, for the wire and the store of control only.
    pub fn expose(&self) -> &str {
        match self {
            Self::Key(key) => key.expose(),
            Self::Reference(reference) => reference.as_str(),
        }
    }

    /// As it may be shown: of a key what [`SdkKey::masked`] leaves, a reference as it is.
    pub fn masked(&self) -> String {
        match self {
            Self::Key(key) => key.masked(),
            Self::Reference(reference) => reference.to_string(),
        }
    }
}

impl From<SdkKey> for SdkKeySource {
    fn from(key: SdkKey) -> Self {
        Self::Key(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_read_and_written_again() {
        let longest = format!("file:{}", "n".repeat(LONGEST_FILE));
        let longest_variable = format!("env:{}", "N".repeat(LONGEST_VARIABLE));
        for good in ["file:payments", "file:a/B_1/c-d.key", "env:REDIS", "env:_9", &longest, &longest_variable] {
            let reference: SecretReference = good.parse().unwrap();
            assert_eq!((reference.as_str(), reference.to_string().as_str()), (good, good));
        }
        let file: SecretReference = "file:a/b".parse().unwrap();
        assert_eq!(file.place(), SecretPlace::File("a/b"));
        let variable: SecretReference = "env:REDIS".parse().unwrap();
        assert_eq!(variable.place(), SecretPlace::Variable("FLOTILLA_SECRET_REDIS".to_owned()));
    }

    #[test]
    fn what_leads_elsewhere_is_refused_without_being_shown() {
        let too_long = format!("file:{}", "n".repeat(LONGEST_FILE + 1));
        let too_long_variable = format!("env:{}", "N".repeat(LONGEST_VARIABLE + 1));
        for (bad, error) in [
            ("", InvalidReference::Kind),
            ("payments", InvalidReference::Kind),
            ("vault:payments", InvalidReference::Kind),
            ("File:payments", InvalidReference::Kind),
            ("file:", InvalidReference::File),
            ("file:/etc/passwd", InvalidReference::File),
            ("file:..", InvalidReference::File),
            ("file:a/../b", InvalidReference::File),
            ("file:a//b", InvalidReference::File),
            ("file:a/", InvalidReference::File),
            ("file:.hidden", InvalidReference::File),
            ("file:..data/key", InvalidReference::File),
            ("file:a b", InvalidReference::File),
            ("file:a:b", InvalidReference::File),
            ("file:schlüssel", InvalidReference::File),
            ("file:a\n", InvalidReference::File),
            ("file:a\0", InvalidReference::File),
            (&too_long, InvalidReference::File),
            ("env:", InvalidReference::Variable),
            ("env:path", InvalidReference::Variable),
            ("env:A=B", InvalidReference::Variable),
            (&too_long_variable, InvalidReference::Variable),
        ] {
            assert_eq!(bad.parse::<SecretReference>(), Err(error), "{bad}");
        }
        for bad in ["hunter2:x", "file:hunter2 x", "env:hunter2"] {
            let violation = SdkKeySource::parse("sdk_key", bad).unwrap_err().to_string();
            assert!(!violation.contains("hunter2") && violation.contains(":NAME"), "{violation}");
        }
    }

    #[test]
    fn a_key_and_a_reference_are_told_apart() {
        let key = SdkKeySource::parse("sdk_key", "sdk-01234567-89ab-cdef-0123-456789a99999\n").unwrap();
        assert!(matches!(key, SdkKeySource::Key(_)));
        assert_eq!(key.masked(), "sdk-********-****-****-****-*******99999");
        assert!(!format!("{key:?}").contains("01234567"));
        let reference = SdkKeySource::parse("sdk_key", "file:payments\n").unwrap();
        assert_eq!((reference.masked().as_str(), reference.expose()), ("file:payments", "file:payments"));
        let shown = reference.masked();
        assert_eq!(SdkKeySource::parse("sdk_key", &shown), Ok(reference), "what is shown can be given");
        assert!(SdkKeySource::parse("sdk_key", &key.masked()).is_err());
    }
}
