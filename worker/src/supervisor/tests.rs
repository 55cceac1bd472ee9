//! The supervisor and the link against a scripted control over gRPC, with environments that only note what they are told.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use flotilla_proto::session::{Assignment, ControlMessage, GoAway, Removal, Update, Welcome, WorkerMessage};
use flotilla_proto::v1::worker_service_server::{WorkerService, WorkerServiceServer};
use flotilla_proto::{Reason, Refusal, Term, v1};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Request, Response, Status, Streaming};

use super::*;
use crate::link;
use crate::secrets::Secrets;
use crate::session::testing::{FLEET, assignment, memory, profile, report};

const BOUND: Duration = Duration::from_secs(10);

/// What the environments were told, in words, by name; and whether they take anything.
#[derive(Debug, Clone)]
struct Notes {
    told: Arc<Mutex<BTreeMap<String, Vec<String>>>>,
    /// A permit is needed to be told something, by the environments named "stuck".
    stuck: Arc<Semaphore>,
    /// Dropping one is the end of its environment's task.
    alive: Arc<Mutex<BTreeMap<String, oneshot::Sender<Infallible>>>>,
}

impl Notes {
    fn add(&self, environment: &str, what: String) {
        self.told.lock().unwrap().entry(environment.to_owned()).or_default().push(what);
    }

    async fn wait_for(&self, environment: &str, what: &str) {
        self.wait_for_times(1, environment, what).await;
    }

    async fn wait_for_times(&self, times: usize, environment: &str, what: &str) {
        let waiting = async {
            while self.of(environment).iter().filter(|told| *told == what).count() < times {
                sleep(Duration::from_millis(5)).await;
            }
        };
        let result = timeout(BOUND, waiting).await;
        assert!(result.is_ok(), "{environment} was not told {what:?} but {:?}", self.of(environment));
    }

    fn of(&self, environment: &str) -> Vec<String> {
        self.told.lock().unwrap().get(environment).cloned().unwrap_or_default()
    }
}

#[derive(Debug)]
struct Noting {
    name: String,
    notes: Notes,
}

impl RunningEnvironment for Noting {
    async fn tell(&self, input: EnvironmentInput) {
        if self.name == "stuck" {
            self.notes.stuck.acquire().await.unwrap().forget();
        }
        let what = match input {
            EnvironmentInput::Assigned(assignment) => format!("epoch {}", assignment.grant.epoch),
            EnvironmentInput::Confirmed { valid } => format!("valid {valid}"),
            EnvironmentInput::Control(control) => format!("connected {}", control.connected),
            EnvironmentInput::Ask { answer, .. } => {
                let _ = answer.send(Answer::GetItem(v1::GetItemResponse::default()));
                "asked".to_owned()
            }
        };
        self.notes.add(&self.name, what);
    }

    async fn stop(self) {
        self.notes.add(&self.name, "stopped".to_owned());
    }
}

impl Environments for Notes {
    type Running = Noting;

    fn start(&mut self, start: Start) -> Result<Noting, StoreError> {
        let Start { assignment, updates, first_write_number, ended, .. } = start;
        if assignment.environment.as_str() == "impossible" {
            return Err(StoreError::NotDone("no such store".to_owned()));
        }
        let name = assignment.environment.to_string();
        let run = first_write_number / WRITE_NUMBERS_PER_RUN;
        self.add(&name, format!("started {} as {run}", assignment.uid));
        self.alive.lock().unwrap().insert(name.clone(), ended);
        let report = EnvironmentUpdate::Report(Box::new(report(&assignment)));
        updates.try_send((assignment.environment, report)).unwrap();
        Ok(Noting { name, notes: self.clone() })
    }

    fn secrets(&self) -> Secrets {
        Secrets::default()
    }
}

/// One end of a stream, as control has it.
#[derive(Debug)]
struct ControlEnd {
    up: Streaming<v1::SessionRequest>,
    down: mpsc::Sender<Result<v1::SessionResponse, Status>>,
}

impl ControlEnd {
    async fn hear(&mut self) -> WorkerMessage {
        let message = timeout(BOUND, self.up.message()).await.expect("the worker is silent");
        message.unwrap().expect("the worker ended the stream").try_into().unwrap()
    }

