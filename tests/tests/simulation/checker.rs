//! The properties that every history must have.

use std::collections::{BTreeMap, BTreeSet};

use flotilla_proto::Uid;
use flotilla_worker::fence::{Fence, FenceKind};

use crate::history::{Record, What, origin};
use crate::versions::{Claims, no_version_falls};
use crate::world::World;

/// Looks at the whole history; the error says what is wrong with it.
pub(crate) fn check_history(world: &World) -> Result<(), String> {
    let mut highest: BTreeMap<&str, u64> = BTreeMap::new();
    let mut losses = world.losses.iter().copied().peekable();
    let (mut claims, mut numbers, mut purges) = (Claims::default(), Numbers::default(), Vec::new());
    for (at, record) in world.records.iter().enumerate() {
        while losses.next_if(|at| *at < record.at).is_some() {
            highest.clear();
        }
        let checks = [
            fences_only_rise(record, &mut highest),
            one_after_the_other(record),
            no_version_falls(world, at),
            claims.see(record),
            numbers.see(record),
            what_is_there_stays(record),
            purges_are_whole(record),
            purges_are_asked_for(world, record, &mut purges),
            environments_are_not_mixed(record),
        ];
        for check in checks {
            check.map_err(|why| format!("{why}\n{}", world.story(&record.prefix, record.at)))?;
        }
    }
    match world.untruths.first() {
        Some(untruth) => Err(format!("{untruth}\n{}", world.told())),
        None => Ok(()),
    }
}

pub(crate) fn parsed(fence: Option<&String>) -> Result<Option<Fence>, String> {
    fence.map(|text| Fence::parse(text).ok_or_else(|| format!("not a fence: {text}"))).transpose()
}

/// Accepted epochs never fall while the store keeps its data.
fn fences_only_rise<'a>(record: &'a Record, highest: &mut BTreeMap<&'a str, u64>) -> Result<(), String> {
    let Some(fence) = parsed(record.after.fence.as_ref())?.filter(|_| record.accepted) else { return Ok(()) };
    let highest = highest.entry(&record.prefix).or_default();
    if fence.epoch.0 < *highest {
        return Err(format!("{}: epoch {} was accepted after {highest}", record.prefix, fence.epoch));
    }
    *highest = fence.epoch.0;
    Ok(())
}

/// What is refused changes nothing; what is accepted takes the fence a step on: never to a lower epoch, and within an
/// epoch only by the same run of a worker, or a later one of its directory.
fn one_after_the_other(record: &Record) -> Result<(), String> {
    if !record.accepted || record.what == What::Compare {
        return if record.before == record.after {
            Ok(())
        } else {
            Err(format!("{}: what is not accepted changed something", record.prefix))
        };
    }
    let (Some(before), Some(after)) = (parsed(record.before.fence.as_ref())?, parsed(record.after.fence.as_ref())?)
    else {
        return Ok(());
    };
    if after.epoch != before.epoch {
        return if after.epoch > before.epoch { Ok(()) } else { Err("the epoch fell".to_owned()) };
    }
    let (old, new) = (&before.incarnation, &after.incarnation);
    let same_run = old == new && after.write > before.write;
    let later_run = old.state_directory == new.state_directory && new.start_counter > old.start_counter;
    if before.grant == after.grant && (same_run || later_run) {
        Ok(())
    } else {
        Err(format!("two writers under epoch {}: {before} and {after}", after.epoch))
    }
}

/// The numbers of writes that were used.
#[derive(Debug, Default)]
struct Numbers<'a> {
    /// Every number that was sent: of which prefix, by which run of a worker.
    sent: BTreeSet<(&'a str, String, u64)>,
    /// The last number that was accepted of a run of a worker for an environment.
    accepted: BTreeMap<(String, String), u64>,
}

impl<'a> Numbers<'a> {
    /// Each send takes a new number, and those that are accepted only rise, whatever the store has lost meanwhile.
    fn see(&mut self, record: &'a Record) -> Result<(), String> {
        let Some(fence) = parsed(record.next.as_ref())? else { return Ok(()) };
        let run = format!("{:?}", fence.incarnation);
        if !self.sent.insert((&record.prefix, run.clone(), fence.write)) {
            return Err(format!("{}: write {} was sent twice", record.prefix, fence.write));
        }
        let by = (fence.uid.to_string(), run);
        if record.accepted
            && let Some(before) = self.accepted.insert(by, fence.write).filter(|before| *before >= fence.write)
        {
            return Err(format!("{}: write {} was accepted after {before}", record.prefix, fence.write));
        }
        Ok(())
    }
}

/// Once initialised, marker and flags are readable until a purge.
fn what_is_there_stays(record: &Record) -> Result<(), String> {
    if record.accepted && record.what != What::Purge && record.before.marker {
        if !record.after.marker {
            return Err(format!("{}: the marker vanished", record.prefix));
        }
        if record.before.has_flags() && !record.after.has_flags() {
            return Err(format!("{}: all flags vanished", record.prefix));
        }
    }
    Ok(())
}

fn purges_are_whole(record: &Record) -> Result<(), String> {
    if record.accepted && record.what == What::Purge {
        let after = &record.after;
        let released = parsed(after.fence.as_ref())?.is_some_and(|fence| fence.kind == FenceKind::Released);
        if after.marker || !after.items.is_empty() || !released {
            return Err(format!("{}: a purge left something: {after:?}", record.prefix));
        }
    }
    Ok(())
}

/// Only what a user asked to be purged is.
fn purges_are_asked_for(world: &World, record: &Record, purges: &mut Vec<(String, Uid)>) -> Result<(), String> {
    let Some(fence) = parsed(record.next.as_ref())?.filter(|_| record.what == What::Purge) else { return Ok(()) };
    if !record.accepted {
        return Ok(());
    }
    let purge = (record.prefix.clone(), fence.uid);
    if !purges.contains(&purge) {
        purges.push(purge);
    }
    let done = purges.iter().filter(|(prefix, _)| *prefix == record.prefix).count();
    let asked = world.purges.iter().filter(|(at, prefix)| *prefix == record.prefix && *at <= record.at).count();
    if done <= asked { Ok(()) } else { Err(format!("{}: purged, and nobody asked for it", record.prefix)) }
}

/// What an accepted write leaves is of one LaunchDarkly environment.
fn environments_are_not_mixed(record: &Record) -> Result<(), String> {
    if !record.accepted || !matches!(record.what, What::Write | What::Load) {
        return Ok(());
    }
    let mut origins: Vec<_> = record.after.items.values().filter_map(|body| origin(body)).collect();
    origins.sort_unstable();
    origins.dedup();
    if origins.len() > 1 {
        return Err(format!("{}: the data of {origins:?} are mixed", record.prefix));
    }
    Ok(())
}
