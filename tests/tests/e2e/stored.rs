//! What a store holds under a prefix, read as an SDK would, and compared with what LaunchDarkly sent.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use flotilla_tests::harness::{RedisServer, wait_until};
use flotilla_tests::simulator::{Dataset, Kind};
use redis::aio::MultiplexedConnection;

/// Four times the promise of a second; a loaded machine needs some of it.
pub(crate) const SOON: Duration = Duration::from_secs(4);
/// For what includes starting connections and processes.
pub(crate) const BOUND: Duration = Duration::from_secs(20);

type Hash = BTreeMap<String, Vec<u8>>;

/// Flags, segments and the marker, of one moment.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) flags: Hash,
    pub(crate) segments: Hash,
    pub(crate) marker: bool,
}

impl Stored {
    /// Nothing at all.
    pub(crate) fn nothing() -> Self {
        Self { flags: Hash::new(), segments: Hash::new(), marker: false }
    }

    /// What should be there for these data.
    pub(crate) fn of(data: &Dataset) -> Self {
        let hash = |kind| {
            let items = data.items(kind);
            items.map(|item| (item.key().to_owned(), item.json().as_bytes().to_vec())).collect()
        };
        Self { flags: hash(Kind::Flag), segments: hash(Kind::Segment), marker: true }
    }

    /// Reads it in one transaction.
    pub(crate) async fn read(connection: &mut MultiplexedConnection, prefix: &str) -> Self {
        let mut pipe = redis::pipe();
        pipe.atomic()
            .hgetall(format!("{prefix}:features"))
            .hgetall(format!("{prefix}:segments"))
            .exists(format!("{prefix}:$inited"));
        let (flags, segments, marker) = pipe.query_async(connection).await.unwrap();
        Self { flags, segments, marker }
    }

    /// Equal, or what differs, in few words.
    pub(crate) fn compare(&self, wanted: &Self) -> Result<(), String> {
        if self == wanted {
            return Ok(());
        }
        let mut text = format!(
            "{} flags (wanted {}), {} segments (wanted {}), marker {} (wanted {})",
            self.flags.len(),
            wanted.flags.len(),
            self.segments.len(),
            wanted.segments.len(),
            self.marker,
            wanted.marker,
        );
        let both = [(&self.flags, &wanted.flags), (&self.segments, &wanted.segments)];
        let differing = both.iter().find_map(|(found, wanted)| {
            let mut keys = wanted.keys().chain(found.keys());
            let key = keys.find(|key| found.get(*key) != wanted.get(*key))?;
            Some((key, found.get(key), wanted.get(key)))
        });
        if let Some((key, found, wanted)) = differing {
            let shown = |body: Option<&Vec<u8>>| body.map(|body| String::from_utf8_lossy(body).into_owned());
            let _ = write!(text, "; {key} is {:?}, wanted {:?}", shown(found), shown(wanted));
        }
        Err(text)
    }
}

/// Waits until exactly these data stand under the prefix.
pub(crate) async fn wait_for_stored(redis: &RedisServer, prefix: &str, data: &Dataset, bound: Duration) {
    let mut connection = redis.connection().await.unwrap();
    let wanted = Stored::of(data);
    wait_until("the store holds the data", bound, async || {
        Stored::read(&mut connection, prefix).await.compare(&wanted)
    })
    .await;
}

/// Fails unless exactly these data stand under the prefix now.
pub(crate) async fn assert_stored(redis: &RedisServer, prefix: &str, data: &Dataset) {
    let mut connection = redis.connection().await.unwrap();
    let found = Stored::read(&mut connection, prefix).await;
    found.compare(&Stored::of(data)).unwrap();
}

/// All keys of the store, in order.
pub(crate) async fn keys(redis: &RedisServer) -> Vec<String> {
    let mut connection = redis.connection().await.unwrap();
    let mut keys: Vec<String> = redis::cmd("KEYS").arg("*").query_async(&mut connection).await.unwrap();
    keys.sort();
    keys
}

/// One condition of an `env status` document.
pub(crate) fn condition<'a>(status: &'a serde_json::Value, kind: &str) -> Option<&'a serde_json::Value> {
    status["conditions"].as_array().unwrap().iter().find(|condition| condition["type"] == kind)
}
