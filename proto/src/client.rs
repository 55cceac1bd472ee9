//! A client of control, for programs: one connection, a deadline on every call, retries that do nothing twice, typed
//! errors, watches that resume by themselves.
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use flotilla_proto::client::{Client, ClientError};
//! use flotilla_proto::v1::{CreateEnvironmentRequest, EnvironmentSpec};
//! use flotilla_proto::Reason;
//!
//! # async fn provision(sdk_key: String) -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::new("http://127.0.0.1:7400")?;
//! let created = client
//!     .call(CreateEnvironmentRequest {
//!         name: "spree-production".to_owned(),
//!         spec: Some(EnvironmentSpec { prefix: "ld:spree:production".to_owned(), ..EnvironmentSpec::default() }),
//!         sdk_key,
//!         ..CreateEnvironmentRequest::default()
//!     })
//!     .await;
//! match created {
//!     Ok(_) => {}
//!     Err(ClientError::Refused { refusal, .. }) if refusal.reason == Reason::NameTaken => {
//!         // It is there already: another run of this program came first.
//!     }
//!     Err(error) => return Err(error.into()),
//! }
//! client.wait_until_current("spree-production", Duration::from_secs(60)).await?;
//! # Ok(())
//! # }
//! ```

// Every RPC by its request.
mod call;
// Why a call failed, by what the caller can do.
mod error;
// Which failures pass, and how soon to try again.
mod retry;
// What the messages of a watch mean: pure.
mod cursor;
// The streams of watches, opened again when they break.
mod watch;
// Waiting until SDKs read what LaunchDarkly has.
mod wait;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tonic::service::interceptor::InterceptedService;
use tonic::transport::Endpoint;
use tonic::{Request, Status};
use url::Url;

use crate::connect::{Bearer, ConnectError, ConnectOptions};
use crate::files::Stamp;

use crate::v1::audit_service_client::AuditServiceClient;
use crate::v1::data_service_client::DataServiceClient;
use crate::v1::environment_service_client::EnvironmentServiceClient;
use crate::v1::fleet_service_client::FleetServiceClient;
use crate::v1::store_service_client::StoreServiceClient;

pub use call::Call;
pub use cursor::{Departure, Event};
pub use error::{ClientError, InvalidAddress};
pub use retry::Retry;
pub use wait::WaitError;
pub use watch::{Broken, EnvironmentWatch, Messages};

/// Longest time that establishing the connection may take, whatever the request's own deadline.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A dead peer is noticed after interval + timeout, also while a watch is silent.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(5);
/// Largest answer that is accepted: a page of 1,000 environments, or one item, fits many times.
const LONGEST_MESSAGE: usize = 64 * 1024 * 1024;
/// For a call's answer, if nothing else is said.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// What carries calls to control.
pub type Channel = InterceptedService<tonic::transport::Channel, Bearer>;

/// A connection to control. Cheap to clone; clones share it.
#[derive(Debug, Clone)]
pub struct Client {
    address: String,
    link: Arc<Link>,
    request_timeout: Duration,
    retry: Retry,
}

/// The connection, and what it was made of.
#[derive(Debug)]
struct Link {
    url: Url,
    options: ConnectOptions,
    open: Mutex<(Vec<Option<Stamp>>, Channel)>,
}

impl Link {
    fn new(url: Url, options: ConnectOptions) -> Result<Self, ConnectError> {
        let open = (options.stamps(), open(&url, &options)?);
        Ok(Self { url, options, open: Mutex::new(open) })
    }

    /// The connection: another one when a certificate or the token has changed on disk since it was made. As long as
    /// the new files cannot be used, the former one goes on.
    fn channel(&self) -> Channel {
        let stamps = self.options.stamps();
        let mut held = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if held.0 != stamps
            && let Ok(channel) = open(&self.url, &self.options)
        {
            *held = (stamps, channel);
        }
        held.1.clone()
    }
}

fn open(url: &Url, options: &ConnectOptions) -> Result<Channel, ConnectError> {
    let endpoint = Endpoint::from_shared(url.to_string())
        .map_err(|error| ConnectError::Options(format!("{url} is not a valid URL ({error})")))?
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT);
    let (endpoint, bearer) = options.open(url, endpoint)?;
    Ok(InterceptedService::new(endpoint.connect_lazy(), bearer))
}

