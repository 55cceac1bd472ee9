//! Every RPC by its request, so that there is one way to call them all.

use tonic::{Response, Status};
use uuid::Uuid;

use super::Client;
use crate::v1;

/// A request that is answered once; its type says which RPC it is for.
pub trait Call: Clone + Send {
    /// What is answered.
    type Response: Send;

    /// Where the request can carry an id under which control does it once, it is given one, unless it has one.
    fn make_repeatable(&mut self);

    /// Makes the call, once.
    fn send(self, client: &Client) -> impl Future<Output = Result<Response<Self::Response>, Status>> + Send;
}

macro_rules! calls {
    ($($service:ident { $($method:ident($request:ident $(with $id:ident)?) -> $response:ident,)* })*) => { $($(
        impl Call for v1::$request {
            type Response = v1::$response;

            fn make_repeatable(&mut self) {
                $(if self.$id.is_empty() {
                    self.$id = Uuid::new_v4().to_string();
                })?
            }

            async fn send(self, client: &Client) -> Result<Response<Self::Response>, Status> {
                client.$service().$method(client.request(self)).await
            }
        }
    )*)* };
}

calls! {
    environments {
        create_environment(CreateEnvironmentRequest with request_id) -> CreateEnvironmentResponse,
        get_environment(GetEnvironmentRequest) -> GetEnvironmentResponse,
        list_environments(ListEnvironmentsRequest) -> ListEnvironmentsResponse,
        update_environment(UpdateEnvironmentRequest with request_id) -> UpdateEnvironmentResponse,
        delete_environment(DeleteEnvironmentRequest with request_id) -> DeleteEnvironmentResponse,
        pause_environment(PauseEnvironmentRequest with request_id) -> PauseEnvironmentResponse,
        resume_environment(ResumeEnvironmentRequest with request_id) -> ResumeEnvironmentResponse,
        resync_environment(ResyncEnvironmentRequest with request_id) -> ResyncEnvironmentResponse,
        rotate_sdk_key(RotateSdkKeyRequest with request_id) -> RotateSdkKeyResponse,
        batch_apply_environments(BatchApplyEnvironmentsRequest with request_id) -> BatchApplyEnvironmentsResponse,
    }
    fleet {
        list_workers(ListWorkersRequest) -> ListWorkersResponse,
        get_worker(GetWorkerRequest) -> GetWorkerResponse,
        cordon_worker(CordonWorkerRequest) -> CordonWorkerResponse,
        uncordon_worker(UncordonWorkerRequest) -> UncordonWorkerResponse,
        drain_worker(DrainWorkerRequest) -> DrainWorkerResponse,
        delete_worker(DeleteWorkerRequest) -> DeleteWorkerResponse,
        get_fleet_status(GetFleetStatusRequest) -> GetFleetStatusResponse,
        list_events(ListEventsRequest) -> ListEventsResponse,
    }
    stores {
        create_store(CreateStoreRequest with request_id) -> CreateStoreResponse,
        get_store(GetStoreRequest) -> GetStoreResponse,
        list_stores(ListStoresRequest) -> ListStoresResponse,
        update_store(UpdateStoreRequest with request_id) -> UpdateStoreResponse,
        check_store(CheckStoreRequest) -> CheckStoreResponse,
        delete_store(DeleteStoreRequest with request_id) -> DeleteStoreResponse,
    }
    data {
        list_items(ListItemsRequest) -> ListItemsResponse,
        get_item(GetItemRequest) -> GetItemResponse,
        verify_data(VerifyDataRequest) -> VerifyDataResponse,
    }
    audit {
        list_audit_records(ListAuditRecordsRequest) -> ListAuditRecordsResponse,
    }
}