    /// The next message that is no report.
    async fn hear_decision(&mut self) -> WorkerMessage {
        loop {
            match self.hear().await {
                WorkerMessage::Report(_) => {}
                message => return message,
            }
        }
    }

    async fn say(&self, message: ControlMessage) {
        self.down.send(Ok((&message).into())).await.unwrap();
    }

    async fn welcome(&self) {
        self.say(ControlMessage::Welcome(Welcome {
            fleet: FLEET.parse().unwrap(),
            term: Term(1),
            heartbeat_interval: Duration::from_mins(1),
            lease_duration: Duration::from_mins(5),
        }))
        .await;
    }

    async fn update(&mut self, nonce: u64, assignments: Vec<Assignment>, removals: Vec<Removal>) -> WorkerMessage {
        let assignments = assignments.into_iter().map(Ok).collect();
        self.say(ControlMessage::Update(Update { nonce, assignments, removals })).await;
        self.hear_decision().await
    }
}

#[derive(Debug)]
struct ScriptedControl {
    streams: mpsc::Sender<ControlEnd>,
    refusal: Option<Refusal>,
}

#[tonic::async_trait]
impl WorkerService for ScriptedControl {
    type SessionStream = ReceiverStream<Result<v1::SessionResponse, Status>>;

    async fn session(
        &self,
        request: Request<Streaming<v1::SessionRequest>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        if let Some(refusal) = &self.refusal {
            return Err(refusal.clone().into());
        }
        let (down, messages) = mpsc::channel(16);
        self.streams.send(ControlEnd { up: request.into_inner(), down }).await.unwrap();
        Ok(Response::new(ReceiverStream::new(messages)))
    }
}

/// A worker with noting environments, and control's side of it.
struct Bench {
    notes: Notes,
    streams: mpsc::Receiver<ControlEnd>,
    leave: CancellationToken,
    memories: watch::Receiver<Option<Memory>>,
    worker: JoinSet<Result<(), Ended>>,
    _rest: JoinSet<()>,
}

impl Bench {
    async fn start(memory: Option<Memory>, refusal: Option<Refusal>) -> Self {
        Self::start_with(memory, refusal, BOUND).await
    }

    async fn start_with(memory: Option<Memory>, refusal: Option<Refusal>, drain_timeout: Duration) -> Self {
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
        let dead = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
        let url = |address: SocketAddr| format!("http://{address}").parse().unwrap();
        // Nobody listens at the first address: the link goes on to the second.
        let addresses = vec![url(dead.local_addr().unwrap()), url(listener.local_addr().unwrap())];
        drop(dead);
        let (streams_sender, streams) = mpsc::channel(4);
        let service = WorkerServiceServer::new(ScriptedControl { streams: streams_sender, refusal });
        let server = tonic::transport::Server::builder()
            .add_service(service)
            .serve_with_incoming(TcpListenerStream::new(listener));
        let notes = Notes { told: Arc::default(), stuck: Arc::new(Semaphore::new(0)), alive: Arc::default() };
        let (events, link_events) = mpsc::channel(link::EVENT_QUEUE);
        let (memory_sender, memories) = watch::channel(None);
        let leave = CancellationToken::new();
        let channels = Channels {
            link: link_events,
            memory: memory_sender,
            progress: watch::channel(Progress::default()).0,
            leave: leave.clone(),
        };
        let clock = Clock::start();
        let session = Session::new(profile(), memory, clock.now());
        let mut rest = JoinSet::new();
        rest.spawn(async move { server.await.unwrap() });
        rest.spawn(link::run(
            addresses,
            flotilla_proto::connect::ConnectOptions::default(),
            link::tcp(),
            flotilla_proto::process::Chance::system(),
            events,
        ));
        let mut worker = JoinSet::new();
        worker.spawn(Supervisor::new(clock, session, notes.clone(), channels, drain_timeout).run());
        Self { notes, streams, leave, memories, worker, _rest: rest }
    }

    async fn stream(&mut self) -> ControlEnd {
        let mut end = timeout(BOUND, self.streams.recv()).await.expect("no stream").unwrap();
        assert!(matches!(end.hear().await, WorkerMessage::Hello(_)));
        end.welcome().await;
        end
    }

