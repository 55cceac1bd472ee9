//! What users say about an environment, checked once.

// In what two differ, field by field.
mod difference;

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use url::{Host, Url};

pub use difference::FieldDifference;

use crate::names::{Prefix, StoreName, is_label_value};
use crate::time::{duration_from_proto, duration_to_proto};
use crate::v1;

/// A field that is wrong: which one, and what is wrong with it and how to mend it. Never holds a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {description}")]
pub struct FieldViolation {
    /// Path of the field in its request, as in the `.proto`.
    pub field: String,
    /// What is wrong, and what is allowed.
    pub description: String,
}

impl FieldViolation {
    /// A violation of `field`.
    pub fn new(field: &str, description: &str) -> Self {
        Self { field: field.to_owned(), description: description.to_owned() }
    }
}

/// Labels, by key.
pub type Labels = BTreeMap<String, String>;

/// Where an environment's flag data comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// LaunchDarkly's stream.
    Stream {
        /// Delay before the first reconnect, 100 ms to 30 s.
        initial_retry_delay: Duration,
    },
    /// LaunchDarkly's polling endpoint.
    Poll {
        /// Time between polls, at least 30 s but for loopback base URIs.
        interval: Duration,
    },
    /// A flag-data file below the workers' `--file-source-dir`.
    File {
        /// Relative path.
        path: String,
    },
}

/// What a payload that would remove more than half of the items meets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Guard {
    /// Held until a second full payload over a second connection says the same.
    #[default]
    Confirm,
    /// Applied at once.
    Off,
}

/// What users say about an environment. It never holds a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnvironmentSpec {
    /// Free text for people.
    pub display_name: String,
    /// Key prefix in the store. Immutable.
    pub prefix: Prefix,
    /// The store. Immutable.
    pub store: StoreName,
    /// Where the data comes from.
    pub source: Source,
    /// LaunchDarkly payload filter.
    pub filter: Option<String>,
    /// Base of the streaming service; `None`: the fleet's default.
    pub stream_uri: Option<Url>,
    /// Base of the polling service; `None`: the fleet's default.
    pub base_uri: Option<Url>,
    /// `application-id` of the upstream requests.
    pub application_id: Option<String>,
    /// `application-version` of the upstream requests.
    pub application_version: Option<String>,
    /// Labels for selection.
    pub labels: Labels,
    /// Labels that a worker must carry to own the environment.
    pub worker_selector: Labels,
    /// The policy for payloads that remove much.
    pub guard: Guard,
}

/// The default delay before the first reconnect of a stream.
pub const DEFAULT_INITIAL_RETRY_DELAY: Duration = Duration::from_secs(1);
/// The default, and away from loopback the shortest, time between polls.
pub const DEFAULT_POLL_INTERVAL: Duration = Duration::from_secs(30);

impl EnvironmentSpec {
    /// Checks a message; `at` is the path of the spec in its request ("spec"). All violations are returned, not the first only.
    pub fn parse(message: &v1::EnvironmentSpec, at: &str) -> Result<Self, Vec<FieldViolation>> {
        let mut check = Check { at, violations: Vec::new() };
        check.rule(
            "display_name",
            &message.display_name,
            "at most 256 characters, without control characters",
            |text| text.chars().count() <= 256 && !text.chars().any(char::is_control),
        );
        let prefix = check.parse::<Prefix>("prefix", &message.prefix);
        let store = if message.store.is_empty() {
            Some(StoreName::default_store())
        } else {
            check.parse("store", &message.store)
        };
        let stream_uri = check.uri("stream_uri", &message.stream_uri);
        let base_uri = check.uri("base_uri", &message.base_uri);
        let source = check.source(message.source.as_ref(), base_uri.as_ref());
        let filter = check.token("filter", &message.filter, 256);
        let application_id = check.token("application_id", &message.application_id, 64);
        let application_version = check.token("application_version", &message.application_version, 64);
        check.labels("labels", &message.labels);
        check.labels("worker_selector", &message.worker_selector);
        let guard = match message.guard() {
            v1::GuardPolicy::Unspecified | v1::GuardPolicy::Confirm => Guard::Confirm,
            v1::GuardPolicy::Off => Guard::Off,
        };
        match (prefix, store, source, check.violations) {
            (Some(prefix), Some(store), Some(source), violations) if violations.is_empty() => Ok(Self {
                display_name: message.display_name.clone(),
                prefix,
                store,
                source,
                filter,
                stream_uri,
                base_uri,
                application_id,
                application_version,
                labels: message.labels.clone(),
                worker_selector: message.worker_selector.clone(),
                guard,
            }),
            (_, _, _, violations) => Err(violations),
        }
    }

    /// Whether the source is a file, which takes no SDK key.
    pub fn is_file(&self) -> bool {
        matches!(self.source, Source::File { .. })
    }
}

