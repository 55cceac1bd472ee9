//! A secret that is somewhere else than in the manifest.

use std::fmt;

use serde::de::{Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::ser::SerializeMap as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::secret_reference::SecretReference;

/// Where a secret is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename_all = "lowercase"))]
pub enum SecretSource {
    /// In this file; a relative path begins at the directory of the manifest.
    File(String),
    /// In this environment variable.
    Env(String),
    /// Where workers find it: file:NAME below their --secrets-dir, or env:NAME, their variable FLOTILLA_SECRET_NAME. Neither the
    /// command line nor control reads it.
    Worker(
        #[cfg_attr(
            test,
            schemars(
                with = "String",
                regex(
                    pattern = r"^(file:[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*|env:[A-Z0-9_]{1,128})$"
                )
            )
        )]
        SecretReference,
    ),
}

impl Serialize for SecretSource {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(1))?;
        match self {
            Self::File(path) => map.serialize_entry("file", path)?,
            Self::Env(variable) => map.serialize_entry("env", variable)?,
            Self::Worker(reference) => map.serialize_entry("worker", reference.as_str())?,
        }
        map.end()
    }
}

/// What is said to anything else. What was found is not repeated: it may be the secret itself.
const WAY_OUT: &str = "a secret is never written into the file; say where it is: {file: PATH}, {env: VARIABLE} or, where only \
    workers read it, {worker: REFERENCE}";

impl<'de> Deserialize<'de> for SecretSource {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SecretVisitor)
    }
}

struct SecretVisitor;

macro_rules! never {
    ($($visit:ident: $type:ty),*) => {$(
        fn $visit<E: serde::de::Error>(self, _: $type) -> Result<Self::Value, E> {
            Err(E::custom(WAY_OUT))
        }
    )*};
}

impl<'de> Visitor<'de> for SecretVisitor {
    type Value = SecretSource;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{file: PATH}, {env: VARIABLE} or {worker: REFERENCE}")
    }

    never!(visit_bool: bool, visit_i64: i64, visit_u64: u64, visit_f64: f64, visit_str: &str);

    fn visit_unit<E: serde::de::Error>(self) -> Result<Self::Value, E> {
        Err(E::custom(WAY_OUT))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, _: A) -> Result<Self::Value, A::Error> {
        Err(A::Error::custom(WAY_OUT))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let wrong = || A::Error::custom(WAY_OUT);
        let found = match map.next_key::<String>()?.as_deref() {
            Some("file") => SecretSource::File(map.next_value().map_err(|_| wrong())?),
            Some("env") => SecretSource::Env(map.next_value().map_err(|_| wrong())?),
            Some("worker") => {
                let text: String = map.next_value().map_err(|_| wrong())?;
                SecretSource::Worker(text.parse().map_err(A::Error::custom)?)
            }
            Some(_) | None => return Err(wrong()),
        };
        if map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {
            return Err(wrong());
        }
        match &found {
            SecretSource::File(text) | SecretSource::Env(text) if text.is_empty() => Err(wrong()),
            SecretSource::File(_) | SecretSource::Env(_) | SecretSource::Worker(_) => Ok(found),
        }
    }
}
