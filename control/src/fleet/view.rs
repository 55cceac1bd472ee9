//! How the fleet looks from outside: the API's messages, and numbers for the metrics.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hasher};
use std::ops::Bound;

use flotilla_proto::{EnvironmentName, Initialization, Labels, Timestamp, Uid, WorkerName, v1};
use prost::Message as _;

use super::conditions::{Holder, Surroundings, initialization};
use super::environment::{Environment, MoveReason};
use super::worker::{Leaving, Link, Worker};
use super::{Counts, Fleet};

/// A look at one environment that makes no message of it yet: most of those that a filter sees are left out.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Glance<'a> {
    fleet: &'a Fleet,
    environment: &'a Environment,
}

impl<'a> Glance<'a> {
    /// Its name.
    pub(crate) fn name(&self) -> &'a EnvironmentName {
        &self.environment.record.name
    }

    /// Tells it from earlier and later ones of its name.
    pub(crate) fn uid(&self) -> &'a Uid {
        &self.environment.record.uid
    }

    /// Its labels.
    pub(crate) fn labels(&self) -> &'a Labels {
        &self.environment.record.spec.labels
    }

    /// What SDKs find.
    pub(crate) fn initialization(&self) -> Initialization {
        initialization(self.environment, self.fleet.holder(self.environment))
    }

    /// All of it, as users see it.
    pub(crate) fn show(&self) -> v1::Environment {
        self.fleet.show(self.environment)
    }
}

impl Fleet {
    /// One environment as users see it.
    pub(crate) fn environment(&self, name: &EnvironmentName) -> Option<v1::Environment> {
        self.environments.get(name).map(|environment| self.show(environment))
    }

    /// How many environments there are.
    pub(crate) fn environment_count(&self) -> usize {
        self.environments.len()
    }

