//! The session against a scripted control.

use std::time::Duration;

use flotilla_proto::session::{
    Assignment, ControlMessage, GoAway, Rejection, Removal, Update, Welcome, WorkerMessage,
};
use flotilla_proto::{GrantState, HeldGrant, Intent, Term, Timestamp, v1};

use super::testing::{FLEET, assignment, memory, profile, report};
use super::{CloseReason, Effect, Ended, Input, Memory, Session};

const LEASE: Duration = Duration::from_secs(15);
const HEARTBEAT: Duration = Duration::from_secs(3);

/// A session, its clock, and what it wants done.
struct Worker {
    session: Session,
    now: Timestamp,
}

impl Worker {
    fn new(memory: Option<Memory>) -> Self {
        let now = Timestamp(2_000_000);
        Self { session: Session::new(profile(), memory, now), now }
    }

    /// One with a session, and the environments given.
    fn with(assignments: &[Assignment]) -> Self {
        let mut worker = Self::new(None);
        worker.welcome();
        worker.update(1, assignments.to_vec(), Vec::new());
        worker.hear(ControlMessage::InitialStateComplete);
        worker
    }

    fn step(&mut self, input: Input) -> Vec<Effect> {
        self.session.step(self.now, input)
    }

    fn hear(&mut self, message: ControlMessage) -> Vec<Effect> {
        self.step(Input::Received(message))
    }

    fn welcome(&mut self) -> Vec<Effect> {
        self.welcome_from(FLEET, 1)
    }

    fn welcome_from(&mut self, fleet: &str, term: u64) -> Vec<Effect> {
        self.step(Input::Opened);
        self.hear(ControlMessage::Welcome(Welcome {
            fleet: fleet.parse().unwrap(),
            term: Term(term),
            heartbeat_interval: HEARTBEAT,
            lease_duration: LEASE,
        }))
    }

    fn update(&mut self, nonce: u64, assignments: Vec<Assignment>, removals: Vec<Removal>) -> Vec<Effect> {
        let assignments = assignments.into_iter().map(Ok).collect();
        self.hear(ControlMessage::Update(Update { nonce, assignments, removals }))
    }

    fn wait(&mut self, time: Duration) -> Vec<Effect> {
        self.now = self.now.after(time);
        self.step(Input::TimePassed)
    }

    /// Goes from deadline to deadline for a time, and returns everything that was wanted.
    fn live_for(&mut self, time: Duration) -> Vec<Effect> {
        let end = self.now.after(time);
        let mut effects = Vec::new();
        while let Some(deadline) = self.session.next_deadline().filter(|deadline| *deadline <= end) {
            self.now = self.now.max(deadline);
            effects.extend(self.step(Input::TimePassed));
        }
        self.now = end;
        effects
    }
}

fn removal(of: &Assignment) -> Removal {
    Removal { environment: of.environment.clone(), uid: of.uid.clone() }
}

fn held(of: &Assignment) -> HeldGrant {
    HeldGrant {
        environment: of.environment.clone(),
        uid: of.uid.clone(),
        generation: of.generation,
        grant: of.grant.clone(),
    }
}

fn kinds(effects: &[Effect]) -> Vec<String> {
    effects
        .iter()
        .map(|effect| match effect {
            Effect::Send(WorkerMessage::Report(reports)) => format!("report {}", reports.len()),
            Effect::Send(message) => format!("{message:?}").split([' ', '(']).next().unwrap_or_default().to_owned(),
            Effect::Start(assignment) => format!("start {} {}", assignment.environment, assignment.uid),
            Effect::Reassign(assignment) => format!("reassign {}", assignment.environment),
            Effect::Stop(environment) => format!("stop {environment}"),
            Effect::AnswerUpdate { rejections, .. } => format!("answer {}", rejections.len()),
            Effect::TellControlState => "control state".to_owned(),
            Effect::Confirmed { environment, valid, .. } => format!("confirmed {environment} {valid}"),
            Effect::Ask { .. } => "ask".to_owned(),
            Effect::Save => "save".to_owned(),
            Effect::Close(_) => "close".to_owned(),
            Effect::End(_) => "end".to_owned(),
        })
        .collect()
}

