//! Doors for a fuzzer: each takes whatever bytes there are, and panics where what always holds does not.

use std::fmt::Debug;

use bytes::Bytes;
use flotilla_proto::session::{ControlMessage, WorkerMessage};
use flotilla_proto::v1;
use prost::Message as _;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::fence::Fence;
use crate::file_source;
use crate::launchdarkly::event::{DataEvent, parse_event, parse_poll};
use crate::launchdarkly::poll::unpack;
use crate::launchdarkly::sse::{SseItem, SseParser};
use crate::source::FullPayload;

/// Far less than in production, so that inputs of a fuzzer reach them.
const LONGEST_EVENT: usize = 256;
const LONGEST_UNPACKED: usize = 4096;

/// A stream; its first byte says into pieces of how many bytes it falls. The pieces make no difference.
pub fn sse(input: &[u8]) {
    let Some((&piece, stream)) = input.split_first() else { return };
    let whole = items_of(&mut [stream].into_iter());
    let pieces = items_of(&mut stream.chunks(usize::from(piece).max(1)));
    assert_eq!(whole, pieces);
}

fn items_of(pieces: &mut dyn Iterator<Item = &[u8]>) -> (Vec<SseItem>, bool) {
    let (mut parser, mut items) = (SseParser::new(LONGEST_EVENT), Vec::new());
    for mut piece in pieces {
        loop {
            match parser.next(&mut piece) {
                Ok(Some(item)) => items.push(item),
                Ok(None) => break,
                Err(_) => return (items, true),
            }
        }
    }
    (items, false)
}

/// An event's data; its first byte says which event. What is taken is JSON, and lies in the text that was sent.
pub fn event(input: &[u8]) {
    let Some((&name, data)) = input.split_first() else { return };
    let name = ["put", "patch", "delete", "other"][usize::from(name) % 4];
    let data = Bytes::copy_from_slice(data);
    match parse_event(name, &data) {
        Ok(DataEvent::Put(payload)) => check_payload(&payload),
        Ok(DataEvent::Patch { body, .. }) => check_json(&body),
        Ok(DataEvent::Delete { .. } | DataEvent::Rejected(_) | DataEvent::Ignored) | Err(_) => {}
    }
}

/// The answer to a poll; its first byte says whether it is packed.
pub fn poll(input: &[u8]) {
    let Some((&packed, body)) = input.split_first() else { return };
    let text =
        if packed.is_multiple_of(2) { Ok(Bytes::copy_from_slice(body)) } else { unpack(body, LONGEST_UNPACKED) };
    if let Ok(payload) = text.map_err(drop).and_then(|text| parse_poll(&text).map_err(drop)) {
        check_payload(&payload);
    }
}

/// What stands where a fence is. One that is understood reads as it would be written.
pub fn fence(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    if let Some(fence) = Fence::parse(&text) {
        assert_eq!(fence.to_string(), text);
    }
}

/// A file of flag data; its first byte says in which format.
pub fn flag_file(input: &[u8]) {
    let Some((&format, text)) = input.split_first() else { return };
    let name = if format.is_multiple_of(2) { "flags.json" } else { "flags.yaml" };
    if let Ok(payload) = file_source::parse(name.as_ref(), text) {
        check_payload(&payload);
    }
}

/// What control says to a worker, or, where the first byte is odd, a worker to control. What is understood, but for what is
/// rejected of it, means the same when it is written and read again.
pub fn session(input: &[u8]) {
    let Some((&kind, message)) = input.split_first() else { return };
    if kind.is_multiple_of(2) {
        let understood = |bytes: &[u8]| ControlMessage::try_from(v1::SessionResponse::decode(bytes).ok()?).ok();
        reads_as_it_is_written(message, understood, |message| v1::SessionResponse::from(message).encode_to_vec());
    } else {
        let understood = |bytes: &[u8]| WorkerMessage::try_from(v1::SessionRequest::decode(bytes).ok()?).ok();
        reads_as_it_is_written(message, understood, |message| v1::SessionRequest::from(message).encode_to_vec());
    }
}

fn reads_as_it_is_written<T: PartialEq + Debug>(
    bytes: &[u8],
    understood: impl Fn(&[u8]) -> Option<T>,
    written: impl Fn(&T) -> Vec<u8>,
) {
    let Some(message) = understood(bytes) else { return };
    let accepted = understood(&written(&message)).expect("what is written is understood");
    assert_eq!(understood(&written(&accepted)), Some(accepted));
}

fn check_payload(payload: &FullPayload) {
    for item in payload.items() {
        let value: Value = serde_json::from_slice(item.body).expect("what is taken is JSON");
        assert_eq!(value["key"], item.key);
    }
}

fn check_json(body: &[u8]) {
    serde_json::from_slice::<&RawValue>(body).expect("what is taken is JSON");
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    type Door = fn(&[u8]);

    /// What a fuzzer began with, and what it once found.
    #[test]
    fn kept_inputs_pass() {
        let doors: [(&str, Door); 6] = [
            ("sse", super::sse),
            ("event", super::event),
            ("poll", super::poll),
            ("fence", super::fence),
            ("flag_file", super::flag_file),
            ("session", super::session),
        ];
        for (name, door) in doors {
            let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds").join(name);
            let inputs: Vec<_> =
                std::fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path()).collect();
            assert!(!inputs.is_empty(), "{}", directory.display());
            for path in inputs {
                door(&std::fs::read(path).unwrap());
            }
        }
    }
}
