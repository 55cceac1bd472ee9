//! The environments of a relay, in the place of one of our own.

use flotilla_proto::StoreName;
use flotilla_proto::manifest::MANAGED_BY;
use flotilla_proto::v1::{DeleteEnvironmentRequest, Prune};
use tonic::Code;

use super::ENVIRONMENT;
use crate::client::Client;
use crate::failure::Failure;
use crate::relay_configuration::{RelayConfiguration, SecretPlace, StoreChoice};
use crate::{import, manifest};

/// What the environments carry, so that those that the relay has no more are removed at the next start.
const MANAGER: &str = "flotilla-dev-relay";

/// Makes sure that the relay's environments are there, and not the one of an earlier run without it. Nothing is taken over
/// from another fleet: these are prefixes that somebody uses.
pub(super) async fn settle(client: &Client, configuration: &RelayConfiguration) -> Result<(), Failure> {
    if configuration.environments.iter().all(|one| one.name.as_str() != ENVIRONMENT) {
        let name = ENVIRONMENT.to_owned();
        let request = client.request(DeleteEnvironmentRequest { name, abandon: true, ..Default::default() });
        match client.environments().delete_environment(request).await {
            Ok(_) => {}
            Err(status) if status.code() == Code::NotFound => {}
            Err(status) => return Err(client.failure(&status)),
        }
    }
    let store = StoreChoice::Present(StoreName::default_store());
    let declared = configuration.declared(&store, &SecretPlace::Variables);
    let mut request = import::request(configuration, &declared)?;
    for spec in request.entries.iter_mut().filter_map(|entry| entry.spec.as_mut()) {
        spec.labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    }
    request.prune = Some(Prune { managed_by: MANAGER.to_owned(), accept_blast_radius: true });
    let request = client.request(request);
    let applied = client.answer(client.environments().batch_apply_environments(request).await)?;
    manifest::failure(&applied).map_or(Ok(()), Err)
}
