//! Workers, and the fleet as a whole.

use flotilla_proto::{FieldViolation, InvalidName, Reason, Refusal, WorkerName, v1};
use prost::Message as _;
use tonic::{Request, Response, Status};

use super::Api;
use super::page::{PAGE_BYTES, Page};
use crate::driver::View;

/// The handler of `FleetService`.
#[derive(Debug)]
pub(super) struct Handler(pub(super) Api);

fn list_page(view: &View<'_>, page: &Page) -> v1::ListWorkersResponse {
    let mut answer = v1::ListWorkersResponse::default();
    let mut bytes = 0;
    for worker in view.fleet.workers().filter(|worker| worker.name > page.after) {
        bytes += worker.encoded_len();
        if let Some(last) = answer.workers.last()
            && (answer.workers.len() == page.size || bytes > PAGE_BYTES)
        {
            answer.next_page_token = page.next_token(&last.name);
            break;
        }
        answer.workers.push(worker);
    }
    answer
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
        let name: WorkerName = request
            .into_inner()
            .name
            .parse()
            .map_err(|error: InvalidName| Refusal::from(FieldViolation::new("name", &error.to_string())))?;
        let wanted = name.clone();
        let found = self.0.driver.read(move |view| view.fleet.worker(&wanted)).await?;
        let worker = found.ok_or_else(|| {
            let message = format!("there is no worker {:?}", name.as_str());
            Refusal::new(Reason::WorkerNotFound, message)
        })?;
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
        _request: Request<v1::CordonWorkerRequest>,
    ) -> Result<Response<v1::CordonWorkerResponse>, Status> {
        Err(Status::unimplemented("not yet"))
    }

    async fn uncordon_worker(
        &self,
        _request: Request<v1::UncordonWorkerRequest>,
    ) -> Result<Response<v1::UncordonWorkerResponse>, Status> {
        Err(Status::unimplemented("not yet"))
    }

    async fn drain_worker(
        &self,
        _request: Request<v1::DrainWorkerRequest>,
    ) -> Result<Response<v1::DrainWorkerResponse>, Status> {
        Err(Status::unimplemented("not yet"))
    }

    async fn delete_worker(
        &self,
        _request: Request<v1::DeleteWorkerRequest>,
    ) -> Result<Response<v1::DeleteWorkerResponse>, Status> {
        Err(Status::unimplemented("not yet"))
    }

    async fn list_events(
        &self,
        _request: Request<v1::ListEventsRequest>,
    ) -> Result<Response<v1::ListEventsResponse>, Status> {
        Err(Status::unimplemented("not yet"))
    }

    type WatchWorkersStream = tokio_stream::wrappers::ReceiverStream<Result<v1::WatchWorkersResponse, Status>>;

    async fn watch_workers(
        &self,
        _request: Request<v1::WatchWorkersRequest>,
    ) -> Result<Response<Self::WatchWorkersStream>, Status> {
        Err(Status::unimplemented("not yet"))
    }

    type WatchEventsStream = tokio_stream::wrappers::ReceiverStream<Result<v1::WatchEventsResponse, Status>>;

    async fn watch_events(
        &self,
        _request: Request<v1::WatchEventsRequest>,
    ) -> Result<Response<Self::WatchEventsStream>, Status> {
        Err(Status::unimplemented("not yet"))
    }
}
