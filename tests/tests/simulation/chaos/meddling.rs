//! What happens to the data in the store that no worker does.

use std::collections::BTreeMap;
use std::sync::Arc;

use flotilla_worker::dataset::ItemId;
use flotilla_worker::source::Kind;

use super::Chaos;
use crate::history::version;

impl Chaos {
    /// Somebody else writes to the store, without a thought for the fence.
    pub(super) fn write_as_another(&mut self) {
        let mut world = self.world.lock().unwrap();
        let prefix = format!("p{}", self.dice.of(0..self.names as u64));
        let Some(keys) = world.store.get_mut(&prefix) else { return };
        match self.dice.of(0..7) {
            0 => keys.marker = false,
            1 => drop(keys.items.pop_last()),
            2 => {
                let item = ItemId { kind: Kind::Flag, key: "of-another".into() };
                keys.items.insert(item, b"{}".to_vec().into());
            }
            3 => {
                for body in keys.items.values_mut().take(1) {
                    *body = b"nothing that LaunchDarkly would send".to_vec().into();
                }
            }
            4 => {
                for body in keys.items.values_mut().take(1) {
                    let text = String::from_utf8_lossy(body);
                    *body = text.replacen(r#""version":"#, r#""version":9000"#, 1).into_bytes().into();
                }
            }
            // What LaunchDarkly will have soon, but for what it says; and what it may create soon.
            5 => {
                for body in keys.items.values_mut().take(1) {
                    *body = edited(body, None);
                }
            }
            _ => {
                let like = keys.items.values().next().cloned();
                let id = ItemId { kind: Kind::Flag, key: format!("new-{}", self.dice.of(0..6)).into() };
                if let Some(body) = like.map(|body| edited(&body, Some(&id.key))) {
                    keys.items.entry(id).or_insert(body);
                }
            }
        }
        world.note(format!("somebody else writes to {prefix}"));
        world.touched(&prefix.parse().unwrap(), None);
    }

    /// All of it, or what came since a snapshot.
    pub(super) fn lose_data(&mut self) {
        let mut world = self.world.lock().unwrap();
        if self.dice.one_in(2) {
            self.snapshot = world.store.clone();
            world.note("a snapshot of the store is taken");
            return;
        }
        let (what, store) = if self.dice.one_in(2) {
            ("the store is flushed", BTreeMap::new())
        } else {
            ("the store goes back to the snapshot", self.snapshot.clone())
        };
        world.note(what);
        let now = world.now;
        world.losses.push(now);
        world.replace_store(store);
    }
}

/// A text as somebody else may write it: of the next version, perhaps under another key.
fn edited(body: &[u8], key: Option<&str>) -> Arc<[u8]> {
    let text = String::from_utf8_lossy(body);
    let Some(("", rest)) = text.split_once(r#"{"key":""#) else { return body.into() };
    let Some((old_key, rest)) = rest.split_once(r#"","version":"#) else { return body.into() };
    let rest = rest.trim_start_matches(|digit: char| digit.is_ascii_digit());
    let (key, version) = (key.unwrap_or(old_key), version(body) + 1);
    format!(r#"{{"key":"{key}","version":{version},"by":"another"{rest}"#).into_bytes().into()
}
