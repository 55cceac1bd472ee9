//! Rows to types and back. A value that cannot be read is an error that names it, never a default.

use std::fmt;

use flotilla_proto::process::{SealCondition, Sealing};
use flotilla_proto::session::TakeOver;
use flotilla_proto::store_url::StoreEndpoint;
use flotilla_proto::{
    EnvironmentName, EnvironmentSpec, Epoch, Generation, Grant, GrantId, Intent, InvalidName, Prefix, SdkKeySource,
    StoreName, StoreUrl, Timestamp, Uid, v1,
};
use prost::Message as _;
use rusqlite::{Connection, Row, params};

use crate::fleet::{
    Change, EnvironmentRecord, FailedRotation, GrantRecord, Remembered, RemovalKind, RequestId, RotationFailure,
    Scheduling, Subject,
};
use crate::store::StoreError;
use crate::store::sqlite::secrets::{Opener, place_of_digest, place_of_key, place_of_store, seal};
use crate::store::sqlite::{audit, events};

/// What stands before the name of a store where a request was about one; no environment's name holds a '/'.
const STORE_SUBJECT: &str = "store/";
/// What stands there where it was about many environments.
const BATCH_SUBJECT: &str = "batch/";

/// A stored value that cannot be read.
pub(super) fn corrupt(what: &str, why: &dyn fmt::Display) -> StoreError {
    StoreError::Corrupt { what: format!("{what}: {why}") }
}

/// Applies one change within a transaction.
pub(super) fn apply(transaction: &Connection, change: &Change, sealing: &Sealing) -> Result<(), StoreError> {
    match change {
        Change::PutEnvironment(record) => put_environment(transaction, record, sealing)?,
        Change::DeleteEnvironment { environment } => {
            transaction.prepare("DELETE FROM environments WHERE name = ?1")?.execute([environment.as_str()])?;
        }
        Change::PutEpoch { store, prefix, epoch } => {
            transaction
                .prepare("INSERT OR REPLACE INTO epochs (store, prefix, epoch) VALUES (?1, ?2, ?3)")?
                .execute(params![store.as_str(), prefix.as_str(), epoch.0.cast_signed()])?;
        }
        Change::PutStore { store, url } => put_store(transaction, store, url, sealing)?,
        Change::DeleteStore { store, endpoint } => {
            transaction.prepare("DELETE FROM stores WHERE name = ?1")?.execute([store.as_str()])?;
            // An endpoint holds a '/', which no name does.
            let names = params![store.as_str(), endpoint.to_string()];
            transaction
                .prepare(
                    "INSERT INTO epochs (store, prefix, epoch)
                        SELECT ?2, prefix, epoch FROM epochs WHERE store = ?1
                     ON CONFLICT (store, prefix) DO UPDATE SET epoch = max(epoch, excluded.epoch)",
                )?
                .execute(names)?;
            transaction.prepare("DELETE FROM epochs WHERE store = ?1")?.execute([store.as_str()])?;
        }
        Change::PutRequest { request, subject, at } => put_request(transaction, request, subject, *at, sealing)?,
        Change::ForgetRequests { before } => {
            transaction.prepare("DELETE FROM requests WHERE at < ?1")?.execute([before.0.cast_signed()])?;
        }
        Change::PutEnded { uid, at } => {
            transaction
                .prepare("INSERT OR REPLACE INTO ended (uid, at) VALUES (?1, ?2)")?
                .execute(params![uid.as_str(), at.0.cast_signed()])?;
        }
        Change::ForgetEnded { before } => {
            transaction.prepare("DELETE FROM ended WHERE at < ?1")?.execute([before.0.cast_signed()])?;
        }
        Change::PutWorker { worker, scheduling } => {
            let scheduling = match scheduling {
                Scheduling::Active => {
                    return apply(transaction, &Change::DeleteWorker { worker: worker.clone() }, sealing);
                }
                Scheduling::Cordoned => "cordoned",
                Scheduling::Draining => "draining",
            };
            transaction
                .prepare("INSERT OR REPLACE INTO workers (name, scheduling) VALUES (?1, ?2)")?
                .execute([worker.as_str(), scheduling])?;
        }
        Change::DeleteWorker { worker } => {
            transaction.prepare("DELETE FROM workers WHERE name = ?1")?.execute([worker.as_str()])?;
        }
        Change::PutEvent(event) => events::put(transaction, event)?,
        Change::PutAudit(record) => audit::put(transaction, record)?,
        Change::PruneAudit { before } => audit::prune(transaction, *before)?,
        Change::PutTerm { term } => {
            transaction.prepare("UPDATE fleet SET term = ?1")?.execute([term.0.cast_signed()])?;
        }
    }
    Ok(())
}

