//! Adding, reading, changing and removing environments.

use flotilla_proto::{EnvironmentName, EnvironmentSpec, FieldViolation, Refusal, SdkKeySource, hex, v1};
use prost::Message;
use sha2::{Digest as _, Sha256};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::asked::begin;
use super::filter::Filter;
use super::page::Page;
use super::{Api, apply, environment_name, unfit_reply, update, watch};
use crate::audit::AuditEntry;
use crate::driver::View;
use crate::fleet::{
    Action, Claim, Command, Edit, Mutation, Proof, Regression, RemovalRequest, Reply, RequestId,
    no_such_environment,
};

/// The handler of `EnvironmentService`.
#[derive(Debug)]
pub(super) struct Handler(pub(super) Api);

/// The part of a mutation that all requests share.
struct Terms {
    etag: Option<String>,
    request: Option<RequestId>,
    validate_only: bool,
}

macro_rules! terms {
    ($kind:literal, $request:expr) => {
        request_id($kind, &$request.request_id, $request).map(|request| Terms {
            etag: Some($request.etag.clone()).filter(|etag| !etag.is_empty()),
            request,
            validate_only: $request.validate_only,
        })
    };
}

impl Handler {
    async fn mutate(
        &self,
        entry: Option<AuditEntry>,
        mutation: Result<Mutation, Refusal>,
    ) -> Result<Option<v1::Environment>, Refusal> {
        match self.0.carry_out(entry, mutation.map(Command::Mutate)).await? {
            Reply::Environment(environment) => Ok(environment.map(|environment| *environment)),
            Reply::Worker(_) | Reply::Answer(_) | Reply::Applied(_) | Reply::Store(_) | Reply::Checked(_) => {
                Err(unfit_reply())
            }
        }
    }

    fn creation(&self, request: &v1::CreateEnvironmentRequest) -> Result<Mutation, Refusal> {
        let id = request_id("create", &request.request_id, request)?;
        let (environment, spec, sdk_key) = wanted(&request.name, request.spec.as_ref(), &request.sdk_key)?;
        let action = Action::Create { uid: self.0.fresh_uid(), spec, sdk_key, claim: claim(request.take_over) };
        Ok(Mutation { environment, action, etag: None, request: id, validate_only: request.validate_only })
    }

    async fn list(&self, request: v1::ListEnvironmentsRequest) -> Result<v1::ListEnvironmentsResponse, Refusal> {
        let listing: Vec<u8> = request.filter.as_ref().map(Message::encode_to_vec).unwrap_or_default();
        let page =
            Page::parse(request.page_size, &request.page_token, &[b"environments:", listing.as_slice()].concat())?;
        let filter = Filter::parse(request.filter)?;
        self.0.driver.read(move |view| list_page(view, &page, &filter)).await
    }
}

/// A change of the environment of that name. What is wrong first is told.
fn mutation(
    name: &str,
    terms: Result<Terms, Refusal>,
    action: impl FnOnce() -> Result<Action, Refusal>,
) -> Result<Mutation, Refusal> {
    let Terms { etag, request, validate_only } = terms?;
    let action = action()?;
    Ok(Mutation { environment: environment_name("name", name)?, action, etag, request, validate_only })
}

fn update_of(request: &v1::UpdateEnvironmentRequest) -> Result<Action, Refusal> {
    let change = update::spec_change(request.update_mask.clone(), request.spec.clone())?;
    let sdk_key = match request.sdk_key.as_str() {
        "" => None,
        key => Some(SdkKeySource::parse("sdk_key", key)?),
    };
    Ok(Edit::Update { change, sdk_key }.into())
}

fn rotation_of(request: &v1::RotateSdkKeyRequest) -> Result<Action, Refusal> {
    let sdk_key = SdkKeySource::parse("sdk_key", &request.sdk_key)?;
    let proof = if request.force { Proof::Skipped } else { Proof::Required };
    Ok(Edit::RotateSdkKey { sdk_key, proof }.into())
}

