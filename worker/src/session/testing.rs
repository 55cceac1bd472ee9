//! What tests of several modules are made of.

use std::sync::Arc;
use std::time::Duration;

use flotilla_proto::session::Assignment;
use flotilla_proto::{
    EnvironmentReport, EnvironmentSpec, Epoch, Generation, Grant, GrantId, Incarnation, Intent, Labels,
    SdkKeySource, StoreUrl, Term, Timestamp, v1,
};

use super::{FileSources, Memory, Profile};

pub(crate) const FLEET: &str = "fleet-1";

pub(crate) fn profile() -> Profile {
    Profile {
        worker: "w1".parse().unwrap(),
        incarnation: Incarnation { state_directory: "dir-1".parse().unwrap(), start_counter: 3, random: 7 },
        version: "0.0.0".to_owned(),
        capacity: None,
        labels: Labels::new(),
        file_sources: FileSources::Unavailable,
    }
}

pub(crate) fn assignment(environment: &str, uid: &str, epoch: u64) -> Assignment {
    let spec = v1::EnvironmentSpec {
        prefix: format!("p:{environment}"),
        stream_uri: "https://stream.example.test".to_owned(),
        base_uri: "https://sdk.example.test".to_owned(),
        ..v1::EnvironmentSpec::default()
    };
    Assignment {
        environment: environment.parse().unwrap(),
        uid: uid.parse().unwrap(),
        generation: Generation(1),
        grant: Grant {
            epoch: Epoch(epoch),
            id: GrantId::parse(&format!("g-{uid}-{epoch}")).unwrap(),
            intent: Intent::Serve,
        },
        spec: EnvironmentSpec::parse(&spec, "spec").unwrap(),
        sdk_key: Some(SdkKeySource::parse("sdk_key", "sdk-secret").unwrap()),
        store_url: StoreUrl::parse("store_url", "redis://127.0.0.1:1").unwrap(),
        resync: 0,
        accept_regression: false,
        take_over: None,
    }
}

pub(crate) fn memory(assignments: Vec<Assignment>) -> Memory {
    Memory {
        fleet: FLEET.parse().unwrap(),
        highest_term: Term(5),
        lease: Duration::from_secs(9),
        last_confirmed: Timestamp(1_000_000),
        assignments: assignments.into_iter().map(Arc::new).collect(),
        unusable: Vec::new(),
    }
}

pub(crate) fn report(of: &Assignment) -> EnvironmentReport {
    EnvironmentReport::new(of.environment.clone(), of.uid.clone(), of.generation, of.grant.clone())
}