fn put_request(
    transaction: &Connection,
    request: &RequestId,
    subject: &Subject,
    at: Timestamp,
    sealing: &Sealing,
) -> Result<(), StoreError> {
    let subject = match subject {
        Subject::Environment(name) => name.to_string(),
        Subject::Store(name) => format!("{STORE_SUBJECT}{name}"),
        Subject::Batch => BATCH_SUBJECT.to_owned(),
    };
    // A short password could be guessed from the digest of the request that gave it.
    let digest = seal(sealing, &place_of_digest(&request.id), &request.digest);
    transaction
        .prepare("INSERT OR REPLACE INTO requests (id, digest, environment, at) VALUES (?1, ?2, ?3, ?4)")?
        .execute(params![request.id, digest, subject, at.0.cast_signed()])?;
    Ok(())
}

fn put_store(
    transaction: &Connection,
    store: &StoreName,
    url: &StoreUrl,
    sealing: &Sealing,
) -> Result<(), StoreError> {
    let url = seal(sealing, &place_of_store(store), url.expose());
    transaction
        .prepare("INSERT OR REPLACE INTO stores (name, url) VALUES (?1, ?2)")?
        .execute(params![store.as_str(), url])?;
    Ok(())
}

fn put_environment(
    transaction: &Connection,
    record: &EnvironmentRecord,
    sealing: &Sealing,
) -> Result<(), StoreError> {
    let grant = record.grant.as_ref();
    let uid = &record.uid;
    let (sdk_key, pending_key) = (record.sdk_key.as_ref(), record.pending_key.as_ref());
    let sdk_key = sdk_key.map(|key| seal(sealing, &place_of_key(uid, &record.spec, "sdk_key"), key.expose()));
    let pending_key =
        pending_key.map(|key| seal(sealing, &place_of_key(uid, &record.spec, "pending_key"), key.expose()));
    transaction
        .prepare(
            "INSERT OR REPLACE INTO environments (name, uid, spec, sdk_key, pending_key, paused, removal, generation,
                change_number, resync, take_over, grant_worker, grant_epoch, grant_id, grant_intent, released,
                created, updated, rotation_failure, rotation_message, predecessor_worker, predecessor_epoch,
                predecessor_id, accepted_resync)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20,
                ?21, ?22, ?23, ?24)",
        )?
        .execute(params![
            record.name.as_str(),
            record.uid.as_str(),
            v1::EnvironmentSpec::from(&record.spec).encode_to_vec(),
            sdk_key,
            pending_key,
            record.paused,
            record.removal.map(|kind| match kind {
                RemovalKind::Release => "release",
                RemovalKind::Purge => "purge",
            }),
            record.generation.0.cast_signed(),
            record.change_number.cast_signed(),
            record.resync.cast_signed(),
            record.take_over.as_ref().map(|leave| match leave {
                TakeOver::Any => "any".to_owned(),
                TakeOver::Value(value) => format!("={value}"),
            }),
            grant.map(|grant| grant.worker.as_str()),
            grant.map(|grant| grant.grant.epoch.0.cast_signed()),
            grant.map(|grant| grant.grant.id.as_str()),
            grant.map(|grant| i32::from(v1::Intent::from(grant.grant.intent))),
            record.released.map(|epoch| epoch.0.cast_signed()),
            record.created.0.cast_signed(),
            record.updated.0.cast_signed(),
            record.failed_rotation.as_ref().map(|failed| match failed.reason {
                RotationFailure::OtherEnvironment => "other_environment",
                RotationFailure::FewerItems => "fewer_items",
                RotationFailure::KeyRejected => "key_rejected",
            }),
            record.failed_rotation.as_ref().map(|failed| failed.message.as_str()),
            record.predecessor.as_ref().map(|last| last.worker.as_str()),
            record.predecessor.as_ref().map(|last| last.grant.epoch.0.cast_signed()),
            record.predecessor.as_ref().map(|last| last.grant.id.as_str()),
            record.accepted_resync.map(u64::cast_signed),
        ])?;
    Ok(())
}

