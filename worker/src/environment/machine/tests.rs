use bytes::Bytes;
use flotilla_proto::{GrantState, SdkKeySource};

// A worker with one environment, and the store that it shares with others.
mod world;
// LaunchDarkly's nodes, some of them behind, at a reconnect.
mod reconnects;
// The same where an environment goes from one owner to the next.
mod handovers;
// Payloads that would remove too much.
mod guard;
// A store that says nothing of what others do.
mod watching;
// The same store over new connections.
mod new_connections;

use super::*;
use crate::session::testing::{FLEET, assignment, profile};

const NOW: Timestamp = Timestamp(1_000_000);

fn machine() -> Machine {
    let control = ControlState { connected: true, lease: Duration::from_secs(15), confirmed_at: NOW };
    let identity = (FLEET.parse().unwrap(), profile().incarnation);
    Machine::new(NOW, identity, assignment("a", "uid-a", 1), control, 1).0
}

fn refused(machine: &mut Machine) {
    let failure = SourceFailure::Auth { status: 401 };
    machine.source_event(NOW, SourceEvent::Interrupted { failure, retry_in: Duration::from_mins(5) });
}

/// What the report says of the source.
fn source(machine: &Machine) -> (Option<SourceState>, Option<ErrorKind>) {
    let report = machine.report();
    (report.source_state, report.source_error.map(|error| error.kind))
}

#[test]
fn a_store_error_does_not_hide_why_the_source_is_gone() {
    let mut machine = machine();
    assert_eq!(source(&machine), (Some(SourceState::Connecting), None));
    refused(&mut machine);
    let message = "refused".to_owned();
    machine.last_error = Some(LastError { kind: ErrorKind::Store, status: None, message, time: NOW });
    assert_eq!(source(&machine), (Some(SourceState::Interrupted), Some(ErrorKind::Auth)));
    let error = machine.report().source_error.unwrap();
    assert_eq!(error.status, Some(401));
    assert!(error.message.ends_with("; next attempt in 300 s"), "{error:?}");
}

#[test]
fn a_payload_ends_the_error_of_the_source() {
    for event in [
        SourceEvent::Payload(FullPayload::new(Bytes::new(), Vec::new(), Vec::new())),
        // Of a poll, which had a payload before.
        SourceEvent::Unchanged,
    ] {
        let mut machine = machine();
        machine.filled = true;
        refused(&mut machine);
        machine.source_event(NOW, event);
        assert_eq!(source(&machine), (Some(SourceState::Connected), None));
        assert!(machine.report().last_error.is_some(), "it is kept as the last one");
    }
}

#[test]
fn a_new_key_has_not_failed_yet() {
    let mut machine = machine();
    refused(&mut machine);
    machine.assigned(NOW, Assignment { generation: flotilla_proto::Generation(2), ..machine.assignment().clone() });
    assert_eq!(source(&machine), (Some(SourceState::Interrupted), Some(ErrorKind::Auth)), "the same key");
    let sdk_key = Some(SdkKeySource::parse("sdk_key", "sdk-other").unwrap());
    machine.assigned(NOW, Assignment { sdk_key, ..machine.assignment().clone() });
    assert_eq!(source(&machine), (Some(SourceState::Connecting), None));
}