impl Client {
    /// Prepares a connection to `http://HOST:PORT`, or `https://HOST:PORT` with a certificate of a public authority; it is
    /// established with the first call, inside a tokio runtime.
    pub fn new(address: &str) -> Result<Self, InvalidAddress> {
        Self::with_options(address, ConnectOptions::default())
    }

    /// As [`Client::new`], with an authority of one's own, a token, or a client certificate. Their files are read now, and
    /// again when they have changed.
    pub fn with_options(address: &str, options: ConnectOptions) -> Result<Self, InvalidAddress> {
        let url = parse_address(address)?;
        let link = Link::new(url, options).map_err(InvalidAddress::Connect)?;
        Ok(Self {
            address: address.to_owned(),
            link: Arc::new(link),
            request_timeout: REQUEST_TIMEOUT,
            retry: Retry::default(),
        })
    }

    /// How long an answer may take, for each attempt. Default 10 s.
    #[must_use]
    pub fn with_request_timeout(self, request_timeout: Duration) -> Self {
        Self { request_timeout, ..self }
    }

    /// What [`Client::call`] does about failures that pass. Default: [`Retry::default`].
    #[must_use]
    pub fn with_retry(self, retry: Retry) -> Self {
        Self { retry, ..self }
    }

    /// Where control is.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// How long an answer may take.
    pub fn request_timeout(&self) -> Duration {
        self.request_timeout
    }

    /// Makes the call that the request names. Failures that pass are tried again as [`Retry`] says. A request with a
    /// `request_id` is given one if it has none, so that control does it once, however often it arrives. Only a
    /// `DeleteWorkerRequest` has none and is not the same twice: when the answer to an earlier attempt was lost, the next one
    /// finds no such worker.
    pub async fn call<C: Call>(&self, mut call: C) -> Result<C::Response, ClientError> {
        call.make_repeatable();
        let mut pauses = self.retry.pauses();
        loop {
            let status = match call.clone().send(self).await {
                Ok(response) => return Ok(response.into_inner()),
                Err(status) => status,
            };
            match pauses.next().filter(|_| retry::passes(&status)) {
                Some(pause) => tokio::time::sleep(pause).await,
                None => return Err(self.error(status)),
            }
        }
    }

    /// The service of environments, for calls without retries.
    pub fn environments(&self) -> EnvironmentServiceClient<Channel> {
        EnvironmentServiceClient::new(self.link.channel()).max_decoding_message_size(LONGEST_MESSAGE)
    }

    /// The service of the fleet, for calls without retries.
    pub fn fleet(&self) -> FleetServiceClient<Channel> {
        FleetServiceClient::new(self.link.channel()).max_decoding_message_size(LONGEST_MESSAGE)
    }

    /// The service of stores, for calls without retries.
    pub fn stores(&self) -> StoreServiceClient<Channel> {
        StoreServiceClient::new(self.link.channel()).max_decoding_message_size(LONGEST_MESSAGE)
    }

    /// The service of stored data, for calls without retries.
    pub fn data(&self) -> DataServiceClient<Channel> {
        DataServiceClient::new(self.link.channel()).max_decoding_message_size(LONGEST_MESSAGE)
    }

    /// The service of audit records, for calls without retries.
    pub fn audit(&self) -> AuditServiceClient<Channel> {
        AuditServiceClient::new(self.link.channel()).max_decoding_message_size(LONGEST_MESSAGE)
    }

    /// A request with the deadline.
    pub fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.set_timeout(self.request_timeout);
        request
    }

    fn error(&self, status: Status) -> ClientError {
        ClientError::new(&self.address, status)
    }
}

fn parse_address(address: &str) -> Result<Url, InvalidAddress> {
    if !address.starts_with("http://") && !address.starts_with("https://") {
        return Err(InvalidAddress::new(address, "is not a URL of scheme http or https"));
    }
    let url = Url::parse(address);
    let url = url.map_err(|error| InvalidAddress::new(address, format!("is not a valid URL ({error})")))?;
    if !url.username().is_empty() || url.password().is_some() {
        // It is not repeated, for it may be a secret.
        return Err(InvalidAddress::new(
            "the address",
            "has a user or a password; a token goes into a file of its own",
        ));
    }
    Ok(url)
}
