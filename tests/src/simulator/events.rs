//! Server-sent events as LaunchDarkly writes them, as text: for the simulator itself, and for tests that send
//! an event which does not follow from the data (an older patch, a second delete).

use bytes::Bytes;

use super::dataset::{Item, Kind};

/// An event of any name. Line feeds in `data` become further `data:` lines, as the format demands.
///
/// # Panics
/// When `data` holds a carriage return, which no event can carry.
pub fn event(name: &str, data: &str) -> Bytes {
    assert!(!data.contains('\r'), "an event cannot carry a carriage return");
    let mut text = String::with_capacity(data.len() + name.len() + 32);
    text.push_str("event: ");
    text.push_str(name);
    text.push('\n');
    for line in data.split('\n') {
        text.push_str("data: ");
        text.push_str(line);
        text.push('\n');
    }
    text.push('\n');
    Bytes::from(text)
}

/// A `patch` event.
pub fn patch(kind: Kind, item: &Item) -> Bytes {
    event("patch", &format!(r#"{{"path":{},"data":{}}}"#, path(kind, item.key()), item.json()))
}

/// A `delete` event.
pub fn delete(kind: Kind, key: &str, version: u64) -> Bytes {
    event("delete", &format!(r#"{{"path":{},"version":{version}}}"#, path(kind, key)))
}

/// What LaunchDarkly sends every few minutes on a quiet stream.
pub const HEARTBEAT: Bytes = Bytes::from_static(b":\n");

/// `key` as a JSON string.
pub(super) fn quoted(key: &str) -> String {
    serde_json::to_string(key).expect("a string has a JSON form")
}

fn path(kind: Kind, key: &str) -> String {
    quoted(&format!("/{}/{key}", kind.collection()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_have_the_wire_form() {
        let item = Item::raw("a", 2, "{\n\"version\":2}");
        assert_eq!(
            patch(Kind::Flag, &item),
            "event: patch\ndata: {\"path\":\"/flags/a\",\"data\":{\ndata: \"version\":2}}\n\n"
        );
        assert_eq!(
            delete(Kind::Segment, "s", 9),
            "event: delete\ndata: {\"path\":\"/segments/s\",\"version\":9}\n\n"
        );
    }
}
