//! From the text of files to declarations.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_norway::Value;

use super::document::{EnvironmentDocument, GuardWord, StoreDocument};
use super::{EnvironmentDeclaration, Manifest, ManifestError, Place, StoreDeclaration, key_of};
use crate::names::InvalidName;
use crate::spec::{EnvironmentSpec, FieldViolation};
use crate::store_url::{Login, StoreUrl, TlsFiles};
use crate::time::duration_to_proto;
use crate::v1;

/// The text of one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text {
    /// What the file is called, in errors and where its secrets are looked for. A name in `.json` is read as JSON, one in
    /// `.yaml` or `.yml` as YAML, any other as JSON if it begins with a brace.
    pub file: String,
    /// What is in it.
    pub text: String,
}

/// A document whose parts are not read yet, so that an error can name the one that it is about.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Parts {
    #[serde(default)]
    stores: Vec<Value>,
    #[serde(default)]
    environments: Vec<Value>,
}

/// Reads files, in their order.
pub(super) fn read(texts: &[Text]) -> Result<Manifest, Vec<ManifestError>> {
    let mut reader = Reader::default();
    for Text { file, text } in texts {
        for (index, document) in documents(file, text).into_iter().enumerate() {
            let place = Place { file: file.clone(), document: index + 1, subject: String::new() };
            reader.document(&place, document);
        }
    }
    if reader.errors.is_empty() { Ok(reader.manifest) } else { Err(reader.errors) }
}

/// The documents of a text; an error ends them.
fn documents(file: &str, text: &str) -> Vec<Result<Value, String>> {
    let has = |ending: &str| file.to_ascii_lowercase().ends_with(ending);
    let is_yaml = has(".yaml") || has(".yml");
    if has(".json") || (!is_yaml && text.trim_start().starts_with('{')) {
        let documents = serde_json::Deserializer::from_str(text).into_iter::<Value>();
        return up_to_error(documents.map(|document| document.map_err(|error| error.to_string())));
    }
    up_to_error(serde_norway::Deserializer::from_str(text).map(|document| {
        let mut value = Value::deserialize(document).map_err(|error| error.to_string())?;
        value.apply_merge().map_err(|error| error.to_string())?;
        Ok(value)
    }))
}

fn up_to_error(documents: impl Iterator<Item = Result<Value, String>>) -> Vec<Result<Value, String>> {
    let mut all = Vec::new();
    for document in documents {
        let is_last = document.is_err();
        all.push(document);
        if is_last {
            break;
        }
    }
    all
}

#[derive(Default)]
struct Reader {
    manifest: Manifest,
    errors: Vec<ManifestError>,
    /// Where each name was said.
    said: BTreeMap<String, Place>,
}

impl Reader {
    fn document(&mut self, place: &Place, document: Result<Value, String>) {
        let parts = match document {
            // Nothing but comments.
            Ok(Value::Null) => return,
            Ok(value) => typed::<Parts>(value),
            Err(problem) => Err((String::new(), problem)),
        };
        match parts {
            Ok(Parts { stores, environments }) => {
                for (index, store) in stores.into_iter().enumerate() {
                    self.store(&place_of(place, "store", index, &store), store);
                }
                for (index, environment) in environments.into_iter().enumerate() {
                    self.environment(&place_of(place, "environment", index, &environment), environment);
                }
            }
            Err((key, problem)) => self.errors.push(ManifestError::new(place, &key, problem)),
        }
    }

    fn store(&mut self, place: &Place, value: Value) {
        match typed::<StoreDocument>(value) {
            Ok(document) => match check_store(document) {
                Ok((name, document)) => {
                    self.say(place);
                    self.manifest.stores.push(StoreDeclaration { place: place.clone(), name, document });
                }
                Err(FieldViolation { field, description }) => self.wrong(place, &field, description),
            },
            Err((key, problem)) => self.wrong(place, &key, problem),
        }
    }

    fn environment(&mut self, place: &Place, value: Value) {
        let document = match typed::<EnvironmentDocument>(value) {
            Ok(document) => document,
            Err((key, problem)) => return self.wrong(place, &key, problem),
        };
        let sdk_key = document.sdk_key.clone();
        match check_environment(&document) {
            Ok((name, spec)) => {
                if spec.is_file() && sdk_key.is_some() {
                    return self.wrong(place, "sdkKey", "a file source takes no SDK key; leave it out");
                }
                self.say(place);
                let place = place.clone();
                self.manifest.environments.push(EnvironmentDeclaration { place, name, spec, sdk_key });
            }
            Err(violations) => {
                for FieldViolation { field, description } in violations {
                    self.wrong(place, &key_of(&field), description);
                }
            }
        }
    }

    /// Notes where a name is said. A name that is said twice is an error.
    fn say(&mut self, place: &Place) {
        if let Some(before) = self.said.insert(place.subject.clone(), place.clone()) {
            let problem = format!("is said already in {}, document {}; say it once", before.file, before.document);
            self.wrong(place, "", problem);
        }
    }

    fn wrong(&mut self, place: &Place, key: &str, problem: impl Into<String>) {
        self.errors.push(ManifestError::new(place, key, problem));
    }
}

