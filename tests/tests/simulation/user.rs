//! A user: carries out what the script asks for, lists what there is, and watches.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use flotilla_proto::v1;
use tonic::transport::{Channel, Endpoint};
use v1::environment_service_client::EnvironmentServiceClient;
use v1::fleet_service_client::FleetServiceClient;
use v1::watch_environments_response::Event;

use crate::hosts::{Dialer, control_url, worker_name};
use crate::world::{Named, Shared, Wanted};

type Environments = EnvironmentServiceClient<Channel>;

/// How often the user looks.
const LOOK: Duration = Duration::from_millis(250);
const CALL: Duration = Duration::from_secs(2);

/// What a user does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Act {
    Create {
        name: String,
        prefix: String,
        key: String,
    },
    /// One that no worker here can carry out.
    CreatePoison,
    Pause(String),
    Resume(String),
    Remove {
        name: String,
        purge: bool,
    },
    Resync(String),
    /// To the key of another LaunchDarkly environment.
    Rotate {
        name: String,
        key: String,
    },
    /// The conflict that is shown is taken over.
    TakeOver(String),
    Drain(usize),
    Cordon(usize),
    Uncordon(usize),
}

impl Act {
    /// Whether it takes a worker away, which nobody wants after the healing.
    pub(crate) fn is_trouble(&self) -> bool {
        match self {
            Self::Drain(_) | Self::Cordon(_) => true,
            Self::Create { .. }
            | Self::CreatePoison
            | Self::Pause(_)
            | Self::Resume(_)
            | Self::Remove { .. }
            | Self::Resync(_)
            | Self::Rotate { .. }
            | Self::TakeOver(_)
            | Self::Uncordon(_) => false,
        }
    }
}

/// What the user has to do, oldest first.
pub(crate) type Acts = Arc<std::sync::Mutex<VecDeque<Act>>>;

/// The prefix of an environment of the script.
pub(crate) fn prefix_of(name: &str) -> String {
    format!("p{}", name.trim_start_matches('e'))
}

/// The user's process.
pub(crate) async fn run(world: Shared, acts: Acts) -> turmoil::Result {
    let endpoint = Endpoint::from_shared(control_url())?
        .http2_keep_alive_interval(Duration::from_secs(2))
        .keep_alive_timeout(Duration::from_secs(2));
    let channel = endpoint.connect_with_connector_lazy(Dialer);
    let watching = watch(Arc::clone(&world), channel.clone());
    let acting = act(world, acts, channel);
    tokio::select! {
        biased;
        result = acting => result,
        () = watching => Ok(()),
    }
}

