//! Reads the JSON of LaunchDarkly's events and polls without building a tree.
//!
//! The text is walked just deep enough to find where each flag and segment begins and ends; its bytes stay as they
//! were sent. Of an item only what every reader of the store needs is checked: that it is an object, with an
//! integer `version` and a string `key` equal to its key in the collection.

// From one value to the next.
mod walker;

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;
use std::ops::Range;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use self::walker::{Malformed, Walker};
use crate::source::{FullPayload, ItemSpan, Kind, RejectedItem, shortened};

/// What a stream event means for the data.
#[derive(Debug)]
pub(crate) enum DataEvent {
    /// `put`: everything there is.
    Put(FullPayload),
    /// `patch`: one item. `body` is a part of the event's text.
    Patch { kind: Kind, key: Box<str>, body: Bytes, version: u64, deleted: bool },
    /// `delete`: one item.
    Delete { kind: Kind, key: Box<str>, version: u64 },
    /// `patch` with an item that must not reach the store.
    Rejected(RejectedItem),
    /// An event or a path that means nothing to us, as future ones may.
    Ignored,
}

/// The data is not what the protocol says: malformed JSON or a wrong shape. The connection is of no more use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the data of {what} is not as expected: {reason}")]
pub(crate) struct DataError {
    what: &'static str,
    reason: String,
}

impl DataError {
    /// The reason may quote what it stumbled over, so it is cut to what can be shown.
    pub(crate) fn new(what: &'static str, reason: impl fmt::Display) -> Self {
        Self { what, reason: shortened(&reason.to_string()).into_owned() }
    }
}

/// Reads one event. The data of events with an unknown name is not looked at: it need not be JSON.
pub(crate) fn parse_event(name: &str, data: &Bytes) -> Result<DataEvent, DataError> {
    match name {
        "put" => parse_put(data),
        "patch" => parse_patch(data),
        "delete" => parse_delete(data),
        _ => Ok(DataEvent::Ignored),
    }
}

/// Reads the answer to a poll, `{"flags":{…},"segments":{…}}`.
pub(crate) fn parse_poll(body: &Bytes) -> Result<FullPayload, DataError> {
    const WHAT: &str = "the poll's answer";
    let text = utf8(WHAT, body)?;
    let mut walker = Walker::new(text);
    let payload = payload(body, &mut walker).map_err(|error| DataError::new(WHAT, error))?;
    walker.end().map_err(|error| DataError::new(WHAT, error))?;
    Ok(payload)
}

fn parse_put(data: &Bytes) -> Result<DataEvent, DataError> {
    const WHAT: &str = "a put event";
    put(data, utf8(WHAT, data)?).map_err(|error| DataError::new(WHAT, error))
}