    async fn end(&mut self) -> Result<(), Ended> {
        timeout(BOUND, self.worker.join_next()).await.expect("the worker goes on").unwrap().unwrap()
    }
}

fn removal(of: &Assignment) -> Removal {
    Removal { environment: of.environment.clone(), uid: of.uid.clone() }
}

#[tokio::test]
async fn assignments_come_change_and_go() {
    let mut bench = Bench::start(None, None).await;
    let mut control = bench.stream().await;
    let first = assignment("a", "u1", 1);
    assert_eq!(control.update(1, vec![first.clone()], vec![]).await, WorkerMessage::Ack { nonce: 1 });
    control.update(2, vec![assignment("a", "u1", 2)], vec![]).await;
    bench.notes.wait_for("a", "epoch 2").await;
    let second = assignment("a", "u2", 3);
    control.update(3, vec![second.clone()], vec![removal(&first)]).await;
    // The write numbers of this name, and thus maybe of this prefix, never repeat.
    bench.notes.wait_for("a", "started u2 as 2").await;
    control.update(4, vec![], vec![removal(&second)]).await;
    bench.notes.wait_for_times(2, "a", "stopped").await;
    assert!(bench.memories.borrow().as_ref().unwrap().assignments.is_empty());
}

#[tokio::test]
async fn one_that_is_stuck_delays_nobody() {
    let mut bench = Bench::start(None, None).await;
    let mut control = bench.stream().await;
    let both = vec![assignment("a", "u1", 1), assignment("stuck", "u2", 1)];
    control.update(1, both, vec![]).await;
    for epoch in 2..100 {
        let both = vec![assignment("a", "u1", epoch), assignment("stuck", "u2", epoch)];
        assert_eq!(control.update(epoch, both, vec![]).await, WorkerMessage::Ack { nonce: epoch });
    }
    bench.notes.wait_for("a", "epoch 99").await;
    bench.notes.stuck.add_permits(10);
    bench.notes.wait_for("stuck", "epoch 99").await;
    assert!(bench.notes.of("stuck").len() < 10, "only the newest waits: {:?}", bench.notes.of("stuck"));
}

#[tokio::test]
async fn one_that_cannot_be_started_is_rejected() {
    let mut bench = Bench::start(None, None).await;
    let mut control = bench.stream().await;
    let both = vec![assignment("a", "u1", 1), assignment("impossible", "u2", 1)];
    let WorkerMessage::Nack { nonce: 1, rejections } = control.update(1, both, vec![]).await else {
        panic!("not rejected")
    };
    assert_eq!(
        (rejections[0].environment.as_str(), rejections[0].message.as_str()),
        ("impossible", "no such store")
    );
    assert_eq!(control.update(2, vec![], vec![]).await, WorkerMessage::Ack { nonce: 2 });
    assert_eq!(bench.notes.of("a"), ["started u1 as 1"]);
}

#[tokio::test]
async fn control_learns_at_once_of_what_of_the_cache_cannot_be_started() {
    let cached = vec![assignment("a", "u1", 1), assignment("impossible", "u2", 1)];
    let mut bench = Bench::start(Some(memory(cached)), None).await;
    let control = bench.stream().await;
    control.say(ControlMessage::InitialStateComplete).await;
    let mut again = timeout(BOUND, bench.streams.recv()).await.expect("the session goes on").unwrap();
    let WorkerMessage::Hello(hello) = again.hear().await else { panic!("no hello") };
    let held: Vec<_> = hello.held.iter().map(|held| held.environment.as_str()).collect();
    assert_eq!(held, ["a"], "control sees that the other is not held");
    again.welcome().await;
    let answer = again.update(1, vec![assignment("impossible", "u2", 1)], vec![]).await;
    assert!(matches!(answer, WorkerMessage::Nack { .. }), "{answer:?}");
}

