//! The way to control: one lazily connected channel, a deadline on every call.

use std::time::Duration;

use flotilla_proto::v1::data_service_client::DataServiceClient;
use flotilla_proto::v1::environment_service_client::EnvironmentServiceClient;
use flotilla_proto::v1::fleet_service_client::FleetServiceClient;
use flotilla_proto::v1::store_service_client::StoreServiceClient;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Response, Status};

use crate::failure::Failure;

/// Longest time that establishing the connection may take, whatever the request's own deadline.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A dead peer is noticed after interval + timeout, also while a watch is silent.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(5);
/// Largest answer that is accepted: a page of 1,000 environments, or one item, fits many times.
const LONGEST_MESSAGE: usize = 64 * 1024 * 1024;

/// A connection to control. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    url: String,
    channel: Channel,
    request_timeout: Duration,
}

impl Client {
    /// Prepares a connection; it is established with the first call. Fails if the URL is malformed.
    pub(crate) fn new(url: &str, request_timeout: Duration) -> Result<Self, Failure> {
        let wrong = |what: &str| {
            Failure::usage(format!(
                "--control: {url:?} {what}; expected http://HOST:PORT, such as http://127.0.0.1:7400"
            ))
        };
        if !url.starts_with("http://") {
            return Err(wrong("is not a URL of scheme http"));
        }
        if request_timeout.is_zero() {
            return Err(Failure::usage("--request-timeout: must be longer than 0s"));
        }
        let endpoint = Endpoint::from_shared(url.to_owned())
            .map_err(|error| wrong(&format!("is not a valid URL ({error})")))?
            .connect_timeout(CONNECT_TIMEOUT.min(request_timeout))
            .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT);
        Ok(Self { url: url.to_owned(), channel: endpoint.connect_lazy(), request_timeout })
    }

    /// Where control is.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// How long a call may take.
    pub(crate) fn request_timeout(&self) -> Duration {
        self.request_timeout
    }

    /// The service of environments.
    pub(crate) fn environments(&self) -> EnvironmentServiceClient<Channel> {
        EnvironmentServiceClient::new(self.channel.clone()).max_decoding_message_size(LONGEST_MESSAGE)
    }

    /// The service of the fleet.
    pub(crate) fn fleet(&self) -> FleetServiceClient<Channel> {
        FleetServiceClient::new(self.channel.clone()).max_decoding_message_size(LONGEST_MESSAGE)
    }

    /// The service of stores.
    pub(crate) fn stores(&self) -> StoreServiceClient<Channel> {
        StoreServiceClient::new(self.channel.clone()).max_decoding_message_size(LONGEST_MESSAGE)
    }

    /// The service of stored data.
    pub(crate) fn data(&self) -> DataServiceClient<Channel> {
        DataServiceClient::new(self.channel.clone()).max_decoding_message_size(LONGEST_MESSAGE)
    }

    /// A request with the deadline.
    pub(crate) fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.set_timeout(self.request_timeout);
        request
    }

    /// What a call answered, or why it failed.
    pub(crate) fn answer<T>(&self, answer: Result<Response<T>, Status>) -> Result<T, Failure> {
        answer.map(Response::into_inner).map_err(|status| self.failure(&status))
    }

    /// Why a call failed.
    pub(crate) fn failure(&self, status: &Status) -> Failure {
        Failure::from_status(&self.url, status)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn malformed_urls_are_refused_by_name() {
        for bad in ["", "127.0.0.1:7400", "https://x", "http://", "http://a b", "redis://x"] {
            let failure = Client::new(bad, Duration::from_secs(1)).unwrap_err();
            assert_eq!(failure.status().code(), 2, "{bad}");
            assert!(failure.to_string().contains("--control"), "{failure}");
        }
        assert!(Client::new("http://[::1]:1", Duration::ZERO).is_err());
    }

    #[tokio::test]
    async fn nobody_there_is_unreachable() {
        let client = Client::new("http://127.0.0.1:1", Duration::from_secs(1)).unwrap();
        let request = client.request(flotilla_proto::v1::GetFleetStatusRequest {});
        let failure = client.answer(client.fleet().get_fleet_status(request).await).unwrap_err();
        assert_eq!(failure.status().code(), 5);
        assert!(failure.to_string().starts_with("cannot reach control at http://127.0.0.1:1: "), "{failure}");
    }

    #[tokio::test]
    async fn a_silent_server_runs_out_of_time() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let client = Client::new(&url, Duration::from_millis(200)).unwrap();
        let request = client.request(flotilla_proto::v1::GetFleetStatusRequest {});
        let failure = client.answer(client.fleet().get_fleet_status(request).await).unwrap_err();
        assert_eq!(failure.status().code(), 124, "{failure}");
    }
}