#[test]
fn a_hello_names_what_is_held_and_what_was_seen() {
    let held = assignment("a", "u1", 4);
    let mut worker = Worker::new(Some(memory(vec![held.clone()])));
    let effects = worker.step(Input::Opened);
    let [Effect::Send(WorkerMessage::Hello(hello))] = effects.as_slice() else { panic!("{effects:?}") };
    assert_eq!(hello.held, [super::tests::held(&held)]);
    assert_eq!(hello.highest_term, Term(5));
    assert_eq!(hello.fleet, Some(FLEET.parse().unwrap()));
}

#[test]
fn updates_start_change_replace_and_stop() {
    let mut worker = Worker::new(None);
    assert_eq!(kinds(&worker.welcome()), ["control state", "save"]);
    let first = assignment("a", "u1", 1);
    assert_eq!(kinds(&worker.update(1, vec![first.clone()], vec![])), ["start a u1", "save", "answer 0"]);
    assert_eq!(kinds(&worker.update(2, vec![first.clone()], vec![])), ["answer 0"], "nothing changed");
    assert_eq!(
        kinds(&worker.update(3, vec![assignment("a", "u1", 2)], vec![])),
        ["reassign a", "save", "answer 0"]
    );
    assert_eq!(
        kinds(&worker.update(4, vec![assignment("a", "u2", 3)], vec![removal(&first)])),
        ["stop a", "start a u2", "save", "answer 0"]
    );
    assert_eq!(kinds(&worker.update(5, vec![], vec![removal(&first)])), ["answer 0"], "that one is gone");
}

#[test]
fn what_cannot_be_carried_out_is_rejected_and_delays_nobody() {
    let mut worker = Worker::new(None);
    worker.welcome();
    let mut file = assignment("f", "u1", 1);
    file.spec.source = flotilla_proto::Source::File { path: "flags.json".to_owned() };
    let unreadable = Rejection {
        environment: "b".to_owned(),
        uid: "u2".to_owned(),
        generation: flotilla_proto::Generation(1),
        message: "spec.prefix: missing".to_owned(),
    };
    let effects = worker.hear(ControlMessage::Update(Update {
        nonce: 8,
        assignments: vec![Ok(file), Err(unreadable.clone()), Ok(assignment("a", "u3", 1))],
        removals: vec![],
    }));
    assert_eq!(kinds(&effects), ["start a u3", "save", "answer 2"]);
    let Some(Effect::AnswerUpdate { nonce: 8, rejections }) = effects.last() else { panic!("{effects:?}") };
    assert!(rejections[0].message.contains("--file-source-dir"));
    assert_eq!(rejections[1], unreadable);
}

#[test]
fn what_lacks_a_key_or_an_address_is_rejected_unless_nothing_is_read_for_it() {
    let lacking = |change: fn(&mut Assignment)| {
        let mut lacking = assignment("a", "u1", 1);
        change(&mut lacking);
        lacking
    };
    for (assignment, rejections) in [
        (lacking(|it| it.sdk_key = None), 1),
        (lacking(|it| (it.sdk_key, it.grant.intent) = (None, Intent::Warm)), 1),
        (lacking(|it| it.spec.stream_uri = None), 1),
        (lacking(|it| it.spec.base_uri = None), 1),
        (lacking(|it| (it.sdk_key, it.spec.base_uri, it.grant.intent) = (None, None, Intent::Release)), 0),
        (lacking(|it| (it.sdk_key, it.spec.base_uri, it.grant.intent) = (None, None, Intent::Purge)), 0),
    ] {
        let mut worker = Worker::new(None);
        worker.welcome();
        let effects = worker.update(1, vec![assignment], vec![]);
        assert_eq!(kinds(&effects).last(), Some(&format!("answer {rejections}")), "{effects:?}");
    }
}

