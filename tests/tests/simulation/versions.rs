//! What must hold of the items' versions, and of how an owner begins.

use std::collections::BTreeMap;
use std::sync::Arc;

use flotilla_proto::{Epoch, GrantId, Incarnation};
use flotilla_worker::dataset::{ItemId, SECOND_OPINION_AFTER};

use crate::checker::parsed;
use crate::history::{Record, What, origin, version};
use crate::source::{Environment, Said};
use crate::world::World;

/// How long a doubt takes to ripen, in milliseconds.
const RIPE: u64 = SECOND_OPINION_AFTER.as_secs() * 1000;

/// Within a LaunchDarkly environment no item's version falls, and no item vanishes, across owners too, unless its writer
/// was told of the deletion, or two payloads say so, the second of them late enough to decide a doubt.
pub(crate) fn no_version_falls(world: &World, at: usize) -> Result<(), String> {
    let record = &world.records[at];
    if !record.accepted || record.what == What::Purge {
        return Ok(());
    }
    let present = record.after.items.values().find_map(|body| origin(body));
    for (item, body) in &record.before.items {
        if record.after.items.get(item).is_some_and(|after| Arc::ptr_eq(after, body)) {
            continue;
        }
        if let Some(present) = present.filter(|present| Some(*present) != origin(body)) {
            // Versions are not comparable.
            no_key_comes_back(world, record, origin(body), present)?;
            continue;
        }
        let (old, new) = (version(body), record.after.items.get(item).map(|body| version(body)));
        let is_allowed = match new {
            Some(new) if new >= old => true,
            Some(_) if is_invented(world, body, item) => {
                was_patched(world, record, item, new)
                    || is_unseen(world, at, item)
                    || was_said_twice(world, at, item, (old, new))
            }
            // A deletion that an edge has not seen may come undone, before it was written too.
            Some(_) => was_deleted(world, record, item, old) || was_said_twice(world, at, item, (old, new)),
            None => {
                was_deleted(world, record, item, old)
                    || was_gone(world, at, item)
                    || was_said_twice(world, at, item, (old, new))
            }
        };
        if !is_allowed {
            return Err(format!(
                "{}: {} fell from {old} to {new:?}; its writer was told{}",
                record.prefix,
                item.key,
                what_was_told(world, record, item)
            ));
        }
    }
    Ok(())
}

/// What the run of the worker that wrote had been told by then of the LaunchDarkly environment that an item, as it was
/// before, is of.
fn told<'a>(
    world: &'a World,
    record: &'a Record,
    item: &ItemId,
) -> impl Iterator<Item = (u64, &'a Environment, &'a Said)> {
    let run = parsed(record.next.as_ref()).ok().flatten().map(|fence| fence.incarnation.start_counter);
    let of = record.before.items.get(item).and_then(|body| origin(body));
    let by_then = world.delivered.partition_point(|delivered| delivered.at <= record.at);
    world.delivered[..by_then]
        .iter()
        .filter(move |delivered| delivered.worker == record.worker && Some(delivered.run) == run)
        .filter_map(move |delivered| {
            let environment = world.environments.get(&delivered.key).filter(|one| Some(one.id()) == of)?;
            Some((delivered.at, environment, &delivered.said))
        })
}

/// Whether somebody else wrote what LaunchDarkly has never had.
fn is_invented(world: &World, body: &[u8], item: &ItemId) -> bool {
    let mut environments = world.environments.values();
    !environments.any(|one| origin(body) == Some(one.id()) && one.had(item, body))
}

/// Whether an item is, before an operation, not as its writer saw or left it last.
fn is_unseen(world: &World, at: usize, item: &ItemId) -> bool {
    let Record { worker, prefix, before, .. } = &world.records[at];
    let by_writer = |earlier: &&Record| earlier.worker == *worker && earlier.prefix == *prefix;
    let mut earlier = world.records[..at].iter().rev().filter(by_writer);
    let last = earlier.find(|earlier| earlier.accepted && earlier.what != What::Claim);
    last.is_none_or(|last| last.after.items.get(item) != before.items.get(item))
}

