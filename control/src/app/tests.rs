//! A whole control on loopback, spoken to as programs and workers speak to it.

// Adding, reading, changing, removing.
mod environments;
// Many at once.
mod apply;
// Snapshots, changes, resuming.
mod watching;
// Workers' sessions.
mod sessions;
// Stores.
mod stores;
// Cordon, drain, forget, and events.
mod members;
// Who may call what.
mod access;
// What one client may take.
mod bounds;
// Who asked for what.
mod audit;
// What is around the API: probes, metrics, starting and stopping.
mod operation;

use std::time::Duration;

use flotilla_proto::{Refusal, StoreUrl, v1};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Status, Streaming};
use v1::data_service_client::DataServiceClient;
use v1::environment_service_client::EnvironmentServiceClient;
use v1::fleet_service_client::FleetServiceClient;
use v1::session_request::Message as Up;
use v1::session_response::Message as Down;
use v1::store_service_client::StoreServiceClient;
use v1::worker_service_client::WorkerServiceClient;

use super::{App, Running};
use crate::Settings;

const KEY: &str = "sdk-01234567-89ab-cdef-0123-456789a99999";
/// Four times and more what anything here takes.
const PATIENCE: Duration = Duration::from_secs(20);

struct Control {
    running: Running,
    channel: Channel,
}

fn settings(directory: &tempfile::TempDir) -> Settings {
    let url = StoreUrl::parse("url", "redis://u:hunter2@127.0.0.1:6379").unwrap();
    Settings {
        heartbeat_interval: Duration::from_millis(100),
        lease_duration: Duration::from_millis(600),
        reassign_grace: Duration::from_millis(100),
        ..Settings::new(directory.path().join("data"), url)
    }
}

async fn start(settings: Settings) -> Control {
    let running = App::start(settings).await.unwrap();
    let uri = format!("http://{}", running.grpc_addr());
    let channel = Endpoint::from_shared(uri).unwrap().connect().await.unwrap();
    Control { running, channel }
}

impl Control {
    fn environments(&self) -> EnvironmentServiceClient<Channel> {
        EnvironmentServiceClient::new(self.channel.clone())
    }

    fn fleet(&self) -> FleetServiceClient<Channel> {
        FleetServiceClient::new(self.channel.clone())
    }

    fn data(&self) -> DataServiceClient<Channel> {
        DataServiceClient::new(self.channel.clone())
    }

    fn stores(&self) -> StoreServiceClient<Channel> {
        StoreServiceClient::new(self.channel.clone())
    }

    async fn create(&self, name: &str) -> v1::Environment {
        let answer = self.environments().create_environment(new_environment(name)).await;
        answer.unwrap().into_inner().environment.unwrap()
    }

    async fn get(&self, name: &str) -> Result<v1::Environment, Status> {
        let request = v1::GetEnvironmentRequest { name: name.to_owned() };
        let answer = self.environments().get_environment(request).await?;
        Ok(answer.into_inner().environment.unwrap())
    }

    /// Waits until the environment is as it should be.
    async fn until(&self, name: &str, what: &str, holds: impl Fn(&v1::Environment) -> bool) -> v1::Environment {
        let mut last = None;
        for _ in 0..PATIENCE.as_millis() / 20 {
            let environment = self.get(name).await.unwrap();
            if holds(&environment) {
                return environment;
            }
            last = Some(environment);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("{name} is not {what}: {last:#?}");
    }

    async fn http(&self, path: &str) -> (u16, String) {
        let mut connection = TcpStream::connect(self.running.http_addr()).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        connection.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        connection.read_to_string(&mut answer).await.unwrap();
        let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
        let body = answer.split_once("\r\n\r\n").unwrap().1.to_owned();
        (status, body)
    }

    async fn connect(&self, hello: v1::Hello) -> Result<Worker, Status> {
        let (say, outgoing) = mpsc::channel(16);
        say.send(up(Up::Hello(hello))).await.unwrap();
        let answer = WorkerServiceClient::new(self.channel.clone()).session(ReceiverStream::new(outgoing)).await?;
        Ok(Worker { say, hear: answer.into_inner() })
    }
}

fn up(message: Up) -> v1::SessionRequest {
    v1::SessionRequest { message: Some(message) }
}

fn new_environment(name: &str) -> v1::CreateEnvironmentRequest {
    v1::CreateEnvironmentRequest {
        name: name.to_owned(),
        spec: Some(v1::EnvironmentSpec { prefix: format!("ld:{name}"), ..Default::default() }),
        sdk_key: KEY.to_owned(),
        ..Default::default()
    }
}

fn refusal<T: std::fmt::Debug>(result: Result<T, Status>) -> Refusal {
    let status = result.unwrap_err();
    Refusal::from_status(&status).unwrap_or_else(|| panic!("no reason in {status:?}"))
}

/// A worker that does what its test says, and nothing by itself.
struct Worker {
    say: mpsc::Sender<v1::SessionRequest>,
    hear: Streaming<v1::SessionResponse>,
}

impl Worker {
    async fn say(&self, message: Up) {
        self.say.send(up(message)).await.unwrap();
    }

    /// The next message, answers to heartbeats left out.
    async fn next(&mut self) -> Option<Down> {
        loop {
            let message =
                tokio::time::timeout(PATIENCE, self.hear.message()).await.expect("nothing heard").unwrap();
            match message.map(|message| message.message.unwrap()) {
                Some(Down::HeartbeatReply(_)) => {}
                other => return other,
            }
        }
    }

    async fn welcome(&mut self) -> v1::Welcome {
        match self.next().await {
            Some(Down::Welcome(welcome)) => welcome,
            other => panic!("no welcome: {other:?}"),
        }
    }

    /// The next update, acknowledged.
    async fn update(&mut self) -> v1::Update {
        loop {
            match self.next().await {
                Some(Down::Update(update)) => {
                    self.say(Up::Ack(v1::Ack { nonce: update.nonce })).await;
                    return update;
                }
                Some(Down::InitialStateComplete(_)) => {}
                other => panic!("no update: {other:?}"),
            }
        }
    }

    /// Updates until one assigns the environment.
    async fn assignment(&mut self, name: &str) -> v1::Assignment {
        loop {
            let update = self.update().await;
            if let Some(found) = update.assignments.into_iter().find(|one| one.environment == name) {
                return found;
            }
        }
    }
}

fn hello(name: &str) -> v1::Hello {
    v1::Hello {
        worker: name.to_owned(),
        incarnation: Some(v1::Incarnation {
            state_directory_id: format!("directory-of-{name}"),
            start_counter: 1,
            random: 7,
        }),
        version: "0.1.0".to_owned(),
        ..Default::default()
    }
}

/// The report of an environment that is written and alive.
fn current(assignment: &v1::Assignment) -> v1::EnvironmentReport {
    let now = Some(prost_types::Timestamp { seconds: 1_900_000_000, nanos: 0 });
    v1::EnvironmentReport {
        environment: assignment.environment.clone(),
        uid: assignment.uid.clone(),
        generation: assignment.generation,
        grant: assignment.grant.clone(),
        grant_state: v1::GrantState::Synchronized.into(),
        source_state: v1::SourceState::Connected.into(),
        marker: v1::MarkerState::Present.into(),
        store_available: Some(true),
        flags: 3,
        last_event_time: now,
        last_byte_time: now,
        last_write_time: now,
        ..Default::default()
    }
}

fn initialization(environment: &v1::Environment) -> v1::Initialization {
    environment.status.as_ref().unwrap().initialization()
}
