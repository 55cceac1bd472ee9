//! The properties that every history must have.

use std::collections::BTreeMap;

use flotilla_proto::v1;
use flotilla_worker::dataset::ItemId;
use flotilla_worker::fence::{Fence, FenceKind};

use crate::history::{Record, What, version};
use crate::world::{Wanted, World};

/// Looks at the whole history; the error says what is wrong with it.
pub(crate) fn check_history(world: &World) -> Result<(), String> {
    let mut highest: BTreeMap<&str, u64> = BTreeMap::new();
    let mut losses = world.losses.iter().copied().peekable();
    for record in &world.records {
        while losses.next_if(|at| *at <= record.at).is_some() {
            highest.clear();
        }
        let checks = [
            fences_only_rise(record, &mut highest),
            one_after_the_other(record),
            no_version_falls(world, record),
            what_is_there_stays(record),
            purges_are_whole(record),
            environments_are_not_mixed(record),
        ];
        for check in checks {
            check.map_err(|why| format!("{why}\n{}", world.story(&record.prefix, record.at)))?;
        }
    }
    Ok(())
}

fn parsed(fence: Option<&String>) -> Result<Option<Fence>, String> {
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
    if !record.accepted {
        return if record.before == record.after {
            Ok(())
        } else {
            Err("a refused write changed something".to_owned())
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

/// Within an environment no item's version falls, and no item vanishes, unless it was deleted, or two payloads that the
/// writer was handed say so.
fn no_version_falls(world: &World, record: &Record) -> Result<(), String> {
    if !record.accepted || record.what == What::Purge {
        return Ok(());
    }
    let present = record.after.items.values().find_map(|body| origin(body));
    for (item, body) in &record.before.items {
        let (old, new) = (version(body), record.after.items.get(item).map(|body| version(body)));
        if present.is_some() && present != origin(body) {
            // Of another LaunchDarkly environment: versions are not comparable.
            continue;
        }
        let falls = match new {
            Some(new) => new < old,
            None => !world.environments.values().any(|one| of(one, body) && one.was_deleted(item)),
        };
        if falls && !was_said_twice(world, record, item, new) {
            return Err(format!("{}: {} fell from {old} to {new:?}", record.prefix, item.key));
        }
    }
    Ok(())
}

fn of(environment: &crate::source::Environment, body: &[u8]) -> bool {
    environment.truth().values().next().is_some_and(|(_, other)| origin(other) == origin(body))
}

/// Whether the writer was handed two payloads so far that say so of the item.
fn was_said_twice(world: &World, record: &Record, item: &ItemId, new: Option<u64>) -> bool {
    let said = world.delivered.iter().filter(|delivered| {
        delivered.worker == record.worker
            && delivered.at <= record.at
            && world.environments.get(&delivered.key).is_some_and(|one| one.said(delivered.position, item, new))
    });
    said.count() >= 2
}

/// Once initialised, marker and flags are readable until a purge.
fn what_is_there_stays(record: &Record) -> Result<(), String> {
    if record.accepted && record.what != What::Purge && record.before.marker {
        if !record.after.marker {
            return Err(format!("{}: the marker vanished", record.prefix));
        }
        if !record.before.items.is_empty() && record.after.items.is_empty() {
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

/// Which LaunchDarkly environment an item is of.
fn origin(body: &[u8]) -> Option<String> {
    serde_json::from_slice::<serde_json::Value>(body).ok()?["of"].as_str().map(ToOwned::to_owned)
}

/// What an accepted write leaves is of one LaunchDarkly environment.
fn environments_are_not_mixed(record: &Record) -> Result<(), String> {
    if !record.accepted || !matches!(record.what, What::Write | What::Load) {
        return Ok(());
    }
    let mut origins: Vec<_> = record.after.items.values().filter_map(|body| origin(body)).collect();
    origins.sort();
    origins.dedup();
    if origins.len() > 1 {
        return Err(format!("{}: the data of {origins:?} are mixed", record.prefix));
    }
    Ok(())
}

/// Whether everything has come to rest as it should; the error says what has not.
pub(crate) fn at_rest(world: &World) -> Result<(), String> {
    let (_, listed) = &world.listed;
    for worker in &world.workers {
        if worker.state() != v1::WorkerState::Connected || worker.standby > 0 {
            return Err(format!("worker {}: {:?}, stands by for {}", worker.name, worker.state(), worker.standby));
        }
    }
    let mut loads: BTreeMap<String, usize> = BTreeMap::new();
    for status in listed.iter().filter(|shown| shown.name != "poison").filter_map(|shown| shown.status.as_ref()) {
        *loads.entry(status.worker.clone()).or_default() += usize::from(!status.worker.is_empty());
    }
    let served = world.named.values().filter(|named| named.wanted == Wanted::Served).count();
    let share = served.div_ceil(world.links.len());
    if loads.values().any(|load| *load > share) {
        return Err(format!("loads {loads:?}, the share is {share}"));
    }
    for (name, named) in &world.named {
        let shown = listed.iter().find(|shown| shown.name == *name);
        let prefix = format!("p{}", name.trim_start_matches('e'));
        is_as_wanted(world, named.wanted, &named.key, shown, &prefix)
            .map_err(|why| format!("{name}: {why}\n{}", world.story(&prefix, world.now)))?;
    }
    if let Some(poison) = listed.iter().find(|shown| shown.name == "poison")
        && poison.status.as_ref().is_some_and(|status| status.initialization() == v1::Initialization::Current)
    {
        return Err("the poison is current".to_owned());
    }
    for shown in listed {
        let watched = world.watched.get(&shown.name).and_then(|watched| watched.status.clone());
        let (watched, shown_status) = (watched.unwrap_or_default(), shown.status.clone().unwrap_or_default());
        if (watched.initialization(), &watched.worker, watched.epoch)
            != (shown_status.initialization(), &shown_status.worker, shown_status.epoch)
        {
            return Err(format!("the watch shows {} as {watched:?}, not {shown_status:?}", shown.name));
        }
    }
    Ok(())
}

fn is_as_wanted(
    world: &World,
    wanted: Wanted,
    key: &str,
    shown: Option<&v1::Environment>,
    prefix: &str,
) -> Result<(), String> {
    let keys = world.store.get(prefix).cloned().unwrap_or_default();
    let fence = parsed(keys.fence.as_ref())?;
    let status = shown.and_then(|shown| shown.status.clone()).unwrap_or_default();
    match wanted {
        Wanted::Gone => match shown {
            Some(shown) => Err(format!("it is still there: {:?}", shown.status)),
            None => Ok(()),
        },
        Wanted::Paused => match fence {
            Some(fence) if fence.kind == FenceKind::Released => Ok(()),
            // The store lost the release, or went back to before it: nobody serves it, so nobody mends that.
            Some(_) | None if !world.losses.is_empty() => Ok(()),
            None => Err("it is paused, and has no fence".to_owned()),
            Some(fence) => Err(format!("it is paused, and its fence is {fence}")),
        },
        Wanted::Served => {
            if status.initialization() != v1::Initialization::Current {
                let conditions: Vec<_> = status
                    .conditions
                    .iter()
                    .map(|one| format!("{} {} {}: {}", one.r#type, one.status, one.reason, one.message))
                    .collect();
                return Err(format!(
                    "it is not current at {}, epoch {}: {conditions:#?}",
                    status.worker, status.epoch
                ));
            }
            let fence = fence.ok_or("it has no fence")?;
            if fence.epoch.0 != status.epoch {
                return Err(format!("its epoch is {}, its fence {fence}", status.epoch));
            }
            let truth = world.environments[key].truth();
            let same = truth.len() == keys.items.len()
                && truth.iter().all(|(item, (_, body))| keys.items.get(item) == Some(body));
            if same {
                Ok(())
            } else {
                {
                    let items: Vec<_> =
                        truth.iter().map(|(item, (version, _))| format!("{}={version}", item.key)).collect();
                    Err(format!("the store does not hold what is true of {key}: {items:?}"))
                }
            }
        }
    }
}