fn list_page(view: &View<'_>, page: &Page, filter: &Filter) -> v1::ListEnvironmentsResponse {
    // An empty text is no name: this is the first page.
    let after: Option<EnvironmentName> = page.after.parse().ok();
    let matching = |after| view.fleet.glances_after(after).filter(|one| filter.matches(*one));
    let (environments, next_page_token) =
        page.fill(matching(after.as_ref()).map(|found| (found.name().to_string(), found.show())));
    // Whoever turns the pages knows it from the first one.
    let total = match after {
        Some(_) => 0,
        None if filter.is_empty() => view.fleet.environment_count(),
        None => matching(None).count(),
    };
    v1::ListEnvironmentsResponse {
        environments,
        next_page_token,
        total_size: u64::try_from(total).unwrap_or(u64::MAX),
        revision: view.history.newest().to_string(),
    }
}

/// What an environment shall be, or all that is wrong with it.
pub(super) fn wanted(
    name: &str,
    spec: Option<&v1::EnvironmentSpec>,
    sdk_key: &str,
) -> Result<(EnvironmentName, EnvironmentSpec, Option<SdkKeySource>), Refusal> {
    let mut violations = Vec::new();
    let name = environment_name("name", name).map_err(|refusal| violations.extend(refusal.violations)).ok();
    let spec = EnvironmentSpec::parse(spec.unwrap_or(&v1::EnvironmentSpec::default()), "spec")
        .map_err(|more| violations.extend(more))
        .ok();
    let file = spec.as_ref().is_some_and(EnvironmentSpec::is_file);
    let sdk_key = match (file, sdk_key) {
        (_, "") => None,
        (true, _) => {
            let description = "a file source takes no SDK key; leave it out";
            violations.push(FieldViolation::new("sdk_key", description));
            None
        }
        (false, key) => SdkKeySource::parse("sdk_key", key).map_err(|violation| violations.push(violation)).ok(),
    };
    match (name, spec) {
        (Some(name), Some(spec)) if violations.is_empty() => Ok((name, spec, sdk_key)),
        _ => Err(Refusal::fields(violations)),
    }
}

pub(super) fn claim(take_over: bool) -> Claim {
    if take_over { Claim::TakeOver } else { Claim::Respect }
}

fn removal(purge: bool, abandon: bool) -> Result<RemovalRequest, Refusal> {
    match (purge, abandon) {
        (false, false) => Ok(RemovalRequest::Release),
        (true, false) => Ok(RemovalRequest::Purge),
        (false, true) => Ok(RemovalRequest::Abandon),
        (true, true) => {
            let why = "purge and abandon exclude each other: an abandoned environment's data is not touched";
            Err(FieldViolation::new("abandon", why).into())
        }
    }
}

/// The caller's id of a request, with a digest of all of it. Two requests of the same id are the same if their digests are.
pub(super) fn request_id(kind: &str, id: &str, request: &impl Message) -> Result<Option<RequestId>, Refusal> {
    if id.is_empty() {
        return Ok(None);
    }
    if id.chars().count() > 128 || id.chars().any(char::is_control) {
        let description = "up to 128 characters, without control characters";
        return Err(FieldViolation::new("request_id", description).into());
    }
    let mut digest = Sha256::new();
    digest.update(kind);
    digest.update([0]);
    digest.update(request.encode_to_vec());
    Ok(Some(RequestId { id: id.to_owned(), digest: hex::encode(&digest.finalize()) }))
}

#[tonic::async_trait]
impl v1::environment_service_server::EnvironmentService for Handler {
    async fn create_environment(
        &self,
        request: Request<v1::CreateEnvironmentRequest>,
    ) -> Result<Response<v1::CreateEnvironmentResponse>, Status> {
        let (request, entry) = begin(request)?;
        let environment = self.mutate(entry, self.creation(&request)).await?;
        Ok(Response::new(v1::CreateEnvironmentResponse { environment }))
    }

    async fn get_environment(
        &self,
        request: Request<v1::GetEnvironmentRequest>,
    ) -> Result<Response<v1::GetEnvironmentResponse>, Status> {
        let name = environment_name("name", &request.into_inner().name)?;
        let wanted = name.clone();
        let found = self.0.driver.read(move |view| view.fleet.environment(&wanted)).await?;
        let environment = found.ok_or_else(|| no_such_environment(&name))?;
        Ok(Response::new(v1::GetEnvironmentResponse { environment: Some(environment) }))
    }

