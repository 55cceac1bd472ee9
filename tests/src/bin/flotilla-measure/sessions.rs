//! Workers that only speak to control: they take what they are given, and say every few seconds that all is well.

use std::collections::BTreeMap;
use std::time::Duration;

use flotilla_proto::v1;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Endpoint;
use v1::session_request::Message as Up;
use v1::session_response::Message as Down;
use v1::worker_service_client::WorkerServiceClient;

/// How often each sends a heartbeat, and a report of everything.
const REPORT: Duration = Duration::from_secs(3);
/// Environments of one report.
const REPORTED_AT_ONCE: usize = 200;

/// A session that ends when it is dropped, as a killed process's does.
#[derive(Debug)]
pub(crate) struct Session {
    _task: JoinSet<anyhow::Result<()>>,
}

impl Session {
    /// Connects a worker of that name.
    pub(crate) fn start(url: &str, name: &str) -> Self {
        let mut task = JoinSet::new();
        task.spawn(run(url.to_owned(), name.to_owned()));
        Self { _task: task }
    }
}

async fn run(url: String, name: String) -> anyhow::Result<()> {
    let channel = Endpoint::from_shared(url)?.connect().await?;
    let (say, outgoing) = mpsc::channel(64);
    say.send(up(Up::Hello(hello(&name)))).await?;
    let mut client = WorkerServiceClient::new(channel).max_decoding_message_size(64 << 20);
    let mut heard = client.session(ReceiverStream::new(outgoing)).await?.into_inner();
    let mut held: BTreeMap<String, v1::Assignment> = BTreeMap::new();
    let mut beat = tokio::time::interval(REPORT);
    loop {
        tokio::select! {
            message = heard.message() => {
                let Some(message) = message? else { return Ok(()) };
                if let Some(Down::Update(update)) = message.message {
                    say.send(up(Up::Ack(v1::Ack { nonce: update.nonce }))).await?;
                    for removal in &update.removals {
                        held.remove(&removal.environment);
                    }
                    report(&say, update.assignments.iter()).await?;
                    held.extend(update.assignments.into_iter().map(|one| (one.environment.clone(), one)));
                }
            }
            _ = beat.tick() => {
                say.send(up(Up::Heartbeat(v1::Heartbeat {}))).await?;
                report(&say, held.values()).await?;
            }
        }
    }
}

async fn report(
    say: &mpsc::Sender<v1::SessionRequest>,
    assignments: impl Iterator<Item = &v1::Assignment>,
) -> anyhow::Result<()> {
    let reports: Vec<_> = assignments.map(current).collect();
    for some in reports.chunks(REPORTED_AT_ONCE) {
        say.send(up(Up::Report(v1::Report { environments: some.to_vec() }))).await?;
    }
    Ok(())
}

fn up(message: Up) -> v1::SessionRequest {
    v1::SessionRequest { message: Some(message) }
}

fn hello(name: &str) -> v1::Hello {
    let incarnation =
        v1::Incarnation { state_directory_id: format!("directory-of-{name}"), start_counter: 1, random: 7 };
    v1::Hello {
        worker: name.to_owned(),
        incarnation: Some(incarnation),
        version: "0.1.0".to_owned(),
        ..v1::Hello::default()
    }
}

/// The report of an environment that is written and alive. Its times change, as those of a real one do.
fn current(assignment: &v1::Assignment) -> v1::EnvironmentReport {
    let now = Some(flotilla_proto::process::Clock::start().now().to_proto());
    v1::EnvironmentReport {
        environment: assignment.environment.clone(),
        uid: assignment.uid.clone(),
        generation: assignment.generation,
        grant: assignment.grant.clone(),
        grant_state: v1::GrantState::Synchronized.into(),
        source_state: v1::SourceState::Connected.into(),
        marker: v1::MarkerState::Present.into(),
        store_available: Some(true),
        flags: 200,
        bytes: 400_000,
        last_event_time: now,
        last_byte_time: now,
        last_write_time: now,
        ..v1::EnvironmentReport::default()
    }
}