#[test]
fn what_of_the_cache_is_unusable_is_kept_until_control_has_spoken() {
    let left = v1::Assignment { environment: "x".to_owned(), ..v1::Assignment::default() };
    let memory = Memory { unusable: vec![left.clone()], ..memory(vec![]) };
    let mut worker = Worker::new(Some(memory));
    worker.welcome_from(FLEET, 6);
    let kept = |worker: &Worker| worker.session.memory().unwrap().unusable;
    assert_eq!(kept(&worker), [left]);
    assert!(worker.hear(ControlMessage::InitialStateComplete).contains(&Effect::Save));
    assert!(kept(&worker).is_empty());
}

#[test]
fn what_control_does_not_mention_stays() {
    let mut worker = Worker::with(&[assignment("a", "u1", 1), assignment("b", "u2", 1)]);
    worker.step(Input::Closed);
    worker.welcome_from(FLEET, 1);
    assert!(worker.update(1, vec![assignment("a", "u1", 2)], vec![]).contains(&Effect::Save));
    let effects = worker.hear(ControlMessage::InitialStateComplete);
    assert_eq!(kinds(&effects), ["save"]);
    assert_eq!(worker.session.assigned(), 2);
}

#[test]
fn the_cache_is_started_after_two_seconds_without_control() {
    let mut worker = Worker::new(Some(memory(vec![assignment("a", "u1", 1)])));
    assert!(worker.wait(Duration::from_millis(1999)).is_empty());
    let state = worker.session.control_state(worker.now);
    assert_eq!((state.connected, state.lease), (false, Duration::from_secs(9)));
    assert_eq!(worker.now.since(state.confirmed_at), Duration::from_millis(1_001_999));
    assert_eq!(kinds(&worker.wait(Duration::from_millis(1))), ["start a u1"]);
    assert!(worker.wait(Duration::from_hours(1)).is_empty());
}

#[test]
fn controls_word_counts_over_the_cache() {
    let cached = ["a", "b", "c"].map(|name| assignment(name, "u1", 1));
    let mut worker = Worker::new(Some(memory(cached.to_vec())));
    worker.welcome_from(FLEET, 6);
    let effects = worker.update(1, vec![cached[0].clone()], vec![removal(&cached[1])]);
    assert_eq!(kinds(&effects), ["start a u1", "save", "answer 0"]);
    assert_eq!(kinds(&worker.hear(ControlMessage::InitialStateComplete)), ["start c u1", "save"]);
    assert_eq!(worker.session.memory().unwrap().highest_term, Term(6));
}

#[test]
fn heartbeats_go_out_and_their_silence_ends_the_session() {
    let mut worker = Worker::with(&[]);
    assert_eq!(kinds(&worker.wait(HEARTBEAT)), ["Heartbeat"]);
    worker.hear(ControlMessage::HeartbeatReply);
    let answered = worker.now;
    let effects = worker.live_for(LEASE);
    assert_eq!(worker.now.since(answered), LEASE);
    assert_eq!(
        kinds(&effects),
        ["Heartbeat", "Heartbeat", "Heartbeat", "Heartbeat", "close", "save", "control state"]
    );
    assert!(effects.contains(&Effect::Close(CloseReason::NoHeartbeatReply)));
    assert_eq!(worker.session.memory().unwrap().last_confirmed, answered);
}

#[test]
fn a_control_that_does_not_welcome_is_given_up() {
    let mut worker = Worker::new(None);
    worker.step(Input::Opened);
    assert_eq!(worker.wait(Duration::from_secs(10)), [Effect::Close(CloseReason::NoWelcome)]);
    worker.step(Input::Opened);
    assert_eq!(kinds(&worker.hear(ControlMessage::HeartbeatReply)), ["close"]);
    assert!(worker.hear(ControlMessage::HeartbeatReply).is_empty(), "the rest of that stream is ignored");
}

#[test]
fn another_fleet_is_not_obeyed() {
    let mut worker = Worker::new(Some(memory(vec![])));
    let effects = worker.welcome_from("fleet-2", 9);
    assert!(matches!(effects.as_slice(), [Effect::Close(CloseReason::AnotherFleet { .. })]), "{effects:?}");
    assert_eq!(worker.session.memory().unwrap().highest_term, Term(5));
}

