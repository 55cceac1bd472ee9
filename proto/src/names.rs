//! Identifiers, each with its own type, so that none is taken for another.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A text that is not a valid identifier: what was asked for, and what is allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{value:?} is not a valid {what}: {allowed}")]
pub struct InvalidName {
    what: &'static str,
    value: String,
    allowed: &'static str,
}

impl InvalidName {
    fn new(what: &'static str, value: &str, allowed: &'static str) -> Self {
        // A wrong value is shown, but a page of it helps nobody.
        let value = if value.chars().count() > 80 {
            value.chars().take(77).chain("...".chars()).collect()
        } else {
            value.into()
        };
        Self { what, value, allowed }
    }

    /// What is allowed, without the value.
    pub fn allowed(&self) -> &'static str {
        self.allowed
    }
}

const NAME_RULE: &str =
    "1 to 63 characters of a-z, 0-9, '.', '_' and '-', the first and the last a letter or digit";

fn is_name(text: &str) -> bool {
    let edge = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = text.as_bytes();
    matches!(bytes, [first, .., last] if edge(*first) && edge(*last))
        && bytes.len() <= 63
        && bytes.iter().all(|byte| edge(*byte) || b"._-".contains(byte))
        || matches!(bytes, [only] if edge(*only))
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $what:literal, $rule:expr, $valid:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Box<str>);

        impl $name {
            /// The identifier as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidName;

            fn from_str(text: &str) -> Result<Self, InvalidName> {
                let valid: fn(&str) -> bool = $valid;
                if valid(text) { Ok(Self(text.into())) } else { Err(InvalidName::new($what, text, $rule)) }
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidName;

            fn try_from(text: String) -> Result<Self, InvalidName> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.0.into()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
    };
}

const ID_RULE: &str = "1 to 64 characters of A-Z, a-z, 0-9 and '-'";

fn is_id(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

const LABEL_VALUE_RULE: &str = "1 to 63 characters of A-Z, a-z, 0-9, '.', '_' and '-'";

/// Whether a label may have this value; it may be empty.
pub(crate) fn is_label_value(text: &str) -> bool {
    text.len() <= 63 && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

text_id!(
    /// Name of an environment: `[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?`, given by the user, immutable.
    EnvironmentName, "environment name", NAME_RULE, is_name
);
text_id!(
    /// Name of a worker, format as an environment's.
    WorkerName, "worker name", NAME_RULE, is_name
);
text_id!(
    /// Name of a store, format as an environment's.
    StoreName, "store name", NAME_RULE, is_name
);
text_id!(
    /// Identity of a fleet, made at control's first start.
    FleetId, "fleet id", ID_RULE, is_id
);
text_id!(
    /// Tells an environment from an earlier or later one of the same name.
    Uid, "uid", ID_RULE, is_id
);
text_id!(
    /// Key prefix of an environment in its store: 1 to 256 bytes of 0x21–0x7E, without `:$flotilla` and `:big_segment`.
    Prefix, "prefix",
    "1 to 256 printable ASCII characters without spaces, and without ':$flotilla' and ':big_segment'",
    |text| (1..=256).contains(&text.len())
        && text.bytes().all(|byte| (0x21..=0x7e).contains(&byte))
        && !text.contains(":$flotilla")
        && !text.contains(":big_segment")
);

text_id!(
    /// A value of the label `managed-by`: who looks after an environment.
    ManagerName, "value of the label managed-by", LABEL_VALUE_RULE,
    |text| !text.is_empty() && is_label_value(text)
);

impl StoreName {
    /// The store that every fleet has: `default`.
    pub fn default_store() -> Self {
        Self("default".into())
    }
}

macro_rules! counter {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl $name {
            /// The next one.
            #[must_use]
            pub fn next(self) -> Self {
                Self(self.0 + 1)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    };
}

pub(crate) use counter;

counter!(
    /// Counts the changes of one environment's spec, from 1.
    Generation
);
counter!(
    /// Counts the starts of control over one database, from 1.
    Term
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_rule() {
        for good in ["a", "a1", "spree-production", "a.b_c-d", &"x".repeat(63)] {
            assert!(good.parse::<EnvironmentName>().is_ok(), "{good}");
        }
        for bad in ["", "A", "-a", "a-", "a b", "a\n", "é", &"x".repeat(64)] {
            assert!(bad.parse::<EnvironmentName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn prefixes_keep_clear_of_our_own_keys() {
        for good in ["a", "a:b", "ld:spree:production", "{5f1}", &"p".repeat(256)] {
            assert!(good.parse::<Prefix>().is_ok(), "{good}");
        }
        for bad in ["", "a b", "a\u{7f}", "a:$flotilla", "x:$flotilla:stage", "x:big_segments", &"p".repeat(257)] {
            assert!(bad.parse::<Prefix>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_long_wrong_value_is_cut_in_the_message() {
        let error = "X".repeat(5000).parse::<EnvironmentName>().unwrap_err();
        assert!(error.to_string().len() < 300);
    }
}
