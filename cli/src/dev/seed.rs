//! The environment that is there from the start.

use std::path::PathBuf;

use flotilla_proto::SdkKeySource;
use flotilla_proto::v1::{
    CreateEnvironmentRequest, DeleteEnvironmentRequest, Environment, EnvironmentSpec, FileSource,
    GetEnvironmentRequest, Source, StreamSource, source::Kind,
};
use tonic::Code;

use super::flags::FlagFile;
use super::{ENVIRONMENT, PREFIX, relay};
use crate::client::Client;
use crate::failure::Failure;

/// Where its data comes from.
#[derive(Debug)]
pub(super) enum SeedSource {
    /// LaunchDarkly's stream, with this key.
    LaunchDarkly(SdkKeySource),
    /// A flag file.
    File(FlagFile),
}

impl SeedSource {
    /// Where the workers read flag files.
    pub(super) fn directory(&self) -> Option<PathBuf> {
        match self {
            Self::LaunchDarkly(_) => None,
            Self::File(file) => Some(file.directory.clone()),
        }
    }

    fn kind(&self) -> Kind {
        match self {
            Self::LaunchDarkly(_) => Kind::Stream(StreamSource::default()),
            Self::File(file) => Kind::File(FileSource { path: file.name.clone() }),
        }
    }

    /// Whether the environment of an earlier run serves as it is. A key cannot be compared, so it is given anew.
    fn is_served_by(&self, environment: &Environment) -> bool {
        let present = environment.spec.as_ref().and_then(|spec| spec.source.as_ref()?.kind.as_ref());
        let same = match (self, present) {
            (Self::File(file), Some(Kind::File(present))) => present.path == file.name,
            (Self::File(_) | Self::LaunchDarkly(_), _) => false,
        };
        same && !environment.paused && !environment.removing
    }
}

/// Makes sure that the environment is there, and of this source.
pub(super) async fn settle(client: &Client, source: &SeedSource) -> Result<(), Failure> {
    relay::abandon(client, |_| false).await?;
    let name = ENVIRONMENT.to_owned();
    let request = client.request(GetEnvironmentRequest { name: name.clone() });
    match client.environments().get_environment(request).await {
        Ok(answer) => {
            let environment = answer.into_inner().environment.unwrap_or_default();
            if source.is_served_by(&environment) {
                return Ok(());
            }
            // Its data stays until the successor has replaced it.
            let request = client.request(DeleteEnvironmentRequest {
                name,
                abandon: true,
                ..DeleteEnvironmentRequest::default()
            });
            client.answer(client.environments().delete_environment(request).await)?;
        }
        Err(status) if status.code() == Code::NotFound => {}
        Err(status) => return Err(client.failure(&status)),
    }
    let spec = EnvironmentSpec {
        display_name: "flotilla dev".to_owned(),
        prefix: PREFIX.to_owned(),
        source: Some(Source { kind: Some(source.kind()) }),
        ..EnvironmentSpec::default()
    };
    let sdk_key = match source {
        SeedSource::LaunchDarkly(key) => key.expose().to_owned(),
        SeedSource::File(_) => String::new(),
    };
    let request = client.request(CreateEnvironmentRequest {
        name: ENVIRONMENT.to_owned(),
        spec: Some(spec),
        sdk_key,
        // The prefix is that of `flotilla dev`, whichever fleet wrote it last.
        take_over: true,
        request_id: String::new(),
        validate_only: false,
    });
    client.answer(client.environments().create_environment(request).await)?;
    Ok(())
}
