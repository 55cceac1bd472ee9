//! Environments.

use std::collections::BTreeMap;

use flotilla_proto::status::ErrorKind;
use flotilla_proto::time::duration_from_proto;
use flotilla_proto::v1;
use serde::Serialize;

use super::{some, time};
use crate::wait::{state_word, truth_word};
use flotilla_proto::time::duration_text;

/// An environment.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct EnvironmentDocument {
    /// Its name.
    pub(crate) name: String,
    display_name: Option<String>,
    uid: String,
    prefix: String,
    store: String,
    /// `stream`, `poll` or `file:PATH`.
    source: String,
    filter: Option<String>,
    labels: BTreeMap<String, String>,
    paused: bool,
    sdk_key_masked: Option<String>,
    initialization: &'static str,
    worker: Option<String>,
    epoch: Option<u64>,
    generation: u64,
    etag: String,
    conditions: Vec<ConditionDocument>,
    /// `None`, as the two below: no worker has reported yet.
    flags: Option<u64>,
    segments: Option<u64>,
    bytes: Option<u64>,
    last_event_time: Option<String>,
    last_byte_time: Option<String>,
    last_heartbeat_time: Option<String>,
    last_write_time: Option<String>,
    last_error: Option<LastErrorDocument>,
    create_time: Option<String>,
    update_time: Option<String>,
    removing: bool,
    stream_uri: Option<String>,
    base_uri: Option<String>,
    initial_retry_delay: Option<String>,
    poll_interval: Option<String>,
    application_id: Option<String>,
    application_version: Option<String>,
    worker_selector: BTreeMap<String, String>,
    guard: &'static str,
}

/// All environments.
#[derive(Debug, Serialize)]
pub(crate) struct EnvironmentsDocument {
    /// Ordered by name.
    pub(crate) environments: Vec<EnvironmentDocument>,
}

/// An environment that is going, gone, or out of a watch's sight: what `env remove` and a watch tell.
#[derive(Debug, Serialize)]
pub(crate) struct RemovedDocument {
    /// Its name.
    pub(crate) name: String,
    /// Its uid, where it is known.
    pub(crate) uid: Option<String>,
    /// Whether it is gone. Otherwise its removal is under way or, in a watch, it no longer matches.
    pub(crate) removed: bool,
    /// Only in a watch, and false there: it no longer matches what is watched.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) matches: Option<bool>,
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct ConditionDocument {
    r#type: String,
    status: &'static str,
    reason: String,
    message: String,
    observed_generation: u64,
    last_transition_time: Option<String>,
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct LastErrorDocument {
    kind: Option<&'static str>,
    status: Option<u32>,
    message: String,
    time: Option<String>,
}

impl From<&v1::Environment> for EnvironmentDocument {
    fn from(environment: &v1::Environment) -> Self {
        let spec = environment.spec.clone().unwrap_or_default();
        let status = environment.status.clone().unwrap_or_default();
        let kind = spec.source.as_ref().and_then(|source| source.kind.as_ref());
        let (initial_retry_delay, poll_interval) = match kind {
            Some(v1::source::Kind::Stream(stream)) => (duration(stream.initial_retry_delay.as_ref()), None),
            Some(v1::source::Kind::Poll(poll)) => (None, duration(poll.interval.as_ref())),
            Some(v1::source::Kind::File(_)) | None => (None, None),
        };
        Self {
            name: environment.name.clone(),
            display_name: some(&spec.display_name),
            uid: environment.uid.clone(),
            prefix: spec.prefix.clone(),
            store: spec.store.clone(),
            source: source_text(spec.source.as_ref()),
            filter: some(&spec.filter),
            guard: guard_text(spec.guard()),
            labels: spec.labels,
            paused: environment.paused,
            sdk_key_masked: some(&environment.sdk_key_masked),
            initialization: state_word(status.initialization()),
            worker: some(&status.worker),
            epoch: (status.epoch != 0).then_some(status.epoch),
            generation: environment.generation,
            etag: environment.etag.clone(),
            conditions: status.conditions.iter().map(Into::into).collect(),
            flags: status.flags,
            segments: status.segments,
            bytes: status.bytes,
            last_event_time: time(status.last_event_time.as_ref()),
            last_byte_time: time(status.last_byte_time.as_ref()),
            last_heartbeat_time: time(status.last_heartbeat_time.as_ref()),
            last_write_time: time(status.last_write_time.as_ref()),
            last_error: status.last_error.as_ref().map(Into::into),
            create_time: time(environment.create_time.as_ref()),
            update_time: time(environment.update_time.as_ref()),
            removing: environment.removing,
            stream_uri: some(&spec.stream_uri),
            base_uri: some(&spec.base_uri),
            initial_retry_delay,
            poll_interval,
            application_id: some(&spec.application_id),
            application_version: some(&spec.application_version),
            worker_selector: spec.worker_selector,
        }
    }
}

impl From<&v1::Condition> for ConditionDocument {
    fn from(condition: &v1::Condition) -> Self {
        Self {
            r#type: condition.r#type.clone(),
            status: truth_word(condition.status()),
            reason: condition.reason.clone(),
            message: condition.message.clone(),
            observed_generation: condition.observed_generation,
            last_transition_time: time(condition.last_transition_time.as_ref()),
        }
    }
}

impl From<&v1::LastError> for LastErrorDocument {
    fn from(error: &v1::LastError) -> Self {
        Self {
            kind: ErrorKind::from_proto(error.kind()).map(ErrorKind::as_str),
            status: (error.status != 0).then_some(error.status),
            message: error.message.clone(),
            time: time(error.time.as_ref()),
        }
    }
}

/// A duration as people write it.
pub(crate) fn duration(message: Option<&prost_types::Duration>) -> Option<String> {
    let duration = duration_from_proto(message?)?;
    Some(duration_text(duration))
}

/// The source as `--source` takes it.
pub(crate) fn source_text(source: Option<&v1::Source>) -> String {
    match source.and_then(|source| source.kind.as_ref()) {
        None | Some(v1::source::Kind::Stream(_)) => "stream".to_owned(),
        Some(v1::source::Kind::Poll(_)) => "poll".to_owned(),
        Some(v1::source::Kind::File(file)) => format!("file:{}", file.path),
    }
}

/// The guard as `--guard` takes it.
pub(crate) fn guard_text(guard: v1::GuardPolicy) -> &'static str {
    match guard {
        v1::GuardPolicy::Unspecified | v1::GuardPolicy::Confirm => "confirm",
        v1::GuardPolicy::Off => "off",
    }
}