/// Whether its writer had left no such item, or seen that there is none, and no other owner has written it since: a store
/// that went back in time, or somebody without a grant, brought it, and that is mended.
fn was_gone(world: &World, at: usize, item: &ItemId) -> bool {
    let Record { worker, prefix, .. } = &world.records[at];
    let of_prefix = |earlier: &&Record| {
        let was_seen = earlier.what == What::Compare && earlier.worker == *worker;
        earlier.prefix == *prefix && earlier.accepted && (earlier.what.brings_data() || was_seen)
    };
    for earlier in world.records[..at].iter().rev().filter(of_prefix) {
        match (earlier.before.items.contains_key(item), earlier.after.items.contains_key(item)) {
            (false, true) => return false,
            (true | false, false) if earlier.worker == *worker => return true,
            (true, true) | (true | false, false) => {}
        }
    }
    false
}

/// The data of one LaunchDarkly environment follow those of another only if a user gave the key after the other's.
fn no_key_comes_back(world: &World, record: &Record, old: Option<&str>, new: &str) -> Result<(), String> {
    let given = world.given_keys.iter().filter(|given| given.prefix == record.prefix && given.at <= record.at);
    let given = given.filter_map(|given| Some((world.environments.get(&given.key)?.id(), given.at)));
    let given: Vec<_> = given.collect();
    let first_old = given.iter().find(|(id, _)| Some(*id) == old);
    let last_new = given.iter().rfind(|(id, _)| *id == new);
    if last_new.map(|(_, at)| at) >= first_old.map(|(_, at)| at) {
        return Ok(());
    }
    Err(format!("{}: the data of {old:?} gave way to those of an earlier key, of {new}", record.prefix))
}

/// Whether the writer was told of this version of an item by an event on it.
fn was_patched(world: &World, record: &Record, item: &ItemId, new: Option<u64>) -> bool {
    told(world, record, item).any(|(_, _, said)| match said {
        Said::Item { item: told, version, deleted } => !deleted && told == item && Some(*version) == new,
        Said::Payload { .. } | Said::PutAgain { .. } => false,
    })
}

/// What the writer was told of an item, for people.
fn what_was_told(world: &World, record: &Record, item: &ItemId) -> String {
    let lines = told(world, record, item).filter_map(|(at, environment, said)| {
        match said {
            Said::Payload { position } => Some(("payload", environment.version(*position, item))),
            Said::PutAgain { position } => Some(("payload again", environment.version(*position, item))),
            Said::Item { item: told, version, deleted } if told == item => {
                Some((if *deleted { "deletion" } else { "patch" }, Some(*version)))
            }
            Said::Item { .. } => None,
        }
        .map(|(what, version)| format!("\n{at:>7} {}: {what} {version:?}", environment.id()))
    });
    lines.collect()
}

/// Whether the writer was told that the item was deleted after this version.
fn was_deleted(world: &World, record: &Record, item: &ItemId, old: u64) -> bool {
    told(world, record, item).any(|(_, environment, said)| match said {
        Said::Payload { position } | Said::PutAgain { position } => environment.deleted_after(*position, item, old),
        Said::Item { item: told, version, deleted } => *deleted && told == item && *version > old,
    })
}

