//! An incremental parser for server-sent events, after the WHATWG HTML standard, section "Server-sent events".
//!
//! It is fed byte chunks as they come from the network and never looks at a byte twice: a payload of 20 MB that
//! arrives in small pieces costs one search for its line end and one copy into the event.

use std::time::Duration;

use bytes::Bytes;
use memchr::{memchr2, memchr3};

/// The most that the `data` of one event may hold unless told otherwise.
pub(crate) const DEFAULT_MAX_EVENT_BYTES: usize = 128 * 1024 * 1024;

/// What is kept of a field name, an event name, an id or a retry time. Longer ones mean nothing to us.
const MAX_SMALL_FIELD_BYTES: usize = 1024;

const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// One thing that a stream said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SseItem {
    /// An event was completed by its blank line.
    Event { name: Box<str>, data: Bytes },
    /// A `retry:` field, which counts at once, with or without an event.
    Retry(Duration),
    /// A comment line: LaunchDarkly's heartbeat.
    Comment,
}

/// Why a stream cannot be read on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SseError {
    /// The server sends more in one event than we are willing to hold.
    #[error("an event of the stream is larger than the limit of {limit} bytes")]
    EventTooLarge { limit: usize },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    Data,
    Event,
    Id,
    Retry,
    Comment,
    Unknown,
}

/// Where the next byte belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Name,
    /// Just behind the colon, where one space is not part of the value.
    ValueStart(Field),
    Value(Field),
}

/// The parser of one connection. What is unfinished when the connection ends is dropped with it.
#[derive(Debug)]
pub(crate) struct SseParser {
    max_event_bytes: usize,
    place: Place,
    /// Nothing but, perhaps, a byte order mark has been read.
    in_first_line: bool,
    /// The last line ended with CR: an LF that follows belongs to it.
    after_carriage_return: bool,
    /// The field name, or the value of an id or retry field, as far as it has arrived.
    small: Vec<u8>,
    event_name: Vec<u8>,
    /// None until the event has its first `data` line: an event without one is not dispatched.
    data: Option<Vec<u8>>,
    id: Option<Box<str>>,
    last_event_id: Option<Box<str>>,
}

impl SseParser {
    /// A parser for a new connection; `max_event_bytes` bounds what it holds.
    pub(crate) fn new(max_event_bytes: usize) -> Self {
        Self {
            max_event_bytes,
            place: Place::Name,
            in_first_line: true,
            after_carriage_return: false,
            small: Vec::new(),
            event_name: Vec::new(),
            data: None,
            id: None,
            last_event_id: None,
        }
    }

    /// The id of the last complete event that had one, to be sent as `Last-Event-ID`.
    pub(crate) fn last_event_id(&self) -> Option<&str> {
        self.last_event_id.as_deref()
    }

    /// Reads on in `input`, moving it forward, until an item is complete; `None` when `input` is used up.
    pub(crate) fn next(&mut self, input: &mut &[u8]) -> Result<Option<SseItem>, SseError> {
        while let Some(&byte) = input.first() {
            if std::mem::take(&mut self.after_carriage_return) && byte == b'\n' {
                *input = &input[1..];
                continue;
            }
            let item = match self.place {
                Place::Name => self.read_name(input)?,
                Place::ValueStart(field) => {
                    if byte == b' ' {
                        *input = &input[1..];
                    }
                    self.place = Place::Value(field);
                    None
                }
                Place::Value(field) => self.read_value(field, input)?,
            };
            if item.is_some() {
                return Ok(item);
            }
        }
        Ok(None)
    }

    fn read_name(&mut self, input: &mut &[u8]) -> Result<Option<SseItem>, SseError> {
        let Some(end) = memchr3(b':', b'\r', b'\n', input) else {
            keep_bounded(&mut self.small, input);
            *input = &[];
            return Ok(None);
        };
        keep_bounded(&mut self.small, &input[..end]);
        let terminator = input[end];
        *input = &input[end + 1..];

        let mut name = self.small.as_slice();
        if std::mem::take(&mut self.in_first_line) {
            name = name.strip_prefix(BYTE_ORDER_MARK).unwrap_or(name);
        }
        let is_blank = name.is_empty();
        let field = field_called(name);
        self.small.clear();

        if terminator == b':' {
            self.begin_value(field)?;
            self.place = if is_blank { Place::Value(Field::Comment) } else { Place::ValueStart(field) };
            return Ok(None);
        }
        self.after_carriage_return = terminator == b'\r';
        if is_blank {
            return Ok(self.dispatch());
        }
        self.begin_value(field)?;
        Ok(self.end_value(field))
    }

