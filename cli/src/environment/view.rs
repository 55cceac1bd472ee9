//! Environments as tables and as pairs of name and value. No I/O.

use flotilla_proto::Timestamp;
use flotilla_proto::client::Departure;
use flotilla_proto::v1::{Environment, EnvironmentStatus, source::Kind};

use crate::output::Width;
use crate::output::document::{duration, guard_text, source_text};
use crate::output::table::{Align, columns, indented, pairs};
use crate::output::text::{age, ago, count, labels, or_dash, rfc3339, size};
use crate::wait::{state_word, truth_word};

const NORMAL: [(&str, Align); 8] = [
    ("name", Align::Left),
    ("state", Align::Left),
    ("worker", Align::Left),
    ("flags", Align::Right),
    ("segments", Align::Right),
    ("last byte", Align::Right),
    ("age", Align::Right),
    ("prefix", Align::Left),
];
const MORE: [(&str, Align); 8] = [
    ("store", Align::Left),
    ("source", Align::Left),
    ("size", Align::Right),
    ("epoch", Align::Right),
    ("generation", Align::Right),
    ("sdk key", Align::Left),
    ("labels", Align::Left),
    ("display name", Align::Left),
];

/// The columns of a list.
pub(crate) fn headers(width: Width) -> Vec<(&'static str, Align)> {
    match width {
        Width::Normal => NORMAL.to_vec(),
        Width::Wide => NORMAL.into_iter().chain(MORE).collect(),
    }
}

/// The row of an environment in a list.
pub(crate) fn row(environment: &Environment, now: Timestamp, width: Width) -> Vec<String> {
    let status = environment.status.clone().unwrap_or_default();
    let spec = environment.spec.clone().unwrap_or_default();
    let mut row = vec![
        environment.name.clone(),
        state(environment),
        or_dash(&status.worker),
        number(status.flags),
        number(status.segments),
        age(now, status.last_byte_time.as_ref()),
        age(now, environment.create_time.as_ref()),
        spec.prefix,
    ];
    match width {
        Width::Normal => {}
        Width::Wide => row.extend([
            spec.store,
            source_text(spec.source.as_ref()),
            status.bytes.map_or_else(|| "-".to_owned(), size),
            epoch(status.epoch),
            environment.generation.to_string(),
            or_dash(&environment.sdk_key_masked),
            labels(&spec.labels),
            or_dash(&spec.display_name),
        ]),
    }
    row
}

/// The row of an environment that is gone, or no longer matches what is watched.
pub(crate) fn removed_row(name: &str, departure: Departure, width: Width) -> Vec<String> {
    let mut row = vec!["-".to_owned(); headers(width).len()];
    name.clone_into(&mut row[0]);
    match departure {
        Departure::Gone => "removed",
        Departure::Unmatched => "no longer matches",
    }
    .clone_into(&mut row[1]);
    row
}

/// What a worker holds: `4 flags, 1 segment, 3.7 KiB`; `-` when none has reported yet.
pub(crate) fn data(status: &EnvironmentStatus) -> String {
    match (status.flags, status.segments, status.bytes) {
        (None, None, None) => "-".to_owned(),
        (flags, segments, bytes) => format!(
            "{}, {}, {}",
            count(flags.unwrap_or_default(), "flag"),
            count(segments.unwrap_or_default(), "segment"),
            size(bytes.unwrap_or_default())
        ),
    }
}

/// A list.
pub(crate) fn list(environments: &[Environment], now: Timestamp, width: Width) -> String {
    let rows: Vec<_> = environments.iter().map(|environment| row(environment, now, width)).collect();
    columns(&headers(width), &rows)
}

/// The state in a word, with what a user has done to it.
pub(crate) fn state(environment: &Environment) -> String {
    let status = environment.status.clone().unwrap_or_default();
    let word = state_word(status.initialization());
    match (environment.removing, environment.paused) {
        (true, _) => format!("{word} (removing)"),
        (false, true) => format!("{word} (paused)"),
        (false, false) => word.to_owned(),
    }
}