/// Whether the writer was handed two payloads that say so of the item, the second at least as long after the version that
/// falls could be known as a doubt takes to ripen.
fn was_said_twice(world: &World, at: usize, item: &ItemId, (old, new): (u64, Option<u64>)) -> bool {
    let record = &world.records[at];
    let of = record.before.items.get(item).and_then(|body| origin(body));
    let in_store = world.records[..=at].iter().find(|earlier| {
        let held = earlier.after.items.get(item).or_else(|| earlier.before.items.get(item));
        earlier.prefix == record.prefix && held.is_some_and(|body| version(body) >= old && origin(body) == of)
    });
    let in_store = in_store.map_or(record.at, |earlier| earlier.at);
    let told_of_it = told(world, record, item).find_map(|(at, environment, said)| {
        let is_known = match said {
            Said::Payload { position } | Said::PutAgain { position } => {
                environment.version(*position, item) >= Some(old)
            }
            Said::Item { item: told, version, deleted } => told == item && !deleted && *version >= old,
        };
        is_known.then_some(at)
    });
    // A doubt about what somebody else wrote goes on when that one writes again.
    let is_invented = is_invented(world, &record.before.items[item], item);
    let ripe = told_of_it.map_or(in_store, |told| told.min(in_store)) + RIPE;
    let payloads: Vec<(u64, Option<u64>)> = told(world, record, item)
        .filter_map(|(at, environment, said)| match said {
            Said::Payload { position } | Said::PutAgain { position } => {
                Some((at, environment.version(*position, item)))
            }
            Said::Item { .. } => None,
        })
        .collect();
    // What a payload says from before the version was known says nothing against it, unless its connection goes on.
    let followed = payloads.iter().rposition(|(at, _)| *at <= in_store).filter(|_| told_of_it.is_none());
    let known = |at: usize| payloads[at].0 >= told_of_it.unwrap_or(in_store) || Some(at) == followed;
    let against: Vec<_> = (0..payloads.len())
        .filter(|at| known(*at))
        .map(|at| payloads[at])
        .filter(|(_, said)| *said < Some(old))
        .collect();
    // The first one began the doubt, whatever lower version it had; the last one decided.
    against.len() >= 2 && against.iter().any(|(at, said)| *said == new && (is_invented || *at >= ripe))
        || was_put_again(world, record, item, new)
}

/// Whether the writer was handed, on a connection that stood, another payload that says so: that is LaunchDarkly's will.
fn was_put_again(world: &World, record: &Record, item: &ItemId, new: Option<u64>) -> bool {
    told(world, record, item).any(|(_, environment, said)| match said {
        Said::PutAgain { position } => environment.version(*position, item) == new,
        Said::Payload { .. } | Said::Item { .. } => false,
    })
}

/// The present writer of each prefix, and whether it has compared everything.
#[derive(Debug, Default)]
pub(crate) struct Claims(BTreeMap<String, Claim>);

#[derive(Debug)]
struct Claim {
    by: (Epoch, GrantId, Incarnation),
    worker: usize,
    compared: bool,
}

impl Claims {
    /// A new grant, and a new run of its worker, compare everything before they bring data.
    pub(crate) fn see(&mut self, record: &Record) -> Result<(), String> {
        if record.what == What::Compare {
            if let Some(claim) = self.0.get_mut(&record.prefix).filter(|claim| claim.worker == record.worker) {
                claim.compared = true;
            }
            return Ok(());
        }
        let Some(fence) = parsed(record.next.as_ref())?.filter(|_| record.accepted) else { return Ok(()) };
        let (by, worker) = ((fence.epoch, fence.grant, fence.incarnation), record.worker);
        // In a store that went back in time an earlier writer may go on where it was.
        let before = parsed(record.before.fence.as_ref())?;
        let goes_on = before.is_some_and(|before| (before.epoch, before.grant, before.incarnation) == by);
        let claim = self
            .0
            .entry(record.prefix.clone())
            .and_modify(|claim| {
                if claim.by != by {
                    *claim = Claim { by: by.clone(), worker, compared: goes_on };
                }
            })
            .or_insert(Claim { by: by.clone(), worker, compared: goes_on });
        if record.what.brings_data() && !claim.compared {
            return Err(format!("{}: epoch {} wrote before it compared", record.prefix, fence.epoch));
        }
        Ok(())
    }
}
