//! Values that are never printed. Their `Debug` shows a mask, they have no `Display` and no `Serialize`.

use std::fmt;

use url::Url;
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

/// The URL of a store, which may hold a password.
#[derive(Clone, PartialEq, Eq)]
pub struct StoreUrl(Url);

/// The address and database that a store URL means, however it is written.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StoreEndpoint(String);

impl fmt::Display for StoreEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl StoreUrl {
    /// Takes `redis://`, `rediss://` and `redis+unix://` URLs.
    pub fn parse(field: &'static str, text: &str) -> Result<Self, FieldViolation> {
        let wrong = |message: String| Err(FieldViolation::new(field, &message));
        // The parser's error never repeats its input, so a password stays hidden.
        let url = match Url::parse(text) {
            Ok(url) => url,
            Err(error) => {
                return wrong(format!(
                    "not a valid store URL: {error}; expected redis://[USER:PASSWORD@]HOST[:PORT][/DB]"
                ));
            }
        };
        match url.scheme() {
            "redis" | "rediss" if url.host_str().is_none_or(str::is_empty) => {
                return wrong("the store URL has no host; expected redis://HOST[:PORT][/DB]".to_owned());
            }
            "redis" | "rediss" => {
                let database = url.path().trim_start_matches('/');
                if !database.is_empty() && database.parse::<u16>().is_err() {
                    return wrong(format!(
                        "{database:?} is not a database number; expected redis://HOST[:PORT][/DB]"
                    ));
                }
            }
            "redis+unix" | "unix" => {}
            scheme => {
                return wrong(format!(
                    "store URLs of scheme {scheme:?} are not supported; use redis://, rediss:// or redis+unix://"
                ));
            }
        }
        Ok(Self(url))
    }

    /// The whole URL, password included, for a client only.
    pub fn expose(&self) -> &str {
        self.0.as_str()
    }

    /// The URL without user and password. Of a query, which holds them in URLs of Unix sockets, the database stays.
    pub fn redacted(&self) -> String {
        let mut url = self.0.clone();
        let database =
            self.0.query_pairs().find(|(key, _)| key == "db").and_then(|(_, value)| value.parse::<u16>().ok());
        url.set_query(database.map(|database| format!("db={database}")).as_deref());
        url.set_fragment(None);
        // Setting fails only for URLs that cannot hold them, and then there is nothing to hide.
        let _ = url.set_username("");
        let _ = url.set_password(None);
        url.into()
    }

    /// Where it leads: two URLs with equal endpoints are the same store.
    pub fn endpoint(&self) -> StoreEndpoint {
        if matches!(self.0.scheme(), "redis+unix" | "unix") {
            let database = self.0.query_pairs().find(|(key, _)| key == "db").map_or("0".into(), |(_, value)| value);
            return StoreEndpoint(format!("unix:{}/{database}", self.0.path()));
        }
        let host = match self.0.host_str().unwrap_or_default().to_ascii_lowercase().as_str() {
            "localhost" | "127.0.0.1" | "[::1]" | "::1" => "localhost".to_owned(),
            other => other.trim_end_matches('.').to_owned(),
        };
        let database = self.0.path().trim_start_matches('/').trim_start_matches('0');
        let database = if database.is_empty() { "0" } else { database };
        StoreEndpoint(format!("{host}:{}/{database}", self.0.port().unwrap_or(6379)))
    }
}

impl fmt::Debug for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.redacted())
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

    #[test]
    fn urls_of_the_same_store_have_the_same_endpoint() {
        let endpoint = |url| StoreUrl::parse("url", url).unwrap().endpoint();
        for same in ["redis://localhost", "redis://127.0.0.1:6379/0", "redis://u:p@LOCALHOST/", "rediss://[::1]"] {
            assert_eq!(endpoint(same), endpoint("redis://127.0.0.1"), "{same}");
        }
        assert_ne!(endpoint("redis://localhost/1"), endpoint("redis://localhost"));
        assert_ne!(endpoint("redis://localhost:6380"), endpoint("redis://localhost"));
    }

    #[test]
    fn a_password_is_not_shown() {
        let url = StoreUrl::parse("url", "redis://user:hunter2@example.test:1/3").unwrap();
        assert!(!format!("{url:?}").contains("hunter2"));
        let violation = StoreUrl::parse("url", "redis://user:hunter2@example.test:1/x3").unwrap_err();
        assert!(!violation.to_string().contains("hunter2"));
    }

    #[test]
    fn a_password_in_a_query_or_fragment_is_not_shown() {
        for (url, shown) in [
            ("redis+unix:///run/redis.sock?user=u&pass=hunter2", "redis+unix:///run/redis.sock"),
            ("redis+unix:///run/redis.sock?db=3&pass=hunter2#hunter2", "redis+unix:///run/redis.sock?db=3"),
            ("unix:///run/redis.sock?pass=x&db=hunter2", "unix:///run/redis.sock"),
            ("redis://example.test/1?pass=hunter2", "redis://example.test/1"),
        ] {
            assert_eq!(StoreUrl::parse("url", url).unwrap().redacted(), shown);
        }
    }
}