#[tokio::test]
async fn one_whose_task_fails_is_started_again_with_what_it_last_had() {
    let mut bench = Bench::start(None, None).await;
    let mut control = bench.stream().await;
    control.update(1, vec![assignment("a", "u1", 1), assignment("b", "u2", 1)], vec![]).await;
    control.update(2, vec![assignment("a", "u1", 2)], vec![]).await;
    bench.notes.wait_for("a", "epoch 2").await;
    drop(bench.notes.alive.lock().unwrap().remove("a"));
    let error = loop {
        if let WorkerMessage::Report(reports) = control.hear().await
            && let Some(error) = reports.into_iter().find_map(|report| report.last_error)
        {
            break error;
        }
    };
    assert!(error.message.contains("ended unexpectedly; next attempt in 1 s"), "{error:?}");
    bench.notes.wait_for("a", "started u1 as 3").await;
    control.update(3, vec![assignment("a", "u1", 3)], vec![]).await;
    bench.notes.wait_for("a", "epoch 3").await;
    assert!(!bench.notes.of("b").contains(&"stopped".to_owned()));
}

#[tokio::test]
async fn one_that_failed_and_is_taken_away_is_not_waited_for() {
    let mut bench = Bench::start(None, None).await;
    let mut control = bench.stream().await;
    let (first, second) = (assignment("a", "u1", 1), assignment("a", "u2", 2));
    control.update(1, vec![first.clone()], vec![]).await;
    for run in 1..4 {
        bench.notes.wait_for("a", &format!("started u1 as {run}")).await;
        drop(bench.notes.alive.lock().unwrap().remove("a"));
        bench.notes.wait_for_times(run, "a", "stopped").await;
    }
    // It would be started again after 4 s.
    control.update(2, vec![second], vec![removal(&first)]).await;
    timeout(Duration::from_secs(3), bench.notes.wait_for("a", "started u2 as 4")).await.expect("at once");
}

#[tokio::test]
async fn questions_that_find_no_room_are_told_so() {
    let mut bench = Bench::start(None, None).await;
    let mut control = bench.stream().await;
    control.update(1, vec![assignment("stuck", "u1", 1)], vec![]).await;
    // One is under way, 32 wait; the next finds no room.
    for id in 1..=34 {
        let question = Question::GetItem(v1::GetItemRequest {
            environment: "stuck".to_owned(),
            ..v1::GetItemRequest::default()
        });
        control.say(ControlMessage::Request { id, deadline: 4 * BOUND, question }).await;
    }
    let WorkerMessage::Reply { answer: Answer::Failure(failure), .. } = control.hear_decision().await else {
        panic!("no failure")
    };
    assert_eq!(failure.reason, "WORKER_TIMEOUT");
    assert!(failure.message.contains("too many"), "{}", failure.message);
}

#[tokio::test]
async fn questions_reach_their_environment_and_others_are_refused() {
    let mut bench = Bench::start(None, None).await;
    let mut control = bench.stream().await;
    control.update(1, vec![assignment("a", "u1", 1)], vec![]).await;
    for (environment, expected) in [("a", None), ("b", Some("NO_WORKER")), ("", Some("NO_WORKER"))] {
        let question = Question::GetItem(v1::GetItemRequest {
            environment: environment.to_owned(),
            ..v1::GetItemRequest::default()
        });
        control.say(ControlMessage::Request { id: 5, deadline: BOUND, question }).await;
        let WorkerMessage::Reply { id: 5, answer } = control.hear_decision().await else { panic!("no reply") };
        let reason = match answer {
            Answer::Failure(failure) => Some(failure.reason),
            _ => None,
        };
        assert_eq!(reason.as_deref(), expected, "{environment:?}");
    }
}

#[tokio::test]
async fn a_lost_session_is_made_again_and_told_everything() {
    let mut bench = Bench::start(None, None).await;
    let mut control = bench.stream().await;
    control.update(1, vec![assignment("a", "u1", 1)], vec![]).await;
    drop(control);
    bench.notes.wait_for("a", "connected false").await;
    let mut end = timeout(BOUND, bench.streams.recv()).await.unwrap().unwrap();
    let WorkerMessage::Hello(hello) = end.hear().await else { panic!("no hello") };
    assert_eq!(hello.held.len(), 1);
    end.welcome().await;
    bench.notes.wait_for("a", "connected true").await;
    let WorkerMessage::Report(reports) = end.hear().await else { panic!("no report") };
    assert_eq!(reports[0].environment.as_str(), "a");
    assert_eq!(bench.notes.of("a")[0], "started u1 as 1");
    assert!(!bench.notes.of("a").contains(&"stopped".to_owned()));
}

