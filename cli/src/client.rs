//! The way to control: what programs use, with failures as the command line tells them.

use std::time::Duration;

use flotilla_proto::client::{self as control, Channel, InvalidAddress};
use flotilla_proto::connect::ConnectOptions;
use flotilla_proto::v1::audit_service_client::AuditServiceClient;
use flotilla_proto::v1::data_service_client::DataServiceClient;
use flotilla_proto::v1::environment_service_client::EnvironmentServiceClient;
use flotilla_proto::v1::fleet_service_client::FleetServiceClient;
use flotilla_proto::v1::store_service_client::StoreServiceClient;
use tonic::{Request, Response, Status};

use crate::failure::Failure;

/// A connection to control, whose failures are the command line's. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Client(control::Client);

impl Client {
    /// Prepares a connection; it is established with the first call. Fails if the URL is malformed.
    pub(crate) fn new(url: &str, options: ConnectOptions, request_timeout: Duration) -> Result<Self, Failure> {
        if request_timeout.is_zero() {
            return Err(Failure::usage("--request-timeout: must be longer than 0s"));
        }
        let client = control::Client::with_options(url, options).map_err(|error| match error {
            InvalidAddress::Address { .. } => Failure::usage(format!("--control: {error}")),
            InvalidAddress::Connect(error) => Failure::usage(error.to_string()),
        })?;
        Ok(Self(client.with_request_timeout(request_timeout)))
    }

    /// What programs use: for watches.
    pub(crate) fn program(&self) -> &control::Client {
        &self.0
    }

    /// Where control is.
    pub(crate) fn url(&self) -> &str {
        self.0.address()
    }

    /// The service of environments.
    pub(crate) fn environments(&self) -> EnvironmentServiceClient<Channel> {
        self.0.environments()
    }

    /// The service of the fleet.
    pub(crate) fn fleet(&self) -> FleetServiceClient<Channel> {
        self.0.fleet()
    }

    /// The service of stores.
    pub(crate) fn stores(&self) -> StoreServiceClient<Channel> {
        self.0.stores()
    }

    /// The service of stored data.
    pub(crate) fn data(&self) -> DataServiceClient<Channel> {
        self.0.data()
    }

    /// The service of audit records.
    pub(crate) fn audit(&self) -> AuditServiceClient<Channel> {
        self.0.audit()
    }

    /// A request with the deadline.
    pub(crate) fn request<T>(&self, message: T) -> Request<T> {
        self.0.request(message)
    }

    /// What a call answered, or why it failed.
    pub(crate) fn answer<T>(&self, answer: Result<Response<T>, Status>) -> Result<T, Failure> {
        answer.map(Response::into_inner).map_err(|status| self.failure(&status))
    }

    /// Why a call failed.
    pub(crate) fn failure(&self, status: &Status) -> Failure {
        Failure::from_status(self.url(), status)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(url: &str, request_timeout: Duration) -> Result<Client, Failure> {
        Client::new(url, ConnectOptions::default(), request_timeout)
    }

    #[tokio::test]
    async fn malformed_urls_are_refused_by_name() {
        for bad in ["", "127.0.0.1:7400", "http://", "http://a b", "redis://x", "http://:hunter2@x"] {
            let failure = client(bad, Duration::from_secs(1)).unwrap_err();
            assert_eq!(failure.status().code(), 2, "{bad}");
            assert!(failure.to_string().contains("--control"), "{failure}");
            assert!(!failure.to_string().contains("hunter2"), "{failure}");
        }
        assert!(client("http://[::1]:1", Duration::ZERO).is_err());
    }

    #[tokio::test]
    async fn nobody_there_is_unreachable() {
        let client = client("http://127.0.0.1:1", Duration::from_secs(1)).unwrap();
        let request = client.request(flotilla_proto::v1::GetFleetStatusRequest {});
        let failure = client.answer(client.fleet().get_fleet_status(request).await).unwrap_err();
        assert_eq!(failure.status().code(), 5);
        assert!(failure.to_string().starts_with("cannot reach control at http://127.0.0.1:1: "), "{failure}");
    }

    #[tokio::test]
    async fn a_silent_server_runs_out_of_time() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let client = client(&url, Duration::from_millis(200)).unwrap();
        let request = client.request(flotilla_proto::v1::GetFleetStatusRequest {});
        let failure = client.answer(client.fleet().get_fleet_status(request).await).unwrap_err();
        assert_eq!(failure.status().code(), 124, "{failure}");
    }
}
