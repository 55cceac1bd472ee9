//! A control that answers as a test says.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use flotilla_proto::v1::environment_service_server::{EnvironmentService, EnvironmentServiceServer};
use flotilla_proto::v1::watch_environments_response::Event;
use flotilla_proto::v1::*;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

/// What one watch says before it ends with the status, or stays silent.
pub(crate) type Script = (Vec<WatchEnvironmentsResponse>, Option<Status>);

#[derive(Default, Clone)]
pub(crate) struct Fake {
    /// One script a watch, in order.
    pub watches: Arc<Mutex<VecDeque<Script>>>,
    /// `resume_from_revision` of the watches that came.
    pub resumed_from: Arc<Mutex<Vec<String>>>,
    /// What is there.
    pub environment: Arc<Mutex<Environment>>,
    /// What a rotation answers, if it changes anything.
    pub rotated: Arc<Mutex<Option<Environment>>>,
    /// Etags of updates to refuse first.
    pub refuse_updates: Arc<Mutex<u32>>,
    /// The last update.
    pub update: Arc<Mutex<Option<UpdateEnvironmentRequest>>>,
    /// The last creation.
    pub create: Arc<Mutex<Option<CreateEnvironmentRequest>>>,
}

pub(crate) fn environment(name: &str, initialization: Initialization) -> Environment {
    Environment {
        name: name.to_owned(),
        uid: format!("{name}-1"),
        etag: "e1".to_owned(),
        spec: Some(EnvironmentSpec {
            prefix: name.to_owned(),
            labels: [("team".to_owned(), "a".to_owned())].into(),
            ..EnvironmentSpec::default()
        }),
        status: Some(EnvironmentStatus { initialization: initialization.into(), ..EnvironmentStatus::default() }),
        ..Environment::default()
    }
}

pub(crate) fn changed(environment: Environment, revision: &str) -> WatchEnvironmentsResponse {
    message(Event::Changed(environment), revision)
}

pub(crate) fn synced(revision: &str) -> WatchEnvironmentsResponse {
    message(Event::Synced(WatchSynced {}), revision)
}

pub(crate) fn removed(name: &str, revision: &str) -> WatchEnvironmentsResponse {
    let removed = EnvironmentRemoved { name: name.to_owned(), uid: format!("{name}-1"), gone: true };
    message(Event::Removed(removed), revision)
}

pub(crate) fn unmatched(name: &str, revision: &str) -> WatchEnvironmentsResponse {
    let removed = EnvironmentRemoved { name: name.to_owned(), uid: format!("{name}-1"), gone: false };
    message(Event::Removed(removed), revision)
}

fn message(event: Event, revision: &str) -> WatchEnvironmentsResponse {
    WatchEnvironmentsResponse { event: Some(event), revision: revision.to_owned() }
}

impl Fake {
    pub(crate) fn with_watches(scripts: Vec<Script>) -> Self {
        let fake = Self::default();
        *fake.watches.lock().unwrap() = scripts.into();
        *fake.environment.lock().unwrap() = environment("a", Initialization::Unknown);
        fake
    }