#[tokio::test]
async fn leaving_waits_for_moves_then_stops_then_says_goodbye() {
    let mut bench = Bench::start_with(None, None, 100 * BOUND).await;
    let mut control = bench.stream().await;
    let both = [assignment("a", "u1", 1), assignment("b", "u2", 1)];
    control.update(1, both.to_vec(), vec![]).await;
    bench.leave.cancel();
    assert_eq!(control.hear_decision().await, WorkerMessage::Draining { deadline: 100 * BOUND });
    control.update(2, vec![], vec![removal(&both[0])]).await;
    bench.notes.wait_for("a", "stopped").await;
    assert_eq!(bench.notes.of("b"), ["started u2 as 2"], "it goes on until it has moved");
    control.update(3, vec![], vec![removal(&both[1])]).await;
    assert_eq!(control.hear_decision().await, WorkerMessage::Goodbye);
    assert_eq!(bench.notes.of("b").last().map(String::as_str), Some("stopped"));
    assert_eq!(bench.end().await, Ok(()));
}

#[tokio::test]
async fn leaving_does_not_wait_when_nobody_can_take_what_is_left() {
    let mut bench = Bench::start_with(None, None, 100 * BOUND).await;
    let mut control = bench.stream().await;
    control.update(1, vec![assignment("a", "u1", 1)], vec![]).await;
    bench.leave.cancel();
    assert!(matches!(control.hear_decision().await, WorkerMessage::Draining { .. }));
    control.say(ControlMessage::NothingMoves).await;
    assert_eq!(control.hear_decision().await, WorkerMessage::Goodbye);
    assert_eq!(bench.end().await, Ok(()));
}

#[tokio::test]
async fn leaving_does_not_wait_for_a_control_that_is_gone() {
    let mut bench = Bench::start_with(None, None, 100 * BOUND).await;
    let mut control = bench.stream().await;
    control.update(1, vec![assignment("a", "u1", 1)], vec![]).await;
    drop(control);
    bench.notes.wait_for("a", "connected false").await;
    bench.leave.cancel();
    assert_eq!(bench.end().await, Ok(()));
}

#[tokio::test]
async fn leaving_has_an_end_however_long_the_moves_take() {
    let mut bench = Bench::start_with(None, None, Duration::from_millis(200)).await;
    let mut control = bench.stream().await;
    control.update(1, vec![assignment("a", "u1", 1)], vec![]).await;
    bench.leave.cancel();
    assert_eq!(bench.end().await, Ok(()));
    assert_eq!(bench.notes.of("a").last().map(String::as_str), Some("stopped"));
}

#[tokio::test]
async fn one_that_is_stuck_does_not_keep_the_worker_from_leaving() {
    let mut bench = Bench::start_with(None, None, Duration::from_millis(200)).await;
    let mut control = bench.stream().await;
    control.update(1, vec![assignment("stuck", "u1", 1)], vec![]).await;
    control.update(2, vec![assignment("stuck", "u1", 2)], vec![]).await;
    bench.leave.cancel();
    timeout(Duration::from_secs(5), bench.end()).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_superseded_worker_ends_and_says_why() {
    let mut bench = Bench::start(None, None).await;
    let mut control = bench.stream().await;
    control.update(1, vec![assignment("a", "u1", 1)], vec![]).await;
    control.say(ControlMessage::GoAway { reason: GoAway::Superseded, message: "from 10.0.0.7".to_owned() }).await;
    assert!(bench.end().await.unwrap_err().to_string().contains("10.0.0.7"));
    assert_eq!(bench.notes.of("a").last().map(String::as_str), Some("stopped"));
}

#[tokio::test]
async fn a_taken_name_ends_the_worker() {
    let refusal = Refusal::new(Reason::WorkerNameTaken, "w1 is alive at 10.0.0.7");
    let mut bench = Bench::start(Some(memory(vec![])), Some(refusal)).await;
    let ended = bench.end().await.unwrap_err().to_string();
    assert!(ended.contains("10.0.0.7") && ended.contains("w1 is taken"), "{ended}");
}