fn put(data: &Bytes, text: &str) -> Result<DataEvent, Malformed> {
    let (mut path, mut found, mut skipped) = (None::<Cow<'_, str>>, None, None);
    let mut walker = Walker::new(text);
    walker.object(|walker, name| {
        match &*name {
            "path" => path = walker.value()?.0,
            // Walked in the same pass if the path is known to be ours, else when it is known, and not at all if it is not.
            "data" if path.as_deref().is_some_and(is_root) => found = Some(payload(data, walker)?),
            "data" => skipped = Some(walker.skip()?.start),
            _ => {
                walker.skip()?;
            }
        }
        Ok(())
    })?;
    let data_at = skipped.map(|at| walker.back_to(at));
    walker.end()?;
    if !path.as_deref().is_none_or(is_root) {
        return Ok(DataEvent::Ignored);
    }
    match (found, data_at) {
        (Some(payload), _) => Ok(DataEvent::Put(payload)),
        (None, Some(mut walker)) => Ok(DataEvent::Put(payload(data, &mut walker)?)),
        (None, None) => Err(Malformed::Shape("it has no data")),
    }
}

fn parse_patch(data: &Bytes) -> Result<DataEvent, DataError> {
    const WHAT: &str = "a patch event";
    let text = utf8(WHAT, data)?;
    let envelope = Envelope::parse(WHAT, text)?;
    let path = envelope.path.ok_or_else(|| DataError::new(WHAT, "it has no path"))?;
    let Some((kind, key)) = item_path(&path) else {
        return Ok(DataEvent::Ignored);
    };
    let raw = envelope.data.ok_or_else(|| DataError::new(WHAT, "it has no data"))?.get();
    Ok(match check(ItemHead::parse(raw), kind, key.into(), place_within(raw, text)) {
        Ok(item) => DataEvent::Patch {
            kind: item.kind,
            key: item.key,
            body: data.slice(item.body),
            version: item.version,
            deleted: item.deleted,
        },
        Err(rejected) => DataEvent::Rejected(rejected),
    })
}

fn parse_delete(data: &Bytes) -> Result<DataEvent, DataError> {
    const WHAT: &str = "a delete event";
    let envelope = Envelope::parse(WHAT, utf8(WHAT, data)?)?;
    let path = envelope.path.ok_or_else(|| DataError::new(WHAT, "it has no path"))?;
    let Some((kind, key)) = item_path(&path) else {
        return Ok(DataEvent::Ignored);
    };
    let version = envelope
        .version
        .and_then(|raw| version_number(raw.get()))
        .ok_or_else(|| DataError::new(WHAT, "it has no version that is a non-negative integer"))?;
    Ok(DataEvent::Delete { kind, key: key.into(), version })
}

fn utf8<'a>(what: &'static str, data: &'a Bytes) -> Result<&'a str, DataError> {
    std::str::from_utf8(data).map_err(|error| DataError::new(what, error))
}

fn is_root(path: &str) -> bool {
    path == "/"
}

/// The key is the rest of the path, verbatim: nothing in it is decoded.
fn item_path(path: &str) -> Option<(Kind, &str)> {
    if let Some(key) = path.strip_prefix("/flags/") {
        return Some((Kind::Flag, key));
    }
    path.strip_prefix("/segments/").map(|key| (Kind::Segment, key))
}

/// The outside of a patch or delete event.
#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    path: Option<Cow<'a, str>>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    #[serde(borrow)]
    version: Option<&'a RawValue>,
}

impl<'a> Envelope<'a> {
    fn parse(what: &'static str, text: &'a str) -> Result<Self, DataError> {
        // serde would also fill the fields in turn from an array.
        if !is_object(text.trim_start()) {
            return Err(DataError::new(what, "it is not an object"));
        }
        serde_json::from_str(text).map_err(|error| DataError::new(what, error))
    }
}

/// One item as it was found, unchecked.
#[derive(Debug)]
pub(crate) struct Entry<'a> {
    pub(crate) kind: Kind,
    /// Its key in the collection.
    pub(crate) key: Box<str>,
    /// Its JSON text, whatever that is.
    pub(crate) raw: &'a str,
}

/// The items of `{"flags":{…},"segments":{…}}`, unchecked, in the order in which they stand.
pub(crate) fn entries(text: &str) -> Result<Vec<Entry<'_>>, Malformed> {
    let mut entries = Vec::new();
    let mut walker = Walker::new(text);
    collections(&mut walker, |walker, kind, key| {
        let (raw, _) = walker.value::<&RawValue>()?;
        entries.push(Entry { kind, key, raw: raw.get() });
        Ok(())
    })?;
    walker.end()?;
    Ok(entries)
}

/// Steps through `{"flags":{…},"segments":{…}}`: `item` is told each kind and key, and has to take the value.
fn collections<'a>(
    walker: &mut Walker<'a>,
    mut item: impl FnMut(&mut Walker<'a>, Kind, Box<str>) -> Result<(), Malformed>,
) -> Result<(), Malformed> {
    let mut has_collection = false;
    walker.object(|walker, name| {
        let kind = match &*name {
            "flags" => Kind::Flag,
            "segments" => Kind::Segment,
            _ => return walker.skip().map(drop),
        };
        has_collection = true;
        walker.object(|walker, key| item(walker, kind, key))
    })?;
    // Something else that happens to be an object must not be taken for an empty environment.
    if has_collection { Ok(()) } else { Err(Malformed::Shape("it has neither flags nor segments")) }
}

/// What the collections that begin here hold.
fn payload(bytes: &Bytes, walker: &mut Walker<'_>) -> Result<FullPayload, Malformed> {
    let (mut items, mut rejected) = (Vec::new(), Vec::new());
    collections(walker, |walker, kind, key| {
        match item(walker, kind, key)? {
            Ok(item) => items.push(item),
            Err(item) => rejected.push(item),
        }
        Ok(())
    })?;
    reject_repeated(&mut items, &mut rejected);
    Ok(FullPayload::new(bytes.clone(), items, rejected))
}