/// What an environment shall be.
pub(crate) fn spec(environment: &Environment) -> String {
    let spec = environment.spec.clone().unwrap_or_default();
    let time = |time: Option<&prost_types::Timestamp>| time.map_or_else(|| "-".to_owned(), rfc3339);
    let mut all = vec![
        ("Name", environment.name.clone()),
        ("Display name", or_dash(&spec.display_name)),
        ("Prefix", spec.prefix.clone()),
        ("Store", spec.store.clone()),
        ("Source", source_text(spec.source.as_ref())),
    ];
    match spec.source.as_ref().and_then(|source| source.kind.as_ref()) {
        Some(Kind::Stream(stream)) => {
            all.extend(duration(stream.initial_retry_delay.as_ref()).map(|delay| ("Initial retry delay", delay)));
        }
        Some(Kind::Poll(poll)) => {
            all.extend(duration(poll.interval.as_ref()).map(|interval| ("Poll interval", interval)));
        }
        Some(Kind::File(_)) | None => {}
    }
    let or_default = |uri: &str| {
        if uri.is_empty() { "the fleet's default".to_owned() } else { uri.to_owned() }
    };
    all.extend([
        ("SDK key", or_dash(&environment.sdk_key_masked)),
        ("Filter", or_dash(&spec.filter)),
        ("Stream URI", or_default(&spec.stream_uri)),
        ("Base URI", or_default(&spec.base_uri)),
        ("Application id", or_dash(&spec.application_id)),
        ("Application version", or_dash(&spec.application_version)),
        ("Labels", labels(&spec.labels)),
        ("Worker selector", labels(&spec.worker_selector)),
        ("Guard", guard_text(spec.guard()).to_owned()),
        ("Paused", if environment.paused { "yes" } else { "no" }.to_owned()),
        ("Uid", environment.uid.clone()),
        ("Generation", environment.generation.to_string()),
        ("Created", time(environment.create_time.as_ref())),
        ("Updated", time(environment.update_time.as_ref())),
    ]);
    pairs(0, &all)
}

/// How an environment is doing.
pub(crate) fn status(environment: &Environment, now: Timestamp) -> String {
    let status = environment.status.clone().unwrap_or_default();
    let prefix = environment.spec.clone().unwrap_or_default().prefix;
    let mut all = vec![
        ("Name", environment.name.clone()),
        ("State", state(environment)),
        ("Prefix", prefix),
        ("Worker", or_dash(&status.worker)),
        ("Epoch", epoch(status.epoch)),
        ("Data", data(&status)),
        ("Last event", ago(now, status.last_event_time.as_ref())),
        ("Last byte", ago(now, status.last_byte_time.as_ref())),
        ("Last heartbeat", ago(now, status.last_heartbeat_time.as_ref())),
        ("Last write", ago(now, status.last_write_time.as_ref())),
    ];
    if let Some(error) = &status.last_error {
        let code = if error.status == 0 { String::new() } else { format!("HTTP {}: ", error.status) };
        let text = format!("{code}{} ({})", error.message, ago(now, error.time.as_ref()));
        all.push(("Last error", text));
    }
    let rows: Vec<Vec<String>> = status
        .conditions
        .iter()
        .map(|condition| {
            vec![
                condition.r#type.clone(),
                truth_word(condition.status()).to_owned(),
                condition.reason.clone(),
                age(now, condition.last_transition_time.as_ref()),
                condition.message.clone(),
            ]
        })
        .collect();
    let mut text = pairs(0, &all);
    if !rows.is_empty() {
        let headers = [
            ("type", Align::Left),
            ("status", Align::Left),
            ("reason", Align::Left),
            ("age", Align::Right),
            ("message", Align::Left),
        ];
        text.push_str("Conditions:\n");
        text.push_str(&indented(&columns(&headers, &rows)));
    }
    text
}

fn number(number: Option<u64>) -> String {
    number.map_or_else(|| "-".to_owned(), |number| number.to_string())
}

fn epoch(epoch: u64) -> String {
    if epoch == 0 { "-".to_owned() } else { epoch.to_string() }
}

#[cfg(test)]
mod tests;
