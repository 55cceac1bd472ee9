//! What must hold once everything is healed.

use std::collections::BTreeMap;

use flotilla_proto::v1;
use flotilla_worker::fence::FenceKind;

use crate::checker::parsed;
use crate::hosts::worker_name;
use crate::user::prefix_of;
use crate::world::{Wanted, World};

/// Beside an environment that no worker can carry out, all others begin at once.
pub(crate) fn all_began(world: &World, names: usize) -> Result<(), String> {
    let current = |shown: &&v1::Environment| {
        shown.status.as_ref().is_some_and(|status| status.initialization() == v1::Initialization::Current)
    };
    let (at, listed) = &world.listed;
    let currents = listed.iter().filter(current).count();
    if currents == names {
        Ok(())
    } else {
        Err(format!("at {at} only {currents} of {names} environments are current: {listed:#?}\n{}", world.told()))
    }
}

/// Whether everything has come to rest as it should; the error says what has not.
pub(crate) fn at_rest(world: &World, lost: Option<usize>) -> Result<(), String> {
    let (_, listed) = &world.listed;
    let is_lost = |name: &str| lost.is_some_and(|lost| worker_name(lost) == name);
    for worker in world.workers.iter().filter(|worker| !is_lost(&worker.name)) {
        if worker.state() != v1::WorkerState::Connected || worker.standby > 0 {
            return Err(format!("worker {}: {:?}, stands by for {}", worker.name, worker.state(), worker.standby));
        }
    }
    let mut loads: BTreeMap<String, usize> = BTreeMap::new();
    for status in listed.iter().filter(|shown| shown.name != "poison").filter_map(|shown| shown.status.as_ref()) {
        *loads.entry(status.worker.clone()).or_default() += usize::from(!status.worker.is_empty());
    }
    let served = world.named.values().filter(|named| named.wanted == Wanted::Served).count();
    let share = served.div_ceil(world.links.len() - usize::from(lost.is_some()));
    if let Some(shown) = listed.iter().find(|shown| shown.status.as_ref().is_some_and(|one| is_lost(&one.worker))) {
        return Err(format!("{} is with a worker that is lost", shown.name));
    }
    if loads.values().any(|load| *load > share) {
        return Err(format!("loads {loads:?}, the share is {share}"));
    }
    for (name, named) in &world.named {
        let shown = listed.iter().find(|shown| shown.name == *name);
        let prefix = prefix_of(name);
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

/// Whether the store has lost the release, or gone back to before it: nobody serves it, so nobody mends that.
fn is_lost_since_it_ended(world: &World, prefix: &str) -> bool {
    let mut endings = world.records.iter().rev().filter(|record| record.prefix == prefix && record.accepted);
    let ended =
        endings.find(|record| record.after.fence.as_ref().is_some_and(|fence| fence.ends_with(" released")));
    let ended = ended.map_or(0, |record| record.at);
    world.losses.iter().any(|lost| *lost >= ended)
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
        Wanted::Gone => match (shown, fence) {
            (Some(shown), _) => Err(format!("it is still there: {:?}", shown.status)),
            (None, Some(fence)) if fence.kind == FenceKind::Serving && !is_lost_since_it_ended(world, prefix) => {
                Err(format!("it is gone, and its fence is {fence}"))
            }
            (None, Some(_) | None) => Ok(()),
        },
        Wanted::Paused => match fence {
            Some(fence) if fence.kind == FenceKind::Released => Ok(()),
            Some(_) | None if is_lost_since_it_ended(world, prefix) => Ok(()),
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
                let items: Vec<_> =
                    truth.iter().map(|(item, (version, _))| format!("{}={version}", item.key)).collect();
                Err(format!("the store does not hold what is true of {key}: {items:?}"))
            }
        }
    }
}