/// Writes all secrets anew.
pub(super) fn seal_again(
    transaction: &Connection,
    remembered: &Remembered,
    sealing: &Sealing,
) -> Result<(), StoreError> {
    for record in &remembered.environments {
        put_environment(transaction, record, sealing)?;
    }
    for (store, url) in &remembered.stores {
        put_store(transaction, store, url, sealing)?;
    }
    for (request, subject, at) in &remembered.requests {
        put_request(transaction, request, subject, *at, sealing)?;
    }
    Ok(())
}

/// Reads everything, and whether its secrets are sealed as they would be now.
pub(super) fn remembered(
    connection: &Connection,
    sealing: &Sealing,
) -> Result<(Remembered, SealCondition), StoreError> {
    let mut opener = Opener::new(sealing);
    let mut remembered = Remembered::default();
    let mut statement = connection.prepare("SELECT * FROM environments ORDER BY name")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        remembered.environments.push(environment(row, &mut opener)?);
    }
    let mut statement = connection.prepare("SELECT store, prefix, epoch FROM epochs ORDER BY store, prefix")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let store: String = row.get("store")?;
        let prefix: Prefix = parse(row, "prefix")?;
        let epoch = Epoch(number(row, "epoch")?);
        match StoreEndpoint::parse(&store) {
            Some(endpoint) => remembered.former_epochs.push((endpoint, prefix, epoch)),
            None => remembered.epochs.push((parse(row, "store")?, prefix, epoch)),
        }
    }
    let mut statement = connection.prepare("SELECT name, url FROM stores ORDER BY name")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let (name, url): (StoreName, String) = (parse(row, "name")?, row.get("url")?);
        let url = opener.open(&place_of_store(&name), &url)?;
        let url = StoreUrl::parse("url", &url).map_err(|error| corrupt("a store", &error))?;
        remembered.stores.push((name, url));
    }
    let mut statement = connection.prepare("SELECT id, digest, environment, at FROM requests ORDER BY at, id")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let (id, digest): (String, String) = (row.get("id")?, row.get("digest")?);
        let digest = opener.open(&place_of_digest(&id), &digest)?.as_str().to_owned();
        let request = RequestId { id, digest };
        let subject: String = row.get("environment")?;
        let subject = match subject.strip_prefix(STORE_SUBJECT) {
            None if subject == BATCH_SUBJECT => Subject::Batch,
            None => Subject::Environment(parse(row, "environment")?),
            Some(name) => Subject::Store(name.parse().map_err(|error: InvalidName| corrupt("a request", &error))?),
        };
        remembered.requests.push((request, subject, Timestamp(number(row, "at")?)));
    }
    let mut statement = connection.prepare("SELECT uid, at FROM ended ORDER BY at, uid")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        remembered.ended.push((parse(row, "uid")?, Timestamp(number(row, "at")?)));
    }
    let mut statement = connection.prepare("SELECT name, scheduling FROM workers ORDER BY name")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let scheduling: String = row.get("scheduling")?;
        let scheduling = match scheduling.as_str() {
            "cordoned" => Scheduling::Cordoned,
            "draining" => Scheduling::Draining,
            other => return Err(corrupt("the scheduling of a worker", &format_args!("{other:?}"))),
        };
        remembered.workers.push((parse(row, "name")?, scheduling));
    }
    remembered.events = events::read(connection)?;
    Ok((remembered, opener.condition()))
}

