//! The data of one simulated environment: flags and segments as raw JSON text, so that a test can compare
//! what reaches a store with what LaunchDarkly sent, byte for byte.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::Write as _;
use std::sync::{Arc, OnceLock};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::events;

/// The two collections of FDv1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A feature flag, in `flags` on the wire and in `PREFIX:features` in Redis.
    Flag,
    /// A segment, in `segments` on the wire and in `PREFIX:segments` in Redis.
    Segment,
}

impl Kind {
    /// The collection's name in a payload and in an event's path.
    pub const fn collection(self) -> &'static str {
        match self {
            Self::Flag => "flags",
            Self::Segment => "segments",
        }
    }

    /// Reads `flag` or `segment`.
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        match text {
            "flag" => Ok(Self::Flag),
            "segment" => Ok(Self::Segment),
            other => bail!("kind is {other:?}, allowed are flag and segment"),
        }
    }
}

/// One flag or segment; cloning shares the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    key: Arc<str>,
    version: u64,
    json: Arc<str>,
}

impl Item {
    /// Takes key and version from the JSON text itself.
    pub fn parse(json: &str) -> anyhow::Result<Self> {
        #[derive(Deserialize)]
        struct Identity {
            key: String,
            version: u64,
        }
        let identity: Identity = serde_json::from_str(json).context("an item needs a string key and a version")?;
        Ok(Self::raw(&identity.key, identity.version, json))
    }

    /// An item whose text nobody checks: for a worker's handling of bad ones.
    pub fn raw(key: &str, version: u64, json: &str) -> Self {
        Self { key: key.into(), version, json: json.into() }
    }

    /// The key under which the item is sent.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The version that the simulator counts with; the text's own, unless made by [`Item::raw`].
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The bytes that are sent and should be stored.
    pub fn json(&self) -> &str {
        &self.json
    }
}

/// All items of an environment. Environments may share one by `Arc`; it is copied when one of them changes.
#[derive(Debug, Default)]
pub struct Dataset {
    flags: BTreeMap<Arc<str>, Item>,
    segments: BTreeMap<Arc<str>, Item>,
    rendered: Rendered,
}

/// Texts made once per content, and shared among all connections.
#[derive(Debug, Default)]
struct Rendered {
    put: OnceLock<Bytes>,
    payload: OnceLock<Bytes>,
    gzip: OnceLock<Bytes>,
    etag: OnceLock<String>,
}

impl Clone for Dataset {
    fn clone(&self) -> Self {
        // A copy is made in order to be changed, so what was rendered is of no use to it.
        Self { flags: self.flags.clone(), segments: self.segments.clone(), rendered: Rendered::default() }
    }
}

impl PartialEq for Dataset {
    fn eq(&self, other: &Self) -> bool {
        self.flags == other.flags && self.segments == other.segments
    }
}

