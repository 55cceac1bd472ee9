//! Many environments at once: from a program's request, or from control's own file.

use std::collections::BTreeMap;

use flotilla_proto::{FieldViolation, InvalidName, Refusal, v1};

use super::environments::{claim, request_id, wanted};
use super::stores::full_url;
use super::{Api, store_name, unfit_reply};
use crate::audit::AuditEntry;
use crate::fleet::{Batch, BatchEntry, BatchStore, BlastRadius, Command, Prune, Reply, Wanted};

/// Environments of one request, at most.
const MOST_ENTRIES: usize = 10_000;
/// Stores of one request, at most.
const MOST_STORES: usize = 100;

/// Carries a request out, or says why nothing of it was. What is wrong with one entry is told among the results. `entry` is
/// for the records.
pub(crate) async fn apply(
    api: &Api,
    request: v1::BatchApplyEnvironmentsRequest,
    entry: Option<AuditEntry>,
) -> Result<v1::BatchApplyEnvironmentsResponse, Refusal> {
    let command = batch_of(api, request).map(Command::Apply);
    match api.carry_out(entry, command).await? {
        Reply::Applied(applied) => Ok(*applied),
        Reply::Environment(_) | Reply::Worker(_) | Reply::Store(_) | Reply::Answer(_) | Reply::Checked(_) => {
            Err(unfit_reply())
        }
    }
}

fn batch_of(api: &Api, request: v1::BatchApplyEnvironmentsRequest) -> Result<Batch, Refusal> {
    let id = request_id("apply", &request.request_id, &request)?;
    let v1::BatchApplyEnvironmentsRequest { entries, stores, prune, validate_only, .. } = request;
    let limits =
        [("entries", entries.len(), MOST_ENTRIES, "environments"), ("stores", stores.len(), MOST_STORES, "stores")];
    for (field, count, most, what) in limits {
        if count > most {
            let why = format!("{count} {what} are too many for one request: at most {most}");
            return Err(FieldViolation::new(field, &why).into());
        }
    }
    let (times, store_times) =
        (counted(entries.iter().map(|entry| &entry.name)), counted(stores.iter().map(|store| &store.name)));
    let entries = entries.into_iter().map(|entry| {
        let wanted = once(&times, &entry.name).and_then(|()| wanted_of(api, &entry));
        BatchEntry { name: entry.name, wanted }
    });
    let stores = stores.into_iter().map(|store| {
        let name = store.name.clone();
        let wanted = once(&store_times, &name).and_then(|()| {
            let v1::StoreEntry { name, url, login, sentinel_login, tls } = store;
            Ok((store_name("name", &name)?, Box::new(full_url(url, login, sentinel_login, tls)?)))
        });
        BatchStore { name, wanted }
    });
    Ok(Batch {
        entries: entries.collect(),
        stores: stores.collect(),
        prune: prune.map(prune_of).transpose()?,
        request: id,
        validate_only,
    })
}

fn counted<'a>(names: impl Iterator<Item = &'a String>) -> BTreeMap<String, usize> {
    names.fold(BTreeMap::new(), |mut times, name| {
        *times.entry(name.clone()).or_default() += 1;
        times
    })
}

/// Of two entries of one name nobody can say which is meant: neither is carried out.
fn once(times: &BTreeMap<String, usize>, name: &str) -> Result<(), Refusal> {
    match times.get(name) {
        Some(2..) => {
            let shown: String = name.chars().take(80).collect();
            Err(FieldViolation::new("name", &format!("{shown:?} is given more than once; give it once")).into())
        }
        Some(_) | None => Ok(()),
    }
}

fn wanted_of(api: &Api, entry: &v1::EnvironmentEntry) -> Result<Box<Wanted>, Refusal> {
    let (name, spec, sdk_key) = wanted(&entry.name, entry.spec.as_ref(), &entry.sdk_key)?;
    Ok(Box::new(Wanted { name, uid: api.fresh_uid(), spec, sdk_key, claim: claim(entry.take_over) }))
}

fn prune_of(prune: v1::Prune) -> Result<Prune, Refusal> {
    let v1::Prune { managed_by, accept_blast_radius } = prune;
    let managed_by = managed_by
        .parse()
        .map_err(|error: InvalidName| FieldViolation::new("prune.managed_by", &error.to_string()))?;
    let radius = if accept_blast_radius { BlastRadius::Accepted } else { BlastRadius::Limited };
    Ok(Prune { managed_by, radius })
}