fn place_of(document: &Place, kind: &str, index: usize, value: &Value) -> Place {
    let name = value.get("name").and_then(Value::as_str);
    let subject = match name {
        Some(name) => format!("{kind} {:?}", name.chars().take(80).collect::<String>()),
        None => format!("{kind} number {}", index + 1),
    };
    Place { subject, ..document.clone() }
}

/// A part of a document, or the key that is wrong and what is wrong with it.
fn typed<T: DeserializeOwned>(value: Value) -> Result<T, (String, String)> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let path = error.path().to_string();
        (if path == "." { String::new() } else { path }, without_value(&error.into_inner().to_string()))
    })
}

/// An error about a value of a wrong type repeats it, and it may be a secret in the wrong place.
fn without_value(error: &str) -> String {
    match error.strip_prefix("invalid type: ").and_then(|rest| rest.rsplit_once(", expected ")) {
        Some((found, expected)) => {
            let kind = found.split(['"', '`']).next().unwrap_or_default().trim_end();
            format!("this is of type {kind}, expected {expected}")
        }
        None => error.to_owned(),
    }
}

fn check_store(document: StoreDocument) -> Result<(crate::StoreName, StoreDocument), FieldViolation> {
    let name =
        document.name.parse().map_err(|error: InvalidName| FieldViolation::new("name", &error.to_string()))?;
    let url = StoreUrl::parse("url", &document.url)?;
    if !url.login.password.is_empty() || !url.sentinel_login.password.is_empty() {
        let why = "a password is never written into the file; leave it out of the URL and say password: {file: PATH}, \
                   {env: VARIABLE} or {worker: REFERENCE}";
        return Err(FieldViolation::new("url", why));
    }
    let StoreDocument { tls_ca: ca, tls_cert: cert, tls_key: key, .. } = document.clone();
    url.with_access("url", Login::default(), Login::default(), TlsFiles { ca, cert, key })?;
    Ok((name, document))
}

fn check_environment(
    document: &EnvironmentDocument,
) -> Result<(crate::EnvironmentName, EnvironmentSpec), Vec<FieldViolation>> {
    let mut violations = Vec::new();
    let name = document.name.parse().map_err(|error: InvalidName| FieldViolation::new("name", &error.to_string()));
    let name = name.map_err(|violation| violations.push(violation)).ok();
    let source = source_of(document).map_err(|violation| violations.push(violation)).ok();
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let message = v1::EnvironmentSpec {
        display_name: text(&document.display_name),
        prefix: document.prefix.clone(),
        store: text(&document.store),
        source,
        filter: text(&document.filter),
        stream_uri: text(&document.stream_uri),
        base_uri: text(&document.base_uri),
        application_id: text(&document.application_id),
        application_version: text(&document.application_version),
        labels: document.labels.clone(),
        worker_selector: document.worker_selector.clone(),
        guard: match document.guard {
            None | Some(GuardWord::Confirm) => v1::GuardPolicy::Confirm.into(),
            Some(GuardWord::Off) => v1::GuardPolicy::Off.into(),
        },
    };
    let spec = EnvironmentSpec::parse(&message, "spec").map_err(|more| violations.extend(more)).ok();
    match (name, spec) {
        (Some(name), Some(spec)) if violations.is_empty() => Ok((name, spec)),
        _ => Err(violations),
    }
}

/// `stream`, `poll` or `file:PATH`, with the time that goes with it.
fn source_of(document: &EnvironmentDocument) -> Result<v1::Source, FieldViolation> {
    let duration = |key: &str, given: &Option<String>| match given.as_deref().map(humantime::parse_duration) {
        None => Ok(None),
        Some(Ok(duration)) => Ok(Some(duration)),
        Some(Err(error)) => {
            Err(FieldViolation::new(key, &format!("not a time ({error}); expected one such as 1m30s")))
        }
    };
    let delay = duration("initialRetryDelay", &document.initial_retry_delay)?;
    let interval = duration("pollInterval", &document.poll_interval)?;
    let source = document.source.as_deref().unwrap_or("stream");
    if delay.is_some() && source != "stream" {
        return Err(FieldViolation::new("initialRetryDelay", "goes with source: stream only"));
    }
    if interval.is_some() && source != "poll" {
        return Err(FieldViolation::new("pollInterval", "goes with source: poll only"));
    }
    let to_proto = |duration: Option<Duration>| duration.map(duration_to_proto);
    let kind = match source {
        "stream" => v1::source::Kind::Stream(v1::StreamSource { initial_retry_delay: to_proto(delay) }),
        "poll" => v1::source::Kind::Poll(v1::PollSource { interval: to_proto(interval) }),
        other => {
            let Some(path) = other.strip_prefix("file:") else {
                let shown: String = other.chars().take(80).collect();
                let why = format!("{shown:?} is no source; expected stream, poll or file:PATH");
                return Err(FieldViolation::new("source", &why));
            };
            v1::source::Kind::File(v1::FileSource { path: path.to_owned() })
        }
    };
    Ok(v1::Source { kind: Some(kind) })
}
