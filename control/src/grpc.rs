//! The API over gRPC. Handlers are thin: they check what arrived, ask the driver, and put its answer into a message.

// Adding, reading, changing, removing environments.
mod environments;
// Many environments at once.
mod apply;
// Which fields an update names.
mod mask;
// Which fields an update changes.
mod update;
// Which environments are meant.
mod filter;
// Pages and their tokens.
mod page;
// Snapshots and changes of environments.
mod watch;
// Snapshots and changes of workers.
mod watch_workers;
// What happened.
mod events;
// Workers, and the fleet as a whole.
mod fleet;
// What the store holds, through the worker that serves it.
mod data;
// Stores.
mod stores;
// The workers' sessions.
mod session;
// Who asked for what.
mod audit;
// What requests ask for, for the records.
mod asked;
// How many calls a client has open.
mod open_calls;
// Who calls, and whether they may.
mod guard;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use flotilla_proto::access::Keys;
use flotilla_proto::process::Chance;
use flotilla_proto::{
    EnvironmentName, FieldViolation, InvalidName, Reason, Refusal, StoreName, Uid, WorkerName, v1,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch::Receiver;
use tokio_stream::Stream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::transport::Server;
use tonic::transport::server::Connected;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use crate::audit::Door;
use crate::driver::DriverHandle;
use crate::store::AuditReader;

pub(crate) use apply::apply;

/// Largest message of somebody who may be anybody, in bytes: it holds the name of a service.
const HEALTH_MESSAGE_LIMIT: usize = 1024;
/// Largest message of the API, in bytes.
const API_MESSAGE_LIMIT: usize = 4 << 20;
/// Largest message about environments, of which one may hold thousands.
const BATCH_MESSAGE_LIMIT: usize = 16 << 20;
/// Largest message of a session, and largest item that can be read, in bytes.
const SESSION_MESSAGE_LIMIT: usize = 64 << 20;
/// How long a connection may be silent before it is asked whether it is alive, and how long the answer may take.
const KEEPALIVE: Duration = Duration::from_secs(10);
/// Bytes that may be on the way to us: the reports of a worker with thousands of environments should not wait for each
/// 64 KiB to be confirmed.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;

/// Calls that one connection may have open, watches included.
const MOST_CALLS: u32 = 1000;
/// Largest headers of a call, in bytes.
const HEADER_LIMIT: u32 = 16 << 10;

/// The names under which health is reported; the empty one is the server as a whole.
const SERVICES: [&str; 7] = [
    "",
    "flotilla.v1.EnvironmentService",
    "flotilla.v1.FleetService",
    "flotilla.v1.DataService",
    "flotilla.v1.StoreService",
    "flotilla.v1.AuditService",
    "flotilla.v1.WorkerService",
];

/// What every handler needs.
#[derive(Debug, Clone)]
pub(crate) struct Api {
    driver: DriverHandle,
    /// The tasks behind streams.
    tasks: TaskTracker,
    /// Cancelled when control stops: streams that would go on for ever end.
    stopping: CancellationToken,
    /// Makes the ids of environments.
    chance: Chance,
    /// Where calls that are refused are told of.
    door: Door,
    /// Reads the audit records; `None`: they are in no file.
    audit: Option<AuditReader>,
}

impl Api {
    pub(crate) fn new(
        driver: DriverHandle,
        tasks: TaskTracker,
        stopping: CancellationToken,
        chance: Chance,
        (door, audit): (Door, Option<AuditReader>),
    ) -> Self {
        Self { driver, tasks, stopping, chance, door, audit }
    }

    /// The uid of a new environment.
    fn fresh_uid(&self) -> Uid {
        self.chance.uuid().to_string().parse().expect("a UUID is a valid uid")
    }
}

/// Serves the API on connections from anywhere, to callers that have the keys, until `shutdown` resolves and the calls
/// under way have ended.
pub(crate) async fn serve<C: Connection>(
    incoming: impl Stream<Item = std::io::Result<C>>,
    keys: Receiver<Arc<Keys>>,
    api: Api,
    health: HealthReporter,
    shutdown: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(flotilla_proto::DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()
        .context("cannot read the descriptors of the API")?;
    let health = tonic_health::pb::health_server::HealthServer::new(
        tonic_health::server::HealthService::from_health_reporter(health),
    )
    .max_decoding_message_size(HEALTH_MESSAGE_LIMIT);
    let environments =
        v1::environment_service_server::EnvironmentServiceServer::new(environments::Handler(api.clone()))
            .max_decoding_message_size(BATCH_MESSAGE_LIMIT);
    let fleet = v1::fleet_service_server::FleetServiceServer::new(fleet::Handler(api.clone()))
        .max_decoding_message_size(API_MESSAGE_LIMIT);
    let data = v1::data_service_server::DataServiceServer::new(data::Handler(api.clone()))
        .max_decoding_message_size(API_MESSAGE_LIMIT)
        .max_encoding_message_size(SESSION_MESSAGE_LIMIT);
    let stores = v1::store_service_server::StoreServiceServer::new(stores::Handler(api.clone()))
        .max_decoding_message_size(API_MESSAGE_LIMIT);
    let audit = v1::audit_service_server::AuditServiceServer::new(audit::Handler(api.clone()))
        .max_decoding_message_size(API_MESSAGE_LIMIT);
    let door = api.door.clone();
    let worker = v1::worker_service_server::WorkerServiceServer::new(session::Handler(api))
        .max_decoding_message_size(SESSION_MESSAGE_LIMIT)
        .max_encoding_message_size(SESSION_MESSAGE_LIMIT);
    Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE))
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(Some(MOST_CALLS))
        .http2_max_header_list_size(Some(HEADER_LIMIT))
        .layer(guard::GuardLayer::new(keys, door))
        .add_service(reflection)
        .add_service(health)
        .add_service(environments)
        .add_service(fleet)
        .add_service(data)
        .add_service(stores)
        .add_service(audit)
        .add_service(worker)
        .serve_with_incoming_shutdown(incoming, shutdown)
        .await
        .context("the gRPC server failed")
}

/// What carries a call.
pub(crate) trait Connection: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static {}

impl<C: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static> Connection for C {}

/// Says of every service whether it serves.
pub(crate) async fn report_health(health: &HealthReporter, status: ServingStatus) {
    for service in SERVICES {
        health.set_service_status(service, status).await;
    }
}

fn environment_name(field: &str, text: &str) -> Result<EnvironmentName, Refusal> {
    text.parse().map_err(|error: InvalidName| FieldViolation::new(field, &error.to_string()).into())
}

fn store_name(field: &str, text: &str) -> Result<StoreName, Refusal> {
    text.parse().map_err(|error: InvalidName| FieldViolation::new(field, &error.to_string()).into())
}

fn worker_name(field: &str, text: &str) -> Result<WorkerName, Refusal> {
    text.parse().map_err(|error: InvalidName| FieldViolation::new(field, &error.to_string()).into())
}

/// The fleet answered something that the question does not allow, which is a fault of ours.
fn unfit_reply() -> Refusal {
    tracing::error!("a command was answered with another one's reply");
    Refusal::new(Reason::Internal, "a command was answered with another one's reply")
}