async fn act(world: Shared, acts: Acts, channel: Channel) -> turmoil::Result {
    while !world.lock().unwrap().is_over {
        let next = acts.lock().unwrap().front().cloned();
        if let Some(next) = next {
            let done = tokio::time::timeout(CALL, carry_out(&world, &channel, &next)).await;
            let mut world = world.lock().unwrap();
            match done {
                Ok(Ok(())) => world.note(format!("done: {next:?}")),
                Ok(Err(status)) if is_final(&status) => {
                    world.note(format!("refused: {next:?}: {}", status.message()));
                }
                // Nobody knows whether it was done: it is asked for again.
                Ok(Err(_)) | Err(_) if world.is_healed && next.is_trouble() => {}
                Ok(Err(_)) | Err(_) => continue_later(&acts),
            }
            // The healing may have taken it off.
            acts.lock().unwrap().pop_front_if(|front| *front == next);
        }
        let _ = tokio::time::timeout(CALL, list(&world, &channel)).await;
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}

fn continue_later(acts: &Acts) {
    let mut acts = acts.lock().unwrap();
    if let Some(first) = acts.front().cloned() {
        // The caller takes the first one off. It goes behind the others, for it may wait for what they do.
        acts.push_back(first);
    }
}

fn is_final(status: &tonic::Status) -> bool {
    !matches!(
        status.code(),
        tonic::Code::Unavailable
            | tonic::Code::DeadlineExceeded
            | tonic::Code::Cancelled
            | tonic::Code::Unknown
            | tonic::Code::Internal
    )
}

async fn carry_out(world: &Shared, channel: &Channel, act: &Act) -> Result<(), tonic::Status> {
    let mut environments = EnvironmentServiceClient::new(channel.clone());
    let mut fleet = FleetServiceClient::new(channel.clone());
    let set = |name: &str, wanted: Wanted| {
        if let Some(named) = world.lock().unwrap().named.get_mut(name) {
            named.wanted = wanted;
        }
    };
    match act.clone() {
        Act::Create { name, prefix, key } => create(world, environments, name, prefix, key).await?,
        Act::CreatePoison => create_poison(environments).await?,
        Act::Rotate { name, key } => rotate(world, environments, name, key).await?,
        Act::Pause(name) => {
            let request = v1::PauseEnvironmentRequest { name: name.clone(), ..Default::default() };
            environments.pause_environment(request).await?;
            set(&name, Wanted::Paused);
        }
        Act::Resume(name) => {
            let request = v1::ResumeEnvironmentRequest { name: name.clone(), ..Default::default() };
            environments.resume_environment(request).await?;
            set(&name, Wanted::Served);
        }
        Act::Remove { name, purge } => {
            if purge {
                world.lock().unwrap().note_purge(&name);
            }
            let request = v1::DeleteEnvironmentRequest { name: name.clone(), purge, ..Default::default() };
            set(&name, Wanted::Gone);
            environments.delete_environment(request).await?;
        }
        Act::Resync(name) => {
            let request = v1::ResyncEnvironmentRequest { name, ..Default::default() };
            environments.resync_environment(request).await?;
        }
        Act::TakeOver(name) => {
            let request = v1::ResyncEnvironmentRequest { name, take_over: true, ..Default::default() };
            environments.resync_environment(request).await?;
        }
        Act::Drain(worker) => {
            let request = v1::DrainWorkerRequest { name: worker_name(worker), validate_only: false };
            fleet.drain_worker(request).await?;
        }
        Act::Cordon(worker) => {
            let request = v1::CordonWorkerRequest { name: worker_name(worker), validate_only: false };
            fleet.cordon_worker(request).await?;
        }
        Act::Uncordon(worker) => {
            let request = v1::UncordonWorkerRequest { name: worker_name(worker), validate_only: false };
            fleet.uncordon_worker(request).await?;
        }
    }
    Ok(())
}

async fn create(
    world: &Shared,
    mut environments: Environments,
    name: String,
    prefix: String,
    key: String,
) -> Result<(), tonic::Status> {
    world.lock().unwrap().note_key(&name, &key);
    let spec = Some(v1::EnvironmentSpec { prefix, ..Default::default() });
    let request =
        v1::CreateEnvironmentRequest { name: name.clone(), spec, sdk_key: key.clone(), ..Default::default() };
    match environments.create_environment(request).await {
        Err(status) if status.code() != tonic::Code::AlreadyExists => return Err(status),
        // An earlier attempt was done, or the one before is still being removed.
        Err(status) => {
            let present = v1::GetEnvironmentRequest { name: name.clone() };
            let present = environments.get_environment(present).await?.into_inner().environment;
            if present.is_none_or(|present| present.removing) {
                return Err(tonic::Status::unavailable(status.message()));
            }
        }
        Ok(_) => {}
    }
    let mut world = world.lock().unwrap();
    // One that was there all the time keeps its key.
    if world.named.get(&name).is_none_or(|named| named.wanted == Wanted::Gone) {
        world.named.insert(name, Named { key, wanted: Wanted::Served });
    }
    Ok(())
}

async fn create_poison(mut environments: Environments) -> Result<(), tonic::Status> {
    let source = v1::source::Kind::File(v1::FileSource { path: "flags.json".to_owned() });
    let spec = v1::EnvironmentSpec {
        prefix: "poison".to_owned(),
        source: Some(v1::Source { kind: Some(source) }),
        ..Default::default()
    };
    let request =
        v1::CreateEnvironmentRequest { name: "poison".to_owned(), spec: Some(spec), ..Default::default() };
    environments.create_environment(request).await?;
    Ok(())
}

async fn rotate(
    world: &Shared,
    mut environments: Environments,
    name: String,
    key: String,
) -> Result<(), tonic::Status> {
    world.lock().unwrap().note_key(&name, &key);
    let request =
        v1::RotateSdkKeyRequest { name: name.clone(), sdk_key: key.clone(), force: true, ..Default::default() };
    environments.rotate_sdk_key(request).await?;
    if let Some(named) = world.lock().unwrap().named.get_mut(&name) {
        named.key = key;
    }
    Ok(())
}

async fn list(world: &Shared, channel: &Channel) -> Result<(), tonic::Status> {
    let request = v1::ListEnvironmentsRequest { page_size: 500, ..Default::default() };
    let environments =
        EnvironmentServiceClient::new(channel.clone()).list_environments(request).await?.into_inner();
    let request = v1::ListWorkersRequest { page_size: 500, ..Default::default() };
    let workers = FleetServiceClient::new(channel.clone()).list_workers(request).await?.into_inner();
    let request = v1::ListEventsRequest { page_size: 60, ..Default::default() };
    let events = FleetServiceClient::new(channel.clone()).list_events(request).await?.into_inner().events;
    let mut world = world.lock().unwrap();
    world.listed = (world.now, environments.environments);
    world.events = events.into_iter().rev().collect();
    world.workers = workers.workers;
    world.check_what_is_shown();
    Ok(())
}

/// Follows the environments; after a lost watch it takes up where it was, and lists again where it is told to.
async fn watch(world: Shared, channel: Channel) {
    let mut revision = String::new();
    loop {
        let request = v1::WatchEnvironmentsRequest { filter: None, resume_from_revision: revision.clone() };
        let mut client = EnvironmentServiceClient::new(channel.clone());
        if let Ok(Ok(answer)) = tokio::time::timeout(CALL, client.watch_environments(request)).await {
            let mut stream = answer.into_inner();
            if revision.is_empty() {
                world.lock().unwrap().watched.clear();
            }
            loop {
                match stream.message().await {
                    Ok(Some(message)) => {
                        revision = message.revision;
                        let mut world = world.lock().unwrap();
                        world.check_what_is_watched(message.event.as_ref());
                        match message.event {
                            Some(Event::Changed(environment)) => {
                                world.watched.insert(environment.name.clone(), environment);
                            }
                            Some(Event::Removed(removed)) => {
                                world.watched.remove(&removed.name);
                            }
                            Some(Event::Synced(_)) | None => {}
                        }
                    }
                    Ok(None) => break,
                    Err(status) => {
                        if status.code() == tonic::Code::OutOfRange {
                            revision.clear();
                        }
                        break;
                    }
                }
            }
        }
        tokio::time::sleep(LOOK).await;
    }
}