    async fn list_environments(
        &self,
        request: Request<v1::ListEnvironmentsRequest>,
    ) -> Result<Response<v1::ListEnvironmentsResponse>, Status> {
        Ok(Response::new(self.list(request.into_inner()).await?))
    }

    async fn update_environment(
        &self,
        request: Request<v1::UpdateEnvironmentRequest>,
    ) -> Result<Response<v1::UpdateEnvironmentResponse>, Status> {
        let (request, entry) = begin(request)?;
        let mutation = mutation(&request.name, terms!("update", &request), || update_of(&request));
        let environment = self.mutate(entry, mutation).await?;
        Ok(Response::new(v1::UpdateEnvironmentResponse { environment }))
    }

    async fn delete_environment(
        &self,
        request: Request<v1::DeleteEnvironmentRequest>,
    ) -> Result<Response<v1::DeleteEnvironmentResponse>, Status> {
        let (request, entry) = begin(request)?;
        let action = || removal(request.purge, request.abandon).map(Action::Delete);
        let mutation = mutation(&request.name, terms!("delete", &request), action);
        let environment = self.mutate(entry, mutation).await?;
        Ok(Response::new(v1::DeleteEnvironmentResponse { environment }))
    }

    async fn pause_environment(
        &self,
        request: Request<v1::PauseEnvironmentRequest>,
    ) -> Result<Response<v1::PauseEnvironmentResponse>, Status> {
        let (request, entry) = begin(request)?;
        let mutation = mutation(&request.name, terms!("pause", &request), || Ok(Edit::Pause.into()));
        let environment = self.mutate(entry, mutation).await?;
        Ok(Response::new(v1::PauseEnvironmentResponse { environment }))
    }

    async fn resume_environment(
        &self,
        request: Request<v1::ResumeEnvironmentRequest>,
    ) -> Result<Response<v1::ResumeEnvironmentResponse>, Status> {
        let (request, entry) = begin(request)?;
        let mutation = mutation(&request.name, terms!("resume", &request), || Ok(Edit::Resume.into()));
        let environment = self.mutate(entry, mutation).await?;
        Ok(Response::new(v1::ResumeEnvironmentResponse { environment }))
    }

    async fn resync_environment(
        &self,
        request: Request<v1::ResyncEnvironmentRequest>,
    ) -> Result<Response<v1::ResyncEnvironmentResponse>, Status> {
        let (request, entry) = begin(request)?;
        let id = request_id("resync", &request.request_id, &request);
        let terms = id.map(|id| Terms { etag: None, request: id, validate_only: request.validate_only });
        let regression = if request.accept_regression { Regression::Accept } else { Regression::Doubt };
        let action = Edit::Resync { claim: claim(request.take_over), regression };
        let environment = self.mutate(entry, mutation(&request.name, terms, || Ok(action.into()))).await?;
        Ok(Response::new(v1::ResyncEnvironmentResponse { environment }))
    }

    async fn rotate_sdk_key(
        &self,
        request: Request<v1::RotateSdkKeyRequest>,
    ) -> Result<Response<v1::RotateSdkKeyResponse>, Status> {
        let (request, entry) = begin(request)?;
        let mutation = mutation(&request.name, terms!("rotate", &request), || rotation_of(&request));
        let environment = self.mutate(entry, mutation).await?;
        Ok(Response::new(v1::RotateSdkKeyResponse { environment }))
    }

    async fn batch_apply_environments(
        &self,
        request: Request<v1::BatchApplyEnvironmentsRequest>,
    ) -> Result<Response<v1::BatchApplyEnvironmentsResponse>, Status> {
        let (request, entry) = begin(request)?;
        Ok(Response::new(apply(&self.0, request, entry).await?))
    }

    type WatchEnvironmentsStream = ReceiverStream<Result<v1::WatchEnvironmentsResponse, Status>>;

    async fn watch_environments(
        &self,
        request: Request<v1::WatchEnvironmentsRequest>,
    ) -> Result<Response<Self::WatchEnvironmentsStream>, Status> {
        let stream = watch::start(&self.0, request.into_inner())?;
        Ok(Response::new(stream))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_purge_and_an_abandonment_exclude_each_other() {
        assert_eq!(removal(true, false), Ok(RemovalRequest::Purge));
        assert_eq!(removal(true, true).unwrap_err().violations[0].field, "abandon");
    }
}