impl From<&EnvironmentSpec> for v1::EnvironmentSpec {
    fn from(spec: &EnvironmentSpec) -> Self {
        let uri = |uri: &Option<Url>| {
            uri.as_ref().map(|uri| uri.as_str().trim_end_matches('/').to_owned()).unwrap_or_default()
        };
        Self {
            display_name: spec.display_name.clone(),
            prefix: spec.prefix.to_string(),
            store: spec.store.to_string(),
            source: Some(v1::Source::from(&spec.source)),
            filter: spec.filter.clone().unwrap_or_default(),
            stream_uri: uri(&spec.stream_uri),
            base_uri: uri(&spec.base_uri),
            application_id: spec.application_id.clone().unwrap_or_default(),
            application_version: spec.application_version.clone().unwrap_or_default(),
            labels: spec.labels.clone(),
            worker_selector: spec.worker_selector.clone(),
            guard: match spec.guard {
                Guard::Confirm => v1::GuardPolicy::Confirm.into(),
                Guard::Off => v1::GuardPolicy::Off.into(),
            },
        }
    }
}

impl From<&Source> for v1::Source {
    fn from(source: &Source) -> Self {
        let kind = match source {
            Source::Stream { initial_retry_delay } => v1::source::Kind::Stream(v1::StreamSource {
                initial_retry_delay: Some(duration_to_proto(*initial_retry_delay)),
            }),
            Source::Poll { interval } => {
                v1::source::Kind::Poll(v1::PollSource { interval: Some(duration_to_proto(*interval)) })
            }
            Source::File { path } => v1::source::Kind::File(v1::FileSource { path: path.clone() }),
        };
        Self { kind: Some(kind) }
    }
}

/// Whether a URL leads to this machine only. For a name below `localhost` a resolver may ask the network.
pub fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => IpAddr::V4(address).is_loopback(),
        Some(Host::Ipv6(address)) => IpAddr::V6(address).is_loopback(),
        None => false,
    }
}

/// Checks the base URI of a LaunchDarkly service: http(s), plain http to loopback only, no query, no user.
pub fn parse_service_uri(field: &str, text: &str) -> Result<Url, FieldViolation> {
    let wrong = |message: String| FieldViolation::new(field, &message);
    let url = Url::parse(text)
        .map_err(|error| wrong(format!("not a valid URL: {error}; expected https://HOST[:PORT]")))?;
    if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
        return Err(wrong(format!(
            "URLs of scheme {:?} are not supported; expected https://HOST[:PORT]",
            url.scheme()
        )));
    }
    if url.query().is_some() || url.fragment().is_some() || !url.username().is_empty() || url.password().is_some() {
        return Err(wrong("must not have a user, a query or a fragment; expected https://HOST[:PORT]".to_owned()));
    }
    if url.scheme() == "http" && !is_loopback(&url) {
        return Err(wrong(
            "plain http is accepted only to loopback, because the SDK key would travel readably; use https"
                .to_owned(),
        ));
    }
    Ok(url)
}

/// Collects violations while a message is read.
struct Check<'a> {
    at: &'a str,
    violations: Vec<FieldViolation>,
}