    /// A look at one environment.
    pub(crate) fn glance(&self, name: &EnvironmentName) -> Option<Glance<'_>> {
        self.environments.get(name).map(|environment| Glance { fleet: self, environment })
    }

    /// A look at the environments whose names come after this one, ordered by name; at all of them without one.
    pub(crate) fn glances_after(&self, after: Option<&EnvironmentName>) -> impl Iterator<Item = Glance<'_>> {
        let start = after.map_or(Bound::Unbounded, |name| Bound::Excluded(name.clone()));
        let range = self.environments.range((start, Bound::Unbounded));
        range.map(|(_, environment)| Glance { fleet: self, environment })
    }

    /// All workers, ordered by name, without the names of their environments.
    pub(crate) fn workers(&self) -> impl Iterator<Item = v1::Worker> + '_ {
        self.workers.iter().map(|(name, worker)| self.show_worker(name, worker))
    }

    /// One worker, without the names of its environments.
    pub(crate) fn worker_summary(&self, name: &WorkerName) -> Option<v1::Worker> {
        self.workers.get(name).map(|worker| self.show_worker(name, worker))
    }

    /// One worker, with the names of its environments.
    pub(crate) fn worker(&self, name: &WorkerName) -> Option<v1::Worker> {
        let worker = self.workers.get(name)?;
        let environment_names = worker.holds.iter().map(ToString::to_string).collect();
        Some(v1::Worker { environment_names, ..self.show_worker(name, worker) })
    }

    /// The fleet summed up.
    pub(crate) fn status(&self) -> v1::GetFleetStatusResponse {
        let mut status = v1::GetFleetStatusResponse {
            fleet_id: self.settings.fleet.to_string(),
            term: self.term.0,
            version: self.settings.version.clone(),
            environments: count(self.environments.len()),
            workers: count(self.workers.len()),
            workers_connected: count(self.sessions.len()),
            ..Default::default()
        };
        let mut oldest: Option<(Timestamp, &EnvironmentName)> = None;
        for (name, environment) in &self.environments {
            let found = initialization(environment, self.holder(environment));
            match found {
                Initialization::Current => status.current += 1,
                Initialization::Stale => status.stale += 1,
                Initialization::Uninitialized => status.uninitialized += 1,
                Initialization::Unknown => status.unknown += 1,
            }
            if environment.record.paused {
                status.paused += 1;
                continue;
            }
            if found != Initialization::Current {
                status.not_current += 1;
            }
            let byte = environment.observed.as_ref().and_then(|observed| observed.report.last_byte_time);
            if let Some(byte) = byte
                && oldest.is_none_or(|(time, _)| byte < time)
            {
                oldest = Some((byte, name));
            }
        }
        if let Some((time, name)) = oldest {
            status.oldest_environment = name.to_string();
            status.oldest_byte_time = Some(time.to_proto());
        }
        status
    }

    /// The numbers for the metrics.
    pub(crate) fn counts(&self) -> Counts {
        let status = self.status();
        let mut workers = BTreeMap::from([("connected", 0), ("disconnected", 0), ("gone", 0)]);
        for worker in self.workers.values() {
            let state = match worker.link {
                Link::Connected(_) => "connected",
                Link::Disconnected { .. } => "disconnected",
                Link::Gone { .. } => "gone",
            };
            *workers.entry(state).or_default() += 1;
        }
        let moves = |reason: MoveReason| (reason.as_str(), self.moves.get(&reason).copied().unwrap_or(0));
        Counts {
            environments: BTreeMap::from([
                (Initialization::Current.as_str(), u64::from(status.current)),
                (Initialization::Stale.as_str(), u64::from(status.stale)),
                (Initialization::Uninitialized.as_str(), u64::from(status.uninitialized)),
                (Initialization::Unknown.as_str(), u64::from(status.unknown)),
            ]),
            workers,
            moves: MoveReason::ALL.into_iter().map(moves).collect(),
            session_reconnects: self.reconnects,
        }
    }

    /// What an environment's own state does not say.
    pub(super) fn surroundings(&self, environment: &Environment) -> Surroundings {
        Surroundings {
            holder: self.holder(environment),
            in_force: self.is_in_force(environment),
            any_worker: !self.sessions.is_empty(),
        }
    }

    fn holder(&self, environment: &Environment) -> Holder {
        let worker = environment.holder.as_ref().and_then(|holder| self.workers.get(holder));
        match worker {
            Some(worker) if worker.is_within_lease() && worker.about.is_some() => Holder::WithinLease,
            Some(worker) if worker.is_within_lease() => Holder::Awaited,
            Some(_) | None => Holder::None,
        }
    }

    /// An environment as users see it.
    pub(super) fn show(&self, environment: &Environment) -> v1::Environment {
        let record = &environment.record;
        v1::Environment {
            name: record.name.to_string(),
            uid: record.uid.to_string(),
            spec: Some((&record.spec).into()),
            status: Some(self.show_status(environment)),
            paused: record.paused,
            removing: record.removal.is_some(),
            sdk_key_masked: record.sdk_key.as_ref().map(flotilla_proto::SdkKeySource::masked).unwrap_or_default(),
            generation: record.generation.0,
            etag: environment.etag(),
            create_time: Some(record.created.to_proto()),
            update_time: Some(record.updated.to_proto()),
        }
    }

    fn show_status(&self, environment: &Environment) -> v1::EnvironmentStatus {
        let time = |time: Option<Timestamp>| time.map(Timestamp::to_proto);
        let report = environment.observed.as_ref().map(|observed| &observed.report);
        v1::EnvironmentStatus {
            initialization: v1::Initialization::from(initialization(environment, self.holder(environment))).into(),
            worker: environment.holder.as_ref().map(ToString::to_string).unwrap_or_default(),
            epoch: environment.epoch().unwrap_or_default().0,
            conditions: environment.conditions.iter().map(Into::into).collect(),
            flags: report.map(|report| report.flags),
            segments: report.map(|report| report.segments),
            bytes: report.map(|report| report.bytes),
            last_event_time: time(report.and_then(|report| report.last_event_time)),
            last_byte_time: time(report.and_then(|report| report.last_byte_time)),
            last_heartbeat_time: time(report.and_then(|report| report.last_heartbeat_time)),
            last_write_time: time(report.and_then(|report| report.last_write_time)),
            last_error: report.and_then(|report| report.last_error.as_ref()).map(Into::into),
        }
    }

    /// Digest of what watchers are told of: everything but counters and times.
    pub(super) fn digest(&self, environment: &Environment) -> u64 {
        let mut shown = self.show(environment);
        if let Some(status) = &mut shown.status {
            (status.flags, status.segments, status.bytes) = (None, None, None);
            (status.last_event_time, status.last_byte_time) = (None, None);
            (status.last_heartbeat_time, status.last_write_time) = (None, None);
            if let Some(error) = &mut status.last_error {
                error.time = None;
            }
            for condition in &mut status.conditions {
                condition.last_transition_time = None;
            }
        }
        let mut hasher = DefaultHasher::new();
        hasher.write(&shown.encode_to_vec());
        hasher.finish()
    }

    /// Digest of what watchers are told of: everything but bytes and times.
    pub(super) fn worker_digest(&self, name: &WorkerName, worker: &Worker) -> u64 {
        let shown = v1::Worker { bytes: 0, last_heartbeat_time: None, ..self.show_worker(name, worker) };
        let mut hasher = DefaultHasher::new();
        hasher.write(&shown.encode_to_vec());
        hasher.finish()
    }

    /// Of how many environments a worker has stream and data besides their owner.
    pub(super) fn standbys_at(&self, worker: &WorkerName) -> usize {
        let stands_by = |name: &&EnvironmentName| {
            self.environments.get(*name).is_some_and(|environment| environment.standby() == Some(worker))
        };
        self.handovers.iter().filter(stands_by).count()
    }

    fn show_worker(&self, name: &WorkerName, worker: &Worker) -> v1::Worker {
        let about = worker.about.as_ref();
        let bytes = |environment: &EnvironmentName| {
            let observed = self.environments.get(environment)?.observed.as_ref()?;
            (observed.worker == *name).then_some(observed.report.bytes)
        };
        let state = match worker.link {
            Link::Connected(_) => v1::WorkerState::Connected,
            Link::Disconnected { .. } => v1::WorkerState::Disconnected,
            Link::Gone { .. } => v1::WorkerState::Gone,
        };
        v1::Worker {
            name: name.to_string(),
            state: state.into(),
            address: about.map(|about| about.address.clone()).unwrap_or_default(),
            version: about.map(|about| about.version.clone()).unwrap_or_default(),
            labels: about.map(|about| about.labels.clone()).unwrap_or_default(),
            capacity: about.and_then(|about| about.capacity).unwrap_or_default(),
            environments: count(worker.holds.len()),
            bytes: worker.holds.iter().filter_map(bytes).sum(),
            connect_time: about.map(|about| about.connected_at.to_proto()),
            last_heartbeat_time: about.map(|about| about.last_heard.to_proto()),
            environment_names: Vec::new(),
            scheduling: worker.scheduling.to_proto().into(),
            leaving: worker.leaving != Leaving::No,
            standby: count(self.standbys_at(name)),
        }
    }
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