impl Dataset {
    /// Reads `{"flags":{…},"segments":{…}}`, keeping each item's text as it stands.
    pub fn parse(json: &str) -> anyhow::Result<Self> {
        #[derive(Deserialize)]
        struct Payload<'text> {
            #[serde(borrow, default)]
            flags: BTreeMap<String, &'text RawValue>,
            #[serde(borrow, default)]
            segments: BTreeMap<String, &'text RawValue>,
        }
        let payload: Payload<'_> = serde_json::from_str(json).context("not a set of flags and segments")?;
        let mut dataset = Self::default();
        for (kind, items) in [(Kind::Flag, payload.flags), (Kind::Segment, payload.segments)] {
            for (key, raw) in items {
                let item = Item::parse(raw.get()).with_context(|| format!("{kind:?} {key}"))?;
                dataset.insert(kind, item);
            }
        }
        Ok(dataset)
    }

    /// Adds or replaces an item, whatever its version.
    pub fn insert(&mut self, kind: Kind, item: Item) {
        self.rendered = Rendered::default();
        self.collection_mut(kind).insert(Arc::clone(&item.key), item);
    }

    /// Takes an item out; nothing happens where there is none.
    pub fn remove(&mut self, kind: Kind, key: &str) {
        self.rendered = Rendered::default();
        self.collection_mut(kind).remove(key);
    }

    /// One item.
    pub fn get(&self, kind: Kind, key: &str) -> Option<&Item> {
        self.collection(kind).get(key)
    }

    /// All items of a kind, in the order of their keys.
    pub fn items(&self, kind: Kind) -> impl ExactSizeIterator<Item = &Item> {
        self.collection(kind).values()
    }

    /// How many items of a kind there are.
    pub fn len(&self, kind: Kind) -> usize {
        self.collection(kind).len()
    }

    /// `{"flags":{…},"segments":{…}}`: a polling answer.
    pub fn payload(&self) -> Bytes {
        self.rendered.payload.get_or_init(|| Bytes::from(self.payload_text())).clone()
    }

    /// [`Dataset::payload`], compressed.
    pub fn payload_gzip(&self) -> Bytes {
        let compress = || {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(&self.payload()).expect("writing to memory does not fail");
            Bytes::from(encoder.finish().expect("writing to memory does not fail"))
        };
        self.rendered.gzip.get_or_init(compress).clone()
    }

    /// The content's name in polling answers: equal content, equal name.
    pub fn etag(&self) -> String {
        let name = || {
            let mut hasher = DefaultHasher::new();
            self.payload().hash(&mut hasher);
            format!("\"{:016x}\"", hasher.finish())
        };
        self.rendered.etag.get_or_init(name).clone()
    }

    /// The whole `put` event, as sent at the start of a stream.
    pub fn put_event(&self) -> Bytes {
        let render = || {
            let data = format!(r#"{{"path":"/","data":{}}}"#, self.payload_text());
            events::event("put", &data)
        };
        self.rendered.put.get_or_init(render).clone()
    }

    fn payload_text(&self) -> String {
        let size: usize = self.flags.values().chain(self.segments.values()).map(|item| item.json.len() + 64).sum();
        let mut text = String::with_capacity(size + 64);
        for (opening, items) in [(r#"{"flags":{"#, &self.flags), (r#"},"segments":{"#, &self.segments)] {
            text.push_str(opening);
            for (index, (key, item)) in items.iter().enumerate() {
                if index > 0 {
                    text.push(',');
                }
                text.push_str(&events::quoted(key));
                text.push(':');
                text.push_str(&item.json);
            }
        }
        text.push_str("}}");
        text
    }

    fn collection(&self, kind: Kind) -> &BTreeMap<Arc<str>, Item> {
        match kind {
            Kind::Flag => &self.flags,
            Kind::Segment => &self.segments,
        }
    }

    fn collection_mut(&mut self, kind: Kind) -> &mut BTreeMap<Arc<str>, Item> {
        match kind {
            Kind::Flag => &mut self.flags,
            Kind::Segment => &mut self.segments,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAYLOAD: &str =
        r#"{"flags":{"a":{"key":"a", "version":3,"x":1.0}},"segments":{"s":{"key":"s","version":1}}}"#;

    #[test]
    fn text_survives() {
        let dataset = Dataset::parse(PAYLOAD).unwrap();
        assert_eq!(dataset.payload(), PAYLOAD);
        assert_eq!(dataset.get(Kind::Flag, "a").unwrap().version(), 3);
        assert_eq!(dataset.put_event(), format!("event: put\ndata: {{\"path\":\"/\",\"data\":{PAYLOAD}}}\n\n"));
    }

    #[test]
    fn a_copy_renders_its_own_content() {
        let first = Dataset::parse(PAYLOAD).unwrap();
        let before = first.put_event();
        let mut second = first.clone();
        second.remove(Kind::Flag, "a");
        assert_eq!(second.payload(), r#"{"flags":{},"segments":{"s":{"key":"s","version":1}}}"#);
        assert_eq!(first.put_event(), before);
    }

    #[test]
    fn bad_items_are_named() {
        let error = Dataset::parse(r#"{"flags":{"a":{"key":"a"}}}"#).unwrap_err();
        assert!(format!("{error:#}").starts_with("Flag a: an item needs"), "{error:#}");
    }
}