impl Check<'_> {
    fn wrong(&mut self, field: &str, description: impl fmt::Display) {
        self.violations.push(FieldViolation::new(&format!("{}.{field}", self.at), &description.to_string()));
    }

    fn rule(&mut self, field: &str, text: &str, allowed: &str, valid: impl Fn(&str) -> bool) {
        if !valid(text) {
            let shown: String = text.chars().take(80).collect();
            self.wrong(field, format_args!("{shown:?} is not valid: {allowed}"));
        }
    }

    fn parse<T: std::str::FromStr<Err = crate::InvalidName>>(&mut self, field: &str, text: &str) -> Option<T> {
        text.parse().map_err(|error| self.wrong(field, error)).ok()
    }

    fn token(&mut self, field: &str, text: &str, longest: usize) -> Option<String> {
        if text.is_empty() {
            return None;
        }
        self.rule(field, text, &format!("1 to {longest} characters of A-Z, a-z, 0-9, '.', '_' and '-'"), |text| {
            text.len() <= longest && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
        });
        Some(text.to_owned())
    }

    fn uri(&mut self, field: &str, text: &str) -> Option<Url> {
        if text.is_empty() {
            return None;
        }
        // What stands before an '@' may be a password.
        let shown: String = text.rsplit('@').next().unwrap_or_default().chars().take(80).collect();
        parse_service_uri(field, text)
            .map_err(|violation| self.wrong(field, format_args!("{shown:?}: {}", violation.description)))
            .ok()
    }

    fn source(&mut self, message: Option<&v1::Source>, base_uri: Option<&Url>) -> Option<Source> {
        match message.and_then(|source| source.kind.as_ref()) {
            None => Some(Source::Stream { initial_retry_delay: DEFAULT_INITIAL_RETRY_DELAY }),
            Some(v1::source::Kind::Stream(stream)) => {
                let limits = Duration::from_millis(100)..=Duration::from_secs(30);
                let given = stream.initial_retry_delay.as_ref();
                self.duration(
                    "source.stream.initial_retry_delay",
                    given,
                    DEFAULT_INITIAL_RETRY_DELAY,
                    &limits,
                    "100ms to 30s",
                )
                .map(|initial_retry_delay| Source::Stream { initial_retry_delay })
            }
            Some(v1::source::Kind::Poll(poll)) => {
                let (shortest, allowed) = if base_uri.is_some_and(is_loopback) {
                    (Duration::from_millis(100), "100ms to 24h")
                } else {
                    (DEFAULT_POLL_INTERVAL, "30s to 24h (shorter only with a loopback base URI)")
                };
                let limits = shortest..=Duration::from_hours(24);
                self.duration(
                    "source.poll.interval",
                    poll.interval.as_ref(),
                    DEFAULT_POLL_INTERVAL,
                    &limits,
                    allowed,
                )
                .map(|interval| Source::Poll { interval })
            }
            Some(v1::source::Kind::File(file)) => {
                let leaves = file.path.starts_with('/') || file.path.split('/').any(|part| part == "..");
                self.rule(
                    "source.file.path",
                    &file.path,
                    "a relative path of 1 to 1024 characters that stays in its directory",
                    |path| (1..=1024).contains(&path.len()) && !leaves && !path.chars().any(char::is_control),
                );
                Some(Source::File { path: file.path.clone() })
            }
        }
    }

    fn duration(
        &mut self,
        field: &str,
        given: Option<&prost_types::Duration>,
        default: Duration,
        limits: &std::ops::RangeInclusive<Duration>,
        allowed: &str,
    ) -> Option<Duration> {
        let Some(given) = given else { return Some(default) };
        let duration = duration_from_proto(given);
        let within = duration.filter(|duration| limits.contains(duration));
        match (duration, within) {
            (_, Some(_)) => {}
            (Some(given), None) => self.wrong(field, format_args!("{given:?} is out of range: {allowed}")),
            (None, None) => self.wrong(field, format_args!("a negative time is out of range: {allowed}")),
        }
        within
    }

    fn labels(&mut self, field: &str, labels: &Labels) {
        // A key is as a value, but that it may hold slashes and not be empty.
        let is_key = |text: &str| !text.is_empty() && is_label_value(&text.replace('/', "-"));
        if labels.len() > 64 {
            self.wrong(field, "at most 64 labels");
        }
        for (key, value) in labels {
            if !is_key(key) || !is_label_value(value) {
                let shown: String = format!("{key}={value}").chars().take(130).collect();
                let allowed = "keys are 1 to 63 characters of A-Z, a-z, 0-9, '.', '_', '/' and '-', values up to 63 of the same without '/'";
                self.wrong(field, format_args!("{shown:?} is not a valid label: {allowed}"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message() -> v1::EnvironmentSpec {
        v1::EnvironmentSpec { prefix: "ld:spree".to_owned(), ..Default::default() }
    }

    #[test]
    fn defaults_are_filled_in() {
        let spec = EnvironmentSpec::parse(&message(), "spec").unwrap();
        assert_eq!(spec.store, StoreName::default_store());
        assert_eq!(spec.source, Source::Stream { initial_retry_delay: DEFAULT_INITIAL_RETRY_DELAY });
    }

    #[test]
    fn a_spec_survives_the_round_trip() {
        let mut message = message();
        message.stream_uri = "http://127.0.0.1:8030".to_owned();
        message.labels.insert("team".to_owned(), "checkout".to_owned());
        let spec = EnvironmentSpec::parse(&message, "spec").unwrap();
        assert_eq!(EnvironmentSpec::parse(&v1::EnvironmentSpec::from(&spec), "spec").unwrap(), spec);
    }

    #[test]
    fn every_violation_is_named() {
        let message = v1::EnvironmentSpec {
            display_name: "a\nb".to_owned(),
            prefix: String::new(),
            stream_uri: "http://example.com".to_owned(),
            base_uri: "ftp://localhost".to_owned(),
            ..Default::default()
        };
        let fields: Vec<_> =
            EnvironmentSpec::parse(&message, "spec").unwrap_err().into_iter().map(|v| v.field).collect();
        assert_eq!(fields, ["spec.display_name", "spec.prefix", "spec.stream_uri", "spec.base_uri"]);
    }

    #[test]
    fn short_polls_need_a_loopback_base() {
        let mut message = message();
        let interval = Some(duration_to_proto(Duration::from_secs(1)));
        message.source = Some(v1::Source { kind: Some(v1::source::Kind::Poll(v1::PollSource { interval })) });
        assert!(EnvironmentSpec::parse(&message, "spec").is_err());
        message.base_uri = "http://localhost:1".to_owned();
        assert!(EnvironmentSpec::parse(&message, "spec").is_ok());
    }

    #[test]
    fn a_file_source_stays_in_its_directory() {
        let mut message = message();
        for path in ["/etc/passwd", "../x", "a/../../x", ""] {
            message.source =
                Some(v1::Source { kind: Some(v1::source::Kind::File(v1::FileSource { path: path.to_owned() })) });
            assert!(EnvironmentSpec::parse(&message, "spec").is_err(), "{path}");
        }
    }
}
