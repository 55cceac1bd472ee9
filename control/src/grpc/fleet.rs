//! Workers, and the fleet as a whole.

use flotilla_proto::{Refusal, v1};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::asked::begin;
use super::page::Page;
use super::{Api, events, unfit_reply, watch_workers, worker_name};
use crate::audit::AuditEntry;
use crate::driver::View;
use crate::fleet::{Command, Reply, Scheduling, WorkerAction, WorkerCommand, no_such_worker};

/// The handler of `FleetService`.
#[derive(Debug)]
pub(super) struct Handler(pub(super) Api);

fn list_page(view: &View<'_>, page: &Page) -> v1::ListWorkersResponse {
    let workers = view.fleet.workers().filter(|worker| worker.name > page.after);
    let (workers, next_page_token) = page.fill(workers.map(|worker| (worker.name.clone(), worker)));
    v1::ListWorkersResponse { workers, next_page_token }
}

impl Handler {
    async fn decide(
        &self,
        entry: Option<AuditEntry>,
        name: &str,
        action: WorkerAction,
        validate_only: bool,
    ) -> Result<Option<v1::Worker>, Refusal> {
        let worker = worker_name("name", name);
        let command = worker.map(|worker| Command::Worker(WorkerCommand { worker, action, validate_only }));
        match self.0.carry_out(entry, command).await? {
            Reply::Worker(worker) => Ok(worker.map(|worker| *worker)),
            Reply::Environment(_) | Reply::Answer(_) | Reply::Applied(_) | Reply::Store(_) | Reply::Checked(_) => {
                Err(unfit_reply())
            }
        }
    }
}

#[tonic::async_trait]
impl v1::fleet_service_server::FleetService for Handler {
    async fn list_workers(
        &self,
        request: Request<v1::ListWorkersRequest>,
    ) -> Result<Response<v1::ListWorkersResponse>, Status> {
        let request = request.into_inner();
        let page = Page::parse(request.page_size, &request.page_token, b"workers")?;
        let answer = self.0.driver.read(move |view| list_page(view, &page)).await?;
        Ok(Response::new(answer))
    }

    async fn get_worker(
        &self,
        request: Request<v1::GetWorkerRequest>,
    ) -> Result<Response<v1::GetWorkerResponse>, Status> {
        let name = worker_name("name", &request.into_inner().name)?;
        let wanted = name.clone();
        let found = self.0.driver.read(move |view| view.fleet.worker(&wanted)).await?;
        let worker = found.ok_or_else(|| no_such_worker(&name))?;
        Ok(Response::new(v1::GetWorkerResponse { worker: Some(worker) }))
    }

    async fn get_fleet_status(
        &self,
        _request: Request<v1::GetFleetStatusRequest>,
    ) -> Result<Response<v1::GetFleetStatusResponse>, Status> {
        Ok(Response::new(self.0.driver.read(|view| view.fleet.status()).await?))
    }

    async fn cordon_worker(
        &self,
        request: Request<v1::CordonWorkerRequest>,
    ) -> Result<Response<v1::CordonWorkerResponse>, Status> {
        let (v1::CordonWorkerRequest { name, validate_only }, entry) = begin(request)?;
        let action = WorkerAction::Schedule(Scheduling::Cordoned);
        let worker = self.decide(entry, &name, action, validate_only).await?;
        Ok(Response::new(v1::CordonWorkerResponse { worker }))
    }

    async fn uncordon_worker(
        &self,
        request: Request<v1::UncordonWorkerRequest>,
    ) -> Result<Response<v1::UncordonWorkerResponse>, Status> {
        let (v1::UncordonWorkerRequest { name, validate_only }, entry) = begin(request)?;
        let action = WorkerAction::Schedule(Scheduling::Active);
        let worker = self.decide(entry, &name, action, validate_only).await?;
        Ok(Response::new(v1::UncordonWorkerResponse { worker }))
    }

    async fn drain_worker(
        &self,
        request: Request<v1::DrainWorkerRequest>,
    ) -> Result<Response<v1::DrainWorkerResponse>, Status> {
        let (v1::DrainWorkerRequest { name, validate_only }, entry) = begin(request)?;
        let action = WorkerAction::Schedule(Scheduling::Draining);
        let worker = self.decide(entry, &name, action, validate_only).await?;
        Ok(Response::new(v1::DrainWorkerResponse { worker }))
    }

    async fn delete_worker(
        &self,
        request: Request<v1::DeleteWorkerRequest>,
    ) -> Result<Response<v1::DeleteWorkerResponse>, Status> {
        let (v1::DeleteWorkerRequest { name, validate_only }, entry) = begin(request)?;
        self.decide(entry, &name, WorkerAction::Forget, validate_only).await?;
        Ok(Response::new(v1::DeleteWorkerResponse {}))
    }

    type WatchWorkersStream = ReceiverStream<Result<v1::WatchWorkersResponse, Status>>;

    async fn watch_workers(
        &self,
        request: Request<v1::WatchWorkersRequest>,
    ) -> Result<Response<Self::WatchWorkersStream>, Status> {
        Ok(Response::new(watch_workers::start(&self.0, request.get_ref())?))
    }

    async fn list_events(
        &self,
        request: Request<v1::ListEventsRequest>,
    ) -> Result<Response<v1::ListEventsResponse>, Status> {
        Ok(Response::new(events::list(&self.0, request.into_inner()).await?))
    }

    type WatchEventsStream = ReceiverStream<Result<v1::WatchEventsResponse, Status>>;

    async fn watch_events(
        &self,
        request: Request<v1::WatchEventsRequest>,
    ) -> Result<Response<Self::WatchEventsStream>, Status> {
        Ok(Response::new(events::watch(&self.0, request.into_inner())?))
    }
}
