//! The environments of a relay, in the place of one of our own.

use std::collections::BTreeMap;

use flotilla_proto::StoreName;
use flotilla_proto::manifest::MANAGED_BY;
use flotilla_proto::v1::{DeleteEnvironmentRequest, Environment, EnvironmentFilter, ListEnvironmentsRequest};
use tonic::Code;

use super::ENVIRONMENT;
use crate::client::Client;
use crate::failure::Failure;
use crate::relay_configuration::{RelayConfiguration, SecretPlace, StoreChoice};
use crate::{import, manifest};

/// What the environments carry, so that those that are not meant any more are forgotten at the next start.
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
    // What has another name or prefix now is in the way; its data stays until the successor has replaced it.
    abandon(client, |earlier| {
        let prefix = earlier.spec.as_ref().map(|spec| spec.prefix.as_str());
        let mut meant = configuration.environments.iter();
        meant.any(|one| one.name.as_str() == earlier.name && Some(one.prefix.as_str()) == prefix)
    })
    .await?;
    let store = StoreChoice::Present(StoreName::default_store());
    let declared = configuration.declared(&store, &SecretPlace::Variables);
    let mut request = import::request(configuration, &declared)?;
    for spec in request.entries.iter_mut().filter_map(|entry| entry.spec.as_mut()) {
        spec.labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    }
    let request = client.request(request);
    let applied = client.answer(client.environments().batch_apply_environments(request).await)?;
    manifest::failure(&applied).map_or(Ok(()), Err)
}

/// Forgets the relay's environments of an earlier run, but for those that are meant.
pub(super) async fn abandon(client: &Client, is_meant: impl Fn(&Environment) -> bool) -> Result<(), Failure> {
    let labels = BTreeMap::from([(MANAGED_BY.to_owned(), MANAGER.to_owned())]);
    let filter = Some(EnvironmentFilter { labels, ..EnvironmentFilter::default() });
    let mut page_token = String::new();
    loop {
        let request = ListEnvironmentsRequest { page_token, filter: filter.clone(), ..Default::default() };
        let page = client.answer(client.environments().list_environments(client.request(request)).await)?;
        for earlier in page.environments.into_iter().filter(|one| !is_meant(one)) {
            let request = DeleteEnvironmentRequest { name: earlier.name, abandon: true, ..Default::default() };
            client.answer(client.environments().delete_environment(client.request(request)).await)?;
        }
        if page.next_page_token.is_empty() {
            return Ok(());
        }
        page_token = page.next_page_token;
    }
}
