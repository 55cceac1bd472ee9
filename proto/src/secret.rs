//! Values that are never printed. Their `Debug` shows a mask, they have no `Display` and no `Serialize`.

use std::fmt;

use zeroize::Zeroizing;

use crate::spec::FieldViolation;

/// A LaunchDarkly SDK key: 1 to 8192 characters of `[A-Za-z0-9._-]`. Wiped from memory when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct SdkKey(Zeroizing<String>);

impl SdkKey {
    /// Checks and takes a key. The violation never shows it.
    pub fn parse(field: &'static str, text: &str) -> Result<Self, FieldViolation> {
        let text = text.trim_end_matches(['\r', '\n']);
        let wrong = |message: &str| Err(FieldViolation::new(field, message));
        if text.is_empty() {
            return wrong("the SDK key is empty; copy it from the environment's settings in LaunchDarkly");
        }
        if text.contains('*') {
            return wrong("this is a masked SDK key (it contains '*'); give the key itself");
        }
        if text.len() > 8192 {
            return wrong("the SDK key is longer than 8192 characters");
        }
        if !text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte)) {
            return wrong("the SDK key holds characters other than A-Z, a-z, 0-9, '.', '_' and '-'");
        }
        Ok(Self(Zeroizing::new(text.to_owned())))
    }

    /// The key itself, for the wire and the store of control only.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// The key as it may be shown: `sdk-` and a UUID keep their last five characters, anything else is hidden whole.
    pub fn masked(&self) -> String {
        match self.0.strip_prefix("sdk-") {
            Some(uuid) if is_uuid(uuid) => format!("sdk-********-****-****-****-*******{}", &uuid[31..]),
            Some(_) | None => "********".to_owned(),
        }
    }
}

fn is_uuid(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

impl fmt::Debug for SdkKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.masked())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uuid_key_keeps_its_last_five_characters() {
        let key = SdkKey::parse("sdk_key", "sdk-01234567-89ab-cdef-0123-456789a99999").unwrap();
        assert_eq!(key.masked(), "sdk-********-****-****-****-*******99999");
        assert_eq!(format!("{key:?}"), "sdk-********-****-****-****-*******99999");
        assert_eq!(SdkKey::parse("sdk_key", "sdk-short").unwrap().masked(), "********");
    }

    #[test]
    fn wrong_keys_are_refused_without_being_shown() {
        for bad in ["", "sdk-****", "sdk key", &"k".repeat(8193)] {
            let violation = SdkKey::parse("sdk_key", bad).unwrap_err();
            assert!(bad.is_empty() || !violation.to_string().contains(bad));
        }
    }
}