fn environment(row: &Row<'_>, opener: &mut Opener<'_>) -> Result<EnvironmentRecord, StoreError> {
    let name: EnvironmentName = parse(row, "name")?;
    let uid: Uid = parse(row, "uid")?;
    let within = |what: &str| format!("{what} of environment {name}");
    let spec: Vec<u8> = row.get("spec")?;
    let spec = v1::EnvironmentSpec::decode(spec.as_slice()).map_err(|error| corrupt(&within("spec"), &error))?;
    let spec = EnvironmentSpec::parse(&spec, "spec").map_err(|violations| {
        let fields: Vec<_> = violations.iter().map(ToString::to_string).collect();
        corrupt(&within("spec"), &fields.join("; "))
    })?;
    let mut key = |column: &'static str| -> Result<Option<SdkKeySource>, StoreError> {
        let Some(stored) = row.get::<_, Option<String>>(column)? else { return Ok(None) };
        let text = opener.open(&place_of_key(&uid, &spec, column), &stored)?;
        SdkKeySource::parse(column, &text).map(Some).map_err(|error| corrupt(&within(column), &error))
    };
    let (sdk_key, pending_key) = (key("sdk_key")?, key("pending_key")?);
    let removal: Option<String> = row.get("removal")?;
    let removal = match removal.as_deref() {
        None => None,
        Some("release") => Some(RemovalKind::Release),
        Some("purge") => Some(RemovalKind::Purge),
        Some(other) => return Err(corrupt(&within("removal"), &format_args!("{other:?}"))),
    };
    let take_over: Option<String> = row.get("take_over")?;
    let take_over = match take_over.as_deref() {
        None => None,
        Some("any") => Some(TakeOver::Any),
        Some(text) => {
            let value = text.strip_prefix('=').ok_or_else(|| corrupt(&within("take_over"), &"no value"))?;
            Some(TakeOver::Value(value.to_owned()))
        }
    };
    Ok(EnvironmentRecord {
        uid,
        spec,
        sdk_key,
        pending_key,
        failed_rotation: failed_rotation(row, &name)?,
        paused: row.get("paused")?,
        removal,
        generation: Generation(number(row, "generation")?),
        change_number: number(row, "change_number")?,
        resync: number(row, "resync")?,
        accepted_resync: row.get::<_, Option<i64>>("accepted_resync")?.map(i64::cast_unsigned),
        take_over,
        grant: grant(row, &name)?,
        predecessor: predecessor(row, &name)?,
        released: row.get::<_, Option<i64>>("released")?.map(|epoch| Epoch(epoch.cast_unsigned())),
        created: Timestamp(number(row, "created")?),
        updated: Timestamp(number(row, "updated")?),
        name,
    })
}

fn failed_rotation(row: &Row<'_>, name: &EnvironmentName) -> Result<Option<FailedRotation>, StoreError> {
    let reason: Option<String> = row.get("rotation_failure")?;
    let reason = match reason.as_deref() {
        None => return Ok(None),
        Some("other_environment") => RotationFailure::OtherEnvironment,
        Some("fewer_items") => RotationFailure::FewerItems,
        Some("key_rejected") => RotationFailure::KeyRejected,
        Some(other) => {
            return Err(corrupt(&format!("rotation_failure of environment {name}"), &format_args!("{other:?}")));
        }
    };
    Ok(Some(FailedRotation { reason, message: row.get("rotation_message")? }))
}

fn grant(row: &Row<'_>, name: &EnvironmentName) -> Result<Option<GrantRecord>, StoreError> {
    if row.get::<_, Option<String>>("grant_worker")?.is_none() {
        return Ok(None);
    }
    let what = format!("the grant of environment {name}");
    let intent: i32 = row.get("grant_intent")?;
    let intent = match v1::Intent::try_from(intent) {
        Ok(v1::Intent::Warm) => Intent::Warm,
        Ok(v1::Intent::Serve) => Intent::Serve,
        Ok(v1::Intent::Release) => Intent::Release,
        Ok(v1::Intent::Purge) => Intent::Purge,
        Ok(v1::Intent::Unspecified) | Err(_) => return Err(corrupt(&what, &format_args!("intent {intent}"))),
    };
    Ok(Some(GrantRecord {
        worker: parse(row, "grant_worker")?,
        grant: Grant { epoch: Epoch(number(row, "grant_epoch")?), id: grant_id(row, "grant_id", &what)?, intent },
    }))
}

fn predecessor(row: &Row<'_>, name: &EnvironmentName) -> Result<Option<GrantRecord>, StoreError> {
    if row.get::<_, Option<String>>("predecessor_worker")?.is_none() {
        return Ok(None);
    }
    let id = grant_id(row, "predecessor_id", &format!("the last grant of environment {name}"))?;
    let epoch = Epoch(number(row, "predecessor_epoch")?);
    let grant = Grant { epoch, id, intent: Intent::Serve };
    Ok(Some(GrantRecord { worker: parse(row, "predecessor_worker")?, grant }))
}

fn grant_id(row: &Row<'_>, column: &str, what: &str) -> Result<GrantId, StoreError> {
    let id: String = row.get(column)?;
    GrantId::parse(&id).ok_or_else(|| corrupt(what, &"its id"))
}

pub(super) fn number(row: &Row<'_>, column: &str) -> Result<u64, StoreError> {
    Ok(row.get::<_, i64>(column)?.cast_unsigned())
}

pub(super) fn parse<T: std::str::FromStr<Err = flotilla_proto::InvalidName>>(
    row: &Row<'_>,
    column: &str,
) -> Result<T, StoreError> {
    let text: String = row.get(column)?;
    text.parse().map_err(|error| corrupt(column, &error))
}