#[test]
fn one_confirm_for_all_that_wait_and_one_at_a_time() {
    let all = ["a", "b", "c"].map(|name| assignment(name, name, 1));
    let mut worker = Worker::with(&all);
    let confirm = |id, of: &[&Assignment]| {
        vec![Effect::Send(WorkerMessage::Confirm { id, grants: of.iter().map(|of| held(of)).collect() })]
    };
    assert_eq!(worker.step(Input::ConfirmWanted(held(&all[0]))), confirm(1, &[&all[0]]));
    assert!(worker.step(Input::ConfirmWanted(held(&all[2]))).is_empty());
    assert!(worker.step(Input::ConfirmWanted(held(&all[1]))).is_empty());
    let effects = worker.hear(ControlMessage::Confirmed { id: 1, grants: vec![all[0].grant.id.clone()] });
    assert_eq!(kinds(&effects), ["confirmed a true", "Confirm"]);
    // Lost with the session, and asked again by the next.
    worker.step(Input::Closed);
    let effects = worker.welcome();
    assert_eq!(effects.last(), confirm(3, &[&all[1], &all[2]]).first());
    assert!(worker.hear(ControlMessage::Confirmed { id: 2, grants: vec![] }).is_empty());
    let effects = worker.hear(ControlMessage::Confirmed { id: 3, grants: vec![all[2].grant.id.clone()] });
    assert_eq!(kinds(&effects), ["confirmed b false", "confirmed c true"]);
}

#[test]
fn an_answer_older_than_the_question_is_not_given() {
    let a = assignment("a", "u1", 1);
    let mut worker = Worker::with(std::slice::from_ref(&a));
    worker.step(Input::ConfirmWanted(held(&a)));
    worker.step(Input::ConfirmWanted(held(&a)));
    let answer = |id| ControlMessage::Confirmed { id, grants: vec![a.grant.id.clone()] };
    assert_eq!(kinds(&worker.hear(answer(1))), ["Confirm"]);
    assert_eq!(kinds(&worker.hear(answer(2))), ["confirmed a true"]);
    // Nor one about a grant that has been replaced.
    worker.step(Input::ConfirmWanted(held(&a)));
    worker.update(2, vec![assignment("a", "u1", 2)], vec![]);
    assert!(worker.hear(answer(3)).is_empty());
    assert!(worker.step(Input::ConfirmWanted(held(&a))).is_empty());
}

#[test]
fn significant_news_is_prompt_and_counters_are_slow() {
    let a = assignment("a", "u1", 1);
    let mut worker = Worker::with(std::slice::from_ref(&a));
    let reported = |report: &flotilla_proto::EnvironmentReport| Input::Reported(Box::new(report.clone()));
    let mut status = report(&a);
    assert_eq!(kinds(&worker.step(reported(&status))), ["report 1"]);
    status.grant_state = GrantState::Established;
    assert!(worker.step(reported(&status)).is_empty(), "50 ms between messages");
    status.grant_state = GrantState::Synchronized;
    worker.step(reported(&status));
    assert_eq!(worker.wait(Duration::from_millis(50)), [Effect::Send(WorkerMessage::Report(vec![status.clone()]))]);
    worker.now = worker.now.after(Duration::from_secs(1));
    status.flags = 7;
    status.last_byte_time = Some(worker.now);
    assert!(worker.step(reported(&status)).is_empty());
    let effects = worker.live_for(Duration::from_millis(8_999));
    assert!(kinds(&effects).iter().all(|kind| kind == "Heartbeat"), "{effects:?}");
    worker.hear(ControlMessage::HeartbeatReply);
    assert_eq!(kinds(&worker.wait(Duration::from_millis(1))), ["report 1"]);
}

#[test]
fn a_new_session_is_told_everything_in_messages_of_two_hundred() {
    let all: Vec<_> = (0..450).map(|number| assignment(&format!("e{number}"), "u1", 1)).collect();
    let mut worker = Worker::with(&all);
    for assignment in &all {
        worker.step(Input::Reported(Box::new(report(assignment))));
    }
    worker.step(Input::Closed);
    assert!(worker.live_for(Duration::from_secs(1)).is_empty());
    assert_eq!(kinds(&worker.welcome()), ["control state", "save", "report 200"]);
    assert_eq!(kinds(&worker.live_for(Duration::from_millis(200))), ["report 200", "report 50"]);
}

