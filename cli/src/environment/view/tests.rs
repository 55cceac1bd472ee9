use std::collections::BTreeMap;

use flotilla_proto::Timestamp;
use flotilla_proto::v1::{
    Condition, ConditionStatus, Environment, EnvironmentSpec, EnvironmentStatus, ErrorKind, Initialization,
    LastError, PollSource, Source, StreamSource, source::Kind,
};

use super::{list, removed_row, spec, status};
use crate::output::document::EnvironmentDocument;
use crate::output::{Notation, Width, write_document};
use flotilla_proto::client::Departure;

const NOW: Timestamp = Timestamp(1_793_000_000_000);

fn ago(seconds: u64) -> prost_types::Timestamp {
    Timestamp(NOW.0 - seconds * 1000).to_proto()
}

fn seconds(seconds: i64) -> prost_types::Duration {
    prost_types::Duration { seconds, nanos: 0 }
}

fn condition(kind: &str, status: ConditionStatus, reason: &str, message: &str) -> Condition {
    Condition {
        r#type: kind.to_owned(),
        status: status.into(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        observed_generation: 3,
        last_transition_time: Some(ago(200)),
    }
}

fn full() -> Environment {
    Environment {
        name: "spree-production".to_owned(),
        uid: "0d5f".to_owned(),
        spec: Some(EnvironmentSpec {
            display_name: "Spree Project Production".to_owned(),
            prefix: "ld:spree:production".to_owned(),
            store: "default".to_owned(),
            source: Some(Source {
                kind: Some(Kind::Stream(StreamSource { initial_retry_delay: Some(seconds(1)) })),
            }),
            labels: BTreeMap::from([("team".to_owned(), "spree".to_owned())]),
            ..EnvironmentSpec::default()
        }),
        status: Some(EnvironmentStatus {
            initialization: Initialization::Stale.into(),
            worker: "w1".to_owned(),
            epoch: 7,
            conditions: vec![
                condition("Assigned", ConditionStatus::True, "Assigned", "worker w1 serves it"),
                condition("Connected", ConditionStatus::False, "KeyRejected", "LaunchDarkly refused the key"),
            ],
            flags: Some(120),
            segments: Some(14),
            bytes: Some(481_233),
            last_event_time: Some(ago(400)),
            last_byte_time: Some(ago(12)),
            last_heartbeat_time: Some(ago(100)),
            last_write_time: Some(ago(90_000)),
            last_error: Some(LastError {
                kind: ErrorKind::Auth.into(),
                status: 401,
                message: "the SDK key was refused".to_owned(),
                time: Some(ago(5)),
            }),
        }),
        sdk_key_masked: "sdk-********-****-****-****-*******99999".to_owned(),
        generation: 3,
        etag: "e1".to_owned(),
        create_time: Some(ago(1_000_000)),
        update_time: Some(ago(9000)),
        ..Environment::default()
    }
}

fn bare() -> Environment {
    Environment {
        name: "b".to_owned(),
        spec: Some(EnvironmentSpec {
            prefix: "p".to_owned(),
            source: Some(Source { kind: Some(Kind::Poll(PollSource { interval: Some(seconds(90)) })) }),
            ..EnvironmentSpec::default()
        }),
        paused: true,
        ..Environment::default()
    }
}

#[test]
fn lists() {
    let environments = [full(), bare()];
    insta::assert_snapshot!("list", list(&environments, NOW, Width::Normal));
    insta::assert_snapshot!("list_wide", list(&environments, NOW, Width::Wide));
    for width in [Width::Normal, Width::Wide] {
        assert_eq!(removed_row("b", Departure::Gone, width).len(), super::headers(width).len());
    }
}

#[test]
fn one_environment() {
    insta::assert_snapshot!("spec", spec(&full()));
    insta::assert_snapshot!("spec_of_a_poll_source", spec(&bare()));
    insta::assert_snapshot!("status", status(&full(), NOW));
    insta::assert_snapshot!("status_before_a_worker_has_looked", status(&bare(), NOW));
}

#[test]
fn documents() {
    let shown = |notation, environment: &Environment| {
        let mut out = Vec::new();
        write_document(&mut out, notation, &EnvironmentDocument::from(environment)).unwrap();
        String::from_utf8(out).unwrap()
    };
    insta::assert_snapshot!("document_json", shown(Notation::Json, &full()));
    insta::assert_snapshot!("document_json_with_nothing_known", shown(Notation::Json, &bare()));
    insta::assert_snapshot!("document_yaml", shown(Notation::Yaml, &full()));
}