    fn read_value(&mut self, field: Field, input: &mut &[u8]) -> Result<Option<SseItem>, SseError> {
        let end = memchr2(b'\r', b'\n', input);
        let value = &input[..end.unwrap_or(input.len())];
        match field {
            Field::Data => self.keep_data(value)?,
            Field::Event => keep_bounded(&mut self.event_name, value),
            Field::Id | Field::Retry => keep_bounded(&mut self.small, value),
            Field::Comment | Field::Unknown => {}
        }
        let Some(end) = end else {
            *input = &[];
            return Ok(None);
        };
        self.after_carriage_return = input[end] == b'\r';
        *input = &input[end + 1..];
        Ok(self.end_value(field))
    }

    fn begin_value(&mut self, field: Field) -> Result<(), SseError> {
        match field {
            Field::Data if self.data.is_some() => self.keep_data(b"\n")?,
            Field::Data => self.data = Some(Vec::new()),
            Field::Event => self.event_name.clear(),
            Field::Id | Field::Retry | Field::Comment | Field::Unknown => {}
        }
        Ok(())
    }

    fn keep_data(&mut self, value: &[u8]) -> Result<(), SseError> {
        let data = self.data.get_or_insert_default();
        if data.len().saturating_add(value.len()) > self.max_event_bytes {
            return Err(SseError::EventTooLarge { limit: self.max_event_bytes });
        }
        data.extend_from_slice(value);
        Ok(())
    }

    /// The line is complete.
    fn end_value(&mut self, field: Field) -> Option<SseItem> {
        self.place = Place::Name;
        let item = match field {
            Field::Comment => Some(SseItem::Comment),
            Field::Retry => retry_time(&self.small).map(SseItem::Retry),
            Field::Id => {
                if self.small.len() <= MAX_SMALL_FIELD_BYTES && !self.small.contains(&0) {
                    self.id = Some(String::from_utf8_lossy(&self.small).into());
                }
                None
            }
            Field::Data | Field::Event | Field::Unknown => None,
        };
        self.small.clear();
        item
    }

    /// A blank line ends the event; without data there is none.
    fn dispatch(&mut self) -> Option<SseItem> {
        if let Some(id) = self.id.take() {
            self.last_event_id = if id.is_empty() { None } else { Some(id) };
        }
        let name: Box<str> = if self.event_name.is_empty() {
            "message".into()
        } else {
            String::from_utf8_lossy(&self.event_name).into()
        };
        self.event_name.clear();
        // Shrunk to its length: whoever keeps a part of it must not keep the room it grew into.
        let data = self.data.take()?.into_boxed_slice();
        Some(SseItem::Event { name, data: Bytes::from(data) })
    }
}

fn field_called(name: &[u8]) -> Field {
    match name {
        b"data" => Field::Data,
        b"event" => Field::Event,
        b"id" => Field::Id,
        b"retry" => Field::Retry,
        _ => Field::Unknown,
    }
}

/// Keeps one byte more than is allowed, so that a field that was too long can be told from one that just fits.
fn keep_bounded(kept: &mut Vec<u8>, bytes: &[u8]) {
    let room = (MAX_SMALL_FIELD_BYTES + 1).saturating_sub(kept.len());
    kept.extend_from_slice(&bytes[..bytes.len().min(room)]);
}