#[test]
fn reports_of_what_is_gone_are_not_sent() {
    let a = assignment("a", "u1", 1);
    let mut worker = Worker::with(std::slice::from_ref(&a));
    worker.update(2, vec![assignment("a", "u2", 2)], vec![removal(&a)]);
    assert!(worker.step(Input::Reported(Box::new(report(&a)))).is_empty());
}

#[test]
fn answers_go_to_the_session_that_asked() {
    let mut worker = Worker::with(&[]);
    let question = v1::request::Question::GetItem(v1::GetItemRequest::default());
    let deadline = Duration::from_secs(1);
    let ask = |worker: &mut Worker| {
        let effects = worker.hear(ControlMessage::Request { id: 9, deadline, question: question.clone() });
        let [Effect::Ask { asked_by, id: 9, .. }] = effects.as_slice() else { panic!("{effects:?}") };
        let answer = v1::reply::Answer::GetItem(v1::GetItemResponse::default());
        Input::Answered { asked_by: *asked_by, id: 9, answer }
    };
    let late = ask(&mut worker);
    worker.step(Input::Closed);
    worker.welcome();
    assert!(worker.step(late).is_empty());
    let timely = ask(&mut worker);
    assert_eq!(kinds(&worker.step(timely)), ["Reply"]);
}

#[test]
fn only_a_worker_that_took_its_place_ends_the_process() {
    let go_away = |reason| ControlMessage::GoAway { reason, message: "because".to_owned() };
    for reason in [GoAway::ShuttingDown, GoAway::LeaseExpired, GoAway::ProtocolError, GoAway::WrongFleet] {
        let mut worker = Worker::with(&[]);
        assert_eq!(kinds(&worker.hear(go_away(reason))), ["close", "save", "control state"]);
    }
    let mut worker = Worker::with(&[]);
    let effects = worker.hear(go_away(GoAway::Superseded));
    assert!(effects.contains(&Effect::End(Ended::Superseded { message: "because".to_owned() })));
}

#[test]
fn a_taken_name_ends_a_process_that_never_had_it() {
    let mut fresh = Worker::new(None);
    fresh.step(Input::Opened);
    let effects = fresh.step(Input::NameTaken("alive at 10.0.0.7".to_owned()));
    let [Effect::End(ended)] = effects.as_slice() else { panic!("{effects:?}") };
    assert!(ended.to_string().contains("w1") && ended.to_string().contains("10.0.0.7"), "{ended}");
    let mut known = Worker::with(&[]);
    known.step(Input::Closed);
    known.step(Input::Opened);
    assert!(known.step(Input::NameTaken(String::new())).is_empty());
}

#[test]
fn leaving_is_told_also_to_a_control_that_comes_late() {
    let mut worker = Worker::with(&[]);
    let deadline = Duration::from_secs(1);
    let draining = Effect::Send(WorkerMessage::Draining { deadline });
    assert_eq!(worker.step(Input::Leave { deadline }), [draining]);
    worker.step(Input::Closed);
    assert_eq!(kinds(&worker.welcome()), ["Draining", "control state", "save"]);
    assert_eq!(worker.step(Input::Left), [Effect::Send(WorkerMessage::Goodbye)]);
}

#[test]
fn moves_are_awaited_while_control_can_make_them() {
    let mut worker = Worker::with(&[assignment("a", "u1", 1)]);
    assert!(!worker.session.awaits_moves(), "it does not leave");
    worker.step(Input::Received(ControlMessage::NothingMoves));
    worker.step(Input::Leave { deadline: Duration::from_secs(25) });
    assert!(worker.session.awaits_moves(), "what was said before does not count");
    worker.step(Input::Closed);
    assert!(!worker.session.awaits_moves(), "nobody moves anything");
    worker.welcome();
    assert!(worker.session.awaits_moves());
    worker.step(Input::Received(ControlMessage::NothingMoves));
    assert!(!worker.session.awaits_moves());
}
