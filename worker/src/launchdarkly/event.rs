//! Reads the JSON of LaunchDarkly's events and polls without building a tree.
//!
//! The text is walked just deep enough to find where each flag and segment begins and ends; its bytes stay as they
//! were sent. Of an item only what every reader of the store needs is checked: that it is an object, with an
//! integer `version` and a string `key` equal to its key in the collection.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;
use std::ops::Range;

use bytes::Bytes;
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

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
    let collections: Collections<'_> = serde_json::from_str(text).map_err(|error| DataError::new(WHAT, error))?;
    Ok(payload(body, text, collections))
}

fn parse_put(data: &Bytes) -> Result<DataEvent, DataError> {
    const WHAT: &str = "a put event";
    let text = utf8(WHAT, data)?;
    let put: Put<'_> = serde_json::from_str(text).map_err(|error| DataError::new(WHAT, error))?;
    if !put.path.as_deref().is_none_or(is_root) {
        return Ok(DataEvent::Ignored);
    }
    let collections = match put.data {
        PutData::Missing => return Err(DataError::new(WHAT, "it has no data")),
        PutData::Walked(collections) => collections,
        PutData::Raw(raw) => serde_json::from_str(raw.get()).map_err(|error| DataError::new(WHAT, error))?,
    };
    Ok(DataEvent::Put(payload(data, text, collections)))
}

fn parse_patch(data: &Bytes) -> Result<DataEvent, DataError> {
    const WHAT: &str = "a patch event";
    let text = utf8(WHAT, data)?;
    let envelope = Envelope::parse(WHAT, text)?;
    let path = envelope.path.ok_or_else(|| DataError::new(WHAT, "it has no path"))?;
    let Some((kind, key)) = item_path(&path) else {
        return Ok(DataEvent::Ignored);
    };
    let raw = envelope.data.ok_or_else(|| DataError::new(WHAT, "it has no data"))?;
    let entry = Entry { kind, key: key.into(), raw: raw.get() };
    Ok(match check(entry, text) {
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

/// The outside of a put event.
struct Put<'a> {
    path: Option<Cow<'a, str>>,
    data: PutData<'a>,
}

enum PutData<'a> {
    Missing,
    /// The path had been seen and was ours: walked in the same pass.
    Walked(Collections<'a>),
    /// To be walked once the path is known, and not at all if it is not ours.
    Raw(&'a RawValue),
}

impl<'de> Deserialize<'de> for Put<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(PutVisitor)
    }
}

struct PutVisitor;

impl<'de> Visitor<'de> for PutVisitor {
    type Value = Put<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with a path and data")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut put = Put { path: None, data: PutData::Missing };
        while let Some(name) = map.next_key::<Cow<'de, str>>()? {
            match name.as_ref() {
                "path" => put.path = map.next_value()?,
                "data" => {
                    put.data = if put.path.as_deref().is_some_and(is_root) {
                        PutData::Walked(map.next_value()?)
                    } else {
                        PutData::Raw(map.next_value()?)
                    };
                }
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(put)
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
#[derive(Debug)]
pub(crate) struct Collections<'a>(pub(crate) Vec<Entry<'a>>);

impl<'de> Deserialize<'de> for Collections<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(CollectionsVisitor)
    }
}

struct CollectionsVisitor;

impl<'de> Visitor<'de> for CollectionsVisitor {
    type Value = Collections<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with flags and segments")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut entries = Vec::new();
        let mut has_collection = false;
        while let Some(name) = map.next_key::<Cow<'de, str>>()? {
            let kind = match name.as_ref() {
                "flags" => Kind::Flag,
                "segments" => Kind::Segment,
                _ => {
                    map.next_value::<IgnoredAny>()?;
                    continue;
                }
            };
            has_collection = true;
            map.next_value_seed(Collection { kind, entries: &mut entries })?;
        }
        // Something else that happens to be an object must not be taken for an empty environment.
        if !has_collection {
            return Err(A::Error::custom("it has neither flags nor segments"));
        }
        Ok(Collections(entries))
    }
}

struct Collection<'a, 'de> {
    kind: Kind,
    entries: &'a mut Vec<Entry<'de>>,
}

impl<'de> DeserializeSeed<'de> for Collection<'_, 'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Collection<'_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of items by key")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<Box<str>>()? {
            let raw: &'de RawValue = map.next_value()?;
            self.entries.push(Entry { kind: self.kind, key, raw: raw.get() });
        }
        Ok(())
    }
}

fn payload(bytes: &Bytes, text: &str, collections: Collections<'_>) -> FullPayload {
    let mut items = Vec::with_capacity(collections.0.len());
    let mut rejected = Vec::new();
    for entry in collections.0 {
        match check(entry, text) {
            Ok(item) => items.push(item),
            Err(item) => rejected.push(item),
        }
    }
    reject_repeated(&mut items, &mut rejected);
    FullPayload::new(bytes.clone(), items, rejected)
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

/// `text` must lie within the text that `whole` is, so that the item's place in it is known.
fn check(entry: Entry<'_>, whole: &str) -> Result<ItemSpan, RejectedItem> {
    match check_head(&entry) {
        Ok((version, deleted)) => {
            let body = place_within(entry.raw, whole);
            Ok(ItemSpan { kind: entry.kind, key: entry.key, body, version, deleted })
        }
        Err(reason) => Err(RejectedItem::new(entry.kind, entry.key, &reason)),
    }
}

fn check_head(entry: &Entry<'_>) -> Result<(u64, bool), String> {
    let head = ItemHead::parse(entry.raw)?;
    let version = head.version.ok_or("it has no version")?;
    let version = version_number(version.get()).ok_or("its version is not a non-negative integer")?;
    let key = head.key.ok_or("it has no key")?;
    let key: Cow<'_, str> = serde_json::from_str(key.get()).map_err(|_| "its key is not a string")?;
    if *key != *entry.key {
        return Err(format!("its key {key:?} is not the key {:?} under which it was sent", entry.key));
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
pub(crate) fn live_version(kind: Kind, key: &str, body: &[u8]) -> Option<u64> {
    let raw = std::str::from_utf8(body).ok()?;
    let (version, deleted) = check_head(&Entry { kind, key: key.into(), raw }).ok()?;
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