    /// Serves until the test's runtime ends; returns the URL.
    #[expect(clippy::disallowed_methods, reason = "the server lives as long as the test")]
    pub(crate) async fn serve(&self) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let service = EnvironmentServiceServer::new(self.clone());
        tokio::spawn(
            tonic::transport::Server::builder()
                .add_service(service)
                .serve_with_incoming(TcpListenerStream::new(listener)),
        );
        url
    }

    fn present(&self) -> Environment {
        self.environment.lock().unwrap().clone()
    }
}

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl EnvironmentService for Fake {
    type WatchEnvironmentsStream =
        std::pin::Pin<Box<dyn tokio_stream::Stream<Item = Result<WatchEnvironmentsResponse, Status>> + Send>>;

    async fn watch_environments(
        &self,
        request: Request<WatchEnvironmentsRequest>,
    ) -> Answer<Self::WatchEnvironmentsStream> {
        let revision = request.into_inner().resume_from_revision;
        self.resumed_from.lock().unwrap().push(revision);
        let Some((messages, end)) = self.watches.lock().unwrap().pop_front() else {
            return Err(Status::internal("one watch more than the test has scripted"));
        };
        let said = tokio_stream::iter(messages.into_iter().map(Ok));
        Ok(Response::new(match end {
            Some(status) => Box::pin(tokio_stream::StreamExt::chain(said, tokio_stream::once(Err(status)))),
            None => Box::pin(tokio_stream::StreamExt::chain(said, tokio_stream::pending())),
        }))
    }

    async fn batch_apply_environments(
        &self,
        _: Request<BatchApplyEnvironmentsRequest>,
    ) -> Answer<BatchApplyEnvironmentsResponse> {
        Err(Status::unimplemented("tests of manifests have a real control"))
    }

    async fn create_environment(
        &self,
        request: Request<CreateEnvironmentRequest>,
    ) -> Answer<CreateEnvironmentResponse> {
        *self.create.lock().unwrap() = Some(request.into_inner());
        let environment = Some(self.present());
        Ok(Response::new(CreateEnvironmentResponse { environment }))
    }

    async fn get_environment(&self, request: Request<GetEnvironmentRequest>) -> Answer<GetEnvironmentResponse> {
        let environment = Some(self.present()).filter(|one| one.name == request.get_ref().name);
        if environment.is_none() {
            let reason = flotilla_proto::Reason::EnvironmentNotFound;
            return Err(flotilla_proto::Refusal::new(reason, "there is no such environment").into());
        }
        Ok(Response::new(GetEnvironmentResponse { environment }))
    }

    async fn list_environments(
        &self,
        request: Request<ListEnvironmentsRequest>,
    ) -> Answer<ListEnvironmentsResponse> {
        // Two pages of one each.
        let first = request.get_ref().page_token.is_empty();
        let name = if first { "a" } else { "b" };
        Ok(Response::new(ListEnvironmentsResponse {
            environments: vec![environment(name, Initialization::Current)],
            next_page_token: if first { "next".to_owned() } else { String::new() },
            ..ListEnvironmentsResponse::default()
        }))
    }

    async fn update_environment(
        &self,
        request: Request<UpdateEnvironmentRequest>,
    ) -> Answer<UpdateEnvironmentResponse> {
        let mut refuse = self.refuse_updates.lock().unwrap();
        if *refuse > 0 {
            *refuse -= 1;
            let reason = flotilla_proto::Reason::EtagMismatch;
            return Err(flotilla_proto::Refusal::new(reason, "changed meanwhile").into());
        }
        *self.update.lock().unwrap() = Some(request.into_inner());
        let environment = Some(self.present());
        Ok(Response::new(UpdateEnvironmentResponse { environment }))
    }

    async fn delete_environment(&self, _: Request<DeleteEnvironmentRequest>) -> Answer<DeleteEnvironmentResponse> {
        let environment = Some(self.present());
        Ok(Response::new(DeleteEnvironmentResponse { environment }))
    }

    async fn pause_environment(&self, _: Request<PauseEnvironmentRequest>) -> Answer<PauseEnvironmentResponse> {
        let environment = Some(self.present());
        Ok(Response::new(PauseEnvironmentResponse { environment }))
    }

    async fn resume_environment(&self, _: Request<ResumeEnvironmentRequest>) -> Answer<ResumeEnvironmentResponse> {
        let environment = Some(self.present());
        Ok(Response::new(ResumeEnvironmentResponse { environment }))
    }

    async fn resync_environment(&self, _: Request<ResyncEnvironmentRequest>) -> Answer<ResyncEnvironmentResponse> {
        let environment = Some(self.present());
        Ok(Response::new(ResyncEnvironmentResponse { environment }))
    }

    async fn rotate_sdk_key(&self, _: Request<RotateSdkKeyRequest>) -> Answer<RotateSdkKeyResponse> {
        let rotated = self.rotated.lock().unwrap().clone();
        let environment = Some(rotated.unwrap_or_else(|| self.present()));
        Ok(Response::new(RotateSdkKeyResponse { environment }))
    }
}