/// The item that begins here; its text is read once unless something is wrong with it.
fn item(walker: &mut Walker<'_>, kind: Kind, key: Box<str>) -> Result<Result<ItemSpan, RejectedItem>, Malformed> {
    if walker.is_at_object()
        && let Ok((head, body)) = walker.value::<ItemHead<'_>>()
    {
        return Ok(check(Ok(head), kind, key, body));
    }
    let (raw, body) = walker.value::<&RawValue>()?;
    Ok(check(ItemHead::parse(raw.get()), kind, key, body))
}

/// Which of two items of one key is meant, nobody can tell.
fn reject_repeated(items: &mut Vec<ItemSpan>, rejected: &mut Vec<RejectedItem>) {
    let mut seen = HashSet::with_capacity(items.len());
    let repeated: HashSet<(Kind, Box<str>)> = items
        .iter()
        .filter(|item| !seen.insert((item.kind, &*item.key)))
        .map(|item| (item.kind, item.key.clone()))
        .collect();
    if repeated.is_empty() {
        return;
    }
    items.retain(|item| {
        let is_repeated = repeated.contains(&(item.kind, item.key.clone()));
        if is_repeated {
            rejected.push(RejectedItem::new(
                item.kind,
                item.key.clone(),
                "it was sent more than once in one payload",
            ));
        }
        !is_repeated
    });
}

/// The fields of an item that are looked at.
#[derive(Deserialize)]
pub(crate) struct ItemHead<'a> {
    #[serde(borrow)]
    pub(crate) version: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(crate) key: Option<&'a RawValue>,
    #[serde(borrow)]
    deleted: Option<&'a RawValue>,
}

impl<'a> ItemHead<'a> {
    /// Reads the head of an item, or says what is wrong with it.
    pub(crate) fn parse(raw: &'a str) -> Result<Self, String> {
        if !is_object(raw) {
            return Err("it is not an object".to_owned());
        }
        serde_json::from_str(raw).map_err(|error| error.to_string())
    }
}

/// An item whose head was read, or could not be read for this reason.
fn check(
    head: Result<ItemHead<'_>, String>,
    kind: Kind,
    key: Box<str>,
    body: Range<usize>,
) -> Result<ItemSpan, RejectedItem> {
    match head.and_then(|head| check_head(&head, &key)) {
        Ok((version, deleted)) => Ok(ItemSpan { kind, key, body, version, deleted }),
        Err(reason) => Err(RejectedItem::new(kind, key, &reason)),
    }
}

fn check_head(head: &ItemHead<'_>, sent_under: &str) -> Result<(u64, bool), String> {
    let version = head.version.ok_or("it has no version")?;
    let version = version_number(version.get()).ok_or("its version is not a non-negative integer")?;
    let key = head.key.ok_or("it has no key")?;
    let key: Cow<'_, str> = serde_json::from_str(key.get()).map_err(|_| "its key is not a string")?;
    if *key != *sent_under {
        return Err(format!("its key {key:?} is not the key {sent_under:?} under which it was sent"));
    }
    let deleted = match head.deleted.map(RawValue::get) {
        None | Some("false") => false,
        Some("true") => true,
        Some(_) => return Err("its field deleted is neither true nor false".to_owned()),
    };
    Ok((version, deleted))
}

/// The version of an item that a store holds; `None` if LaunchDarkly could not have sent it so, or it says that it is
/// deleted.
pub(crate) fn live_version(key: &str, body: &[u8]) -> Option<u64> {
    let raw = std::str::from_utf8(body).ok()?;
    let (version, deleted) = check_head(&ItemHead::parse(raw).ok()?, key).ok()?;
    (!deleted).then_some(version)
}

/// A JSON number is an integer here if it is written as one: `1.0` and `1e3` are not.
fn version_number(raw: &str) -> Option<u64> {
    raw.parse().ok()
}

fn is_object(raw: &str) -> bool {
    raw.starts_with('{')
}

fn place_within(part: &str, whole: &str) -> Range<usize> {
    let start = part.as_ptr().addr() - whole.as_ptr().addr();
    start..start + part.len()
}

#[cfg(test)]
mod tests;