/// Only ASCII digits make a retry time; it is in milliseconds.
fn retry_time(value: &[u8]) -> Option<Duration> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(value).ok()?.parse().ok().map(Duration::from_millis)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse_in_pieces<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Result<Vec<SseItem>, SseError> {
        let mut parser = SseParser::new(64);
        let mut items = Vec::new();
        for mut piece in pieces {
            while let Some(item) = parser.next(&mut piece)? {
                items.push(item);
            }
            assert!(piece.is_empty(), "all input is used");
        }
        Ok(items)
    }

    fn event(name: &str, data: &str) -> SseItem {
        SseItem::Event { name: name.into(), data: Bytes::copy_from_slice(data.as_bytes()) }
    }

    fn line_ends() -> Vec<(&'static str, &'static [u8], Vec<SseItem>)> {
        vec![
            ("line feeds", b"event: put\ndata: x\n\n", vec![event("put", "x")]),
            ("carriage returns and line feeds", b"event: put\r\ndata: x\r\n\r\n", vec![event("put", "x")]),
            ("carriage returns", b"event: put\rdata: x\r\r", vec![event("put", "x")]),
            ("mixed line ends", b"data: a\r\ndata: b\rdata: c\n\r\n", vec![event("message", "a\nb\nc")]),
            ("byte order mark at the start", b"\xEF\xBB\xBFdata: x\n\n", vec![event("message", "x")]),
            ("byte order mark later", b"data: a\n\xEF\xBB\xBFdata: b\n\n", vec![event("message", "a")]),
            ("two byte order marks", b"\xEF\xBB\xBF\xEF\xBB\xBFdata: x\n\n", vec![]),
            ("a part of a byte order mark", b"\xEF\xBBdata: x\n\n", vec![]),
            ("byte order mark and comment", b"\xEF\xBB\xBF:\n", vec![SseItem::Comment]),
        ]
    }

    fn fields() -> Vec<(&'static str, &'static [u8], Vec<SseItem>)> {
        vec![
            ("comment", b":hello\n", vec![SseItem::Comment]),
            ("comment amid an event", b"data: a\n:\ndata: b\n\n", vec![SseItem::Comment, event("message", "a\nb")]),
            ("no space behind the colon", b"event:put\ndata:x\n\n", vec![event("put", "x")]),
            ("two spaces behind the colon", b"data:  x\n\n", vec![event("message", " x")]),
            ("colons in the value", b"data: a:b: c\n\n", vec![event("message", "a:b: c")]),
            ("data without a colon", b"data\n\n", vec![event("message", "")]),
            ("two empty data lines", b"data\ndata:\n\n", vec![event("message", "\n")]),
            ("no data, no event", b"event: put\n\ndata: x\n\n", vec![event("message", "x")]),
            ("the last event name counts", b"event: a\nevent: b\ndata: x\n\n", vec![event("b", "x")]),
            ("an empty event name", b"event: a\nevent\ndata: x\n\n", vec![event("message", "x")]),
            ("unknown fields", b"color: red\ndataset: 1\ndata: x\n\n", vec![event("message", "x")]),
            ("a space before the name is part of it", b" data: x\n\n", vec![]),
            ("retry", b"retry: 1500\n", vec![SseItem::Retry(Duration::from_millis(1500))]),
            ("bad retry times", b"retry: 1.5\nretry: -1\nretry:\nretry: 99999999999999999999\n", vec![]),
            ("a partial message at the end", b"data: x\n\ndata: y\n", vec![event("message", "x")]),
            ("many blank lines", b"\n\n\r\n\rdata: x\n\n\n\n", vec![event("message", "x")]),
            (
                "many bytes per character",
                "data: žluťoučký 🐎\n\n".as_bytes(),
                vec![event("message", "žluťoučký 🐎")],
            ),
        ]
    }

    #[test]
    fn every_row_of_the_table_holds_whole_and_byte_by_byte() {
        for (name, input, expected) in line_ends().into_iter().chain(fields()) {
            assert_eq!(parse_in_pieces([input]).as_ref(), Ok(&expected), "{name}, whole");
            assert_eq!(parse_in_pieces(input.chunks(1)), Ok(expected), "{name}, byte by byte");
        }
    }

    #[test]
    fn an_id_counts_once_its_event_is_complete_and_not_with_a_nul_in_it() {
        let mut parser = SseParser::new(64);
        let mut feed = |mut input: &[u8]| {
            while parser.next(&mut input).expect("well below the limit").is_some() {}
            parser.last_event_id().map(str::to_owned)
        };
        assert_eq!(feed(b"id: 7\n"), None);
        assert_eq!(feed(b"\n"), Some("7".into()));
        assert_eq!(feed(b"id: a\0b\n\n"), Some("7".into()));
        assert_eq!(feed(b"id\n\n"), None);
    }

    #[test]
    fn an_event_at_the_limit_passes_and_one_above_it_is_an_error() {
        let fits = [b"data: ".as_slice(), &[b'x'; 64], b"\n\n"].concat();
        assert_eq!(parse_in_pieces([fits.as_slice()]).map(|items| items.len()), Ok(1));
        let too_long = [b"data: ".as_slice(), &[b'x'; 60], b"\ndata: ", &[b'x'; 4]].concat();
        assert_eq!(parse_in_pieces(too_long.chunks(7)), Err(SseError::EventTooLarge { limit: 64 }));
        let empty_lines = b"data\n".repeat(66);
        assert_eq!(parse_in_pieces(empty_lines.chunks(7)), Err(SseError::EventTooLarge { limit: 64 }));
        let comment = [b":".as_slice(), &[b'x'; 5000], b"\n"].concat();
        assert_eq!(parse_in_pieces(comment.chunks(7)), Ok(vec![SseItem::Comment]), "nothing is kept of it");
    }

    #[test]
    fn an_endless_name_is_not_kept_and_is_nobodys_name() {
        let input = [b"event: put".as_slice(), &[b'x'; 5000], b"\ndata: y\n\n"].concat();
        let items = parse_in_pieces(input.chunks(16)).expect("below the limit");
        assert!(matches!(&items[..], [SseItem::Event { name, .. }] if name.len() <= MAX_SMALL_FIELD_BYTES + 1));
    }

    /// Ten million bytes on one line, and on lines of every length up to 2,000, whose line ends become part of the data.
    #[test]
    fn ten_megabytes_in_pieces_of_odd_sizes_are_one_event() {
        let whole: Vec<u8> = (b' '..=b'~').cycle().take(10_000_000).collect();
        let mut lines = whole.clone();
        let mut at = 0;
        for length in (0..2_000).cycle() {
            at += length;
            let Some(byte) = lines.get_mut(at) else { break };
            *byte = b'\n';
            at += 1;
        }
        for data in [whole, lines] {
            let mut input = b"event: put\n".to_vec();
            for line in data.split(|byte| *byte == b'\n') {
                input.extend([b"data: ", line, b"\n"].concat());
            }
            input.push(b'\n');
            let mut parser = SseParser::new(DEFAULT_MAX_EVENT_BYTES);
            let mut rest = input.as_slice();
            let mut items = Vec::new();
            for size in [1, 7, 1_021, 65_537, 16_383].into_iter().cycle() {
                let (mut piece, after) = rest.split_at(size.min(rest.len()));
                while let Some(item) = parser.next(&mut piece).expect("below the limit") {
                    items.push(item);
                }
                rest = after;
                if rest.is_empty() {
                    break;
                }
            }
            // Not by assert_eq, which would print all of it.
            let is_whole = items == [SseItem::Event { name: "put".into(), data: Bytes::from(data) }];
            assert!(is_whole, "{} items", items.len());
        }
    }

    proptest! {
        #[test]
        fn any_chunking_gives_the_same_items(
            words in prop::collection::vec(
                prop::sample::select(vec![
                    "data", "event", "id", "retry", ":", " ", "\n", "\r", "\r\n", "\u{feff}", "7", "put", "é", "\0",
                ]),
                0..60,
            ),
            cuts in prop::collection::vec(1usize..9, 1..40),
        ) {
            let input = words.concat().into_bytes();
            let mut pieces = Vec::new();
            let mut rest = input.as_slice();
            for cut in cuts.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (piece, after) = rest.split_at((*cut).min(rest.len()));
                pieces.push(piece);
                rest = after;
            }
            prop_assert_eq!(parse_in_pieces([input.as_slice()]), parse_in_pieces(pieces));
        }
    }
}
