use flotilla_proto::LastError;
use flotilla_proto::session::{Answer, Question};
use flotilla_proto::status::ErrorKind;

use super::*;

fn serving() -> World {
    let mut world = World::new();
    world.connect("w1");
    world.create("a");
    world.report("w1", "a", |_| {});
    world.effects.clear();
    world
}

fn rotate(text: &str) -> Edit {
    Edit::RotateSdkKey { sdk_key: key(text), proof: Proof::Required }
}

/// The last question that was sent, and its id.
fn asked(world: &mut World) -> Option<(u64, Question)> {
    std::mem::take(&mut world.effects).into_iter().rev().find_map(|effect| match effect {
        Effect::Send { message: ControlMessage::Request { id, question, .. }, .. } => Some((id, question)),
        _ => None,
    })
}

fn proved(new: &str, present: &str) -> Answer {
    let (environment_id, present_environment_id) = (new.to_owned(), present.to_owned());
    Answer::KeyProved(v1::KeyProved { environment_id, present_environment_id, ..Default::default() })
}

fn failure(reason: &str) -> Answer {
    Answer::Failure(v1::RequestFailure { reason: reason.to_owned(), message: "because".to_owned(), status: 401 })
}

fn key_in_force(world: &World) -> String {
    world.stored.environments[&env("a")].sdk_key.as_ref().unwrap().expose().to_owned()
}

fn rotation(world: &World) -> String {
    world.condition("a", "KeyRotation").map_or(String::new(), |(_, reason)| reason)
}

#[test]
fn a_new_key_is_proved_by_the_owner_and_then_in_force() {
    for answer in [proved("ld-1", "ld-1"), proved("", "ld-1"), proved("ld-7", "")] {
        let mut world = serving();
        // Where the present id is not sent, the one that was reported is what counts.
        world.report("w1", "a", |report| report.environment_id = None);
        world.act("a", rotate("sdk-2")).unwrap();
        assert_eq!((key_in_force(&world).as_str(), rotation(&world).as_str()), ("sdk-1", "Proving"));
        let (id, question) = asked(&mut world).expect("asked");
        assert!(matches!(question, Question::ProveKey(v1::ProveKey { sdk_key, .. }) if sdk_key == "sdk-2"));
        world.say("w1", WorkerMessage::Reply { id, answer });
        assert_eq!((key_in_force(&world).as_str(), rotation(&world).as_str()), ("sdk-2", "Replaced"));
        let assignment = world.assignment("w1", "a").unwrap();
        assert_eq!(assignment.sdk_key.as_ref().unwrap().expose(), "sdk-2");
        assert_eq!((assignment.generation.0, assignment.grant.epoch), (2, Epoch(1)));
        assert!(world.stored.environments[&env("a")].pending_key.is_none());
    }
}

#[test]
fn a_reference_takes_the_place_of_a_key_and_is_shown() {
    let mut world = serving();
    world.act("a", rotate("file:payments")).unwrap();
    let (id, question) = asked(&mut world).expect("asked");
    assert!(matches!(question, Question::ProveKey(v1::ProveKey { sdk_key, .. }) if sdk_key == "file:payments"));
    world.say("w1", WorkerMessage::Reply { id, answer: proved("", "") });
    assert_eq!((key_in_force(&world).as_str(), rotation(&world).as_str()), ("file:payments", "Replaced"));
    assert_eq!(world.view("a").sdk_key_masked, "file:payments");
    let assignment = world.assignment("w1", "a").unwrap();
    assert_eq!(assignment.sdk_key, Some(key("file:payments")));
}

#[test]
fn a_key_that_is_no_good_is_dropped() {
    let cases = [
        (proved("ld-2", "ld-1"), "OtherEnvironment"),
        (proved("ld-2", ""), "OtherEnvironment"),
        (failure("KEY_REJECTED"), "KeyRejected"),
        (Answer::KeyProved(v1::KeyProved { missing: 2, ..Default::default() }), "FewerItems"),
    ];
    for (answer, reason) in cases {
        let mut world = serving();
        world.act("a", rotate("sdk-2")).unwrap();
        let (id, _) = asked(&mut world).unwrap();
        world.say("w1", WorkerMessage::Reply { id, answer });
        assert_eq!((key_in_force(&world).as_str(), rotation(&world).as_str()), ("sdk-1", reason));
        assert_eq!(world.condition("a", "KeyRotation").unwrap().0, v1::ConditionStatus::False);
        assert!(world.stored.environments[&env("a")].pending_key.is_none());
    }
}

#[test]
fn a_proof_that_cannot_be_had_is_asked_for_again() {
    let mut world = serving();
    world.act("a", rotate("sdk-2")).unwrap();
    let (id, _) = asked(&mut world).unwrap();
    world.say("w1", WorkerMessage::Reply { id, answer: failure("UPSTREAM_UNAVAILABLE") });
    assert_eq!(rotation(&world), "Retrying");
    assert!(asked(&mut world).is_none());
    world.advance(Duration::from_secs(2));
    assert!(asked(&mut world).is_some(), "after a moment");
    world.advance(Duration::from_secs(20));
    assert_eq!(rotation(&world), "Retrying", "no answer within its deadline");
    world.advance(Duration::from_secs(5));
    let (id, _) = asked(&mut world).expect("again");
    world.say("w1", WorkerMessage::Reply { id, answer: proved("", "") });
    assert_eq!(key_in_force(&world), "sdk-2");
}

#[test]
fn a_key_that_is_forced_is_in_force_at_once() {
    let mut world = serving();
    world.act("a", Edit::RotateSdkKey { sdk_key: key("sdk-2"), proof: Proof::Skipped }).unwrap();
    assert_eq!((key_in_force(&world).as_str(), rotation(&world).as_str()), ("sdk-2", "Replaced"));
    assert!(asked(&mut world).is_none());
}

/// The owner reports that LaunchDarkly refuses the key of this generation, and that the store failed since.
fn refuse(world: &mut World, state: SourceState, generation: u64) {
    let time = world.now;
    let error = |kind, status| LastError { kind, status, message: "no".to_owned(), time };
    world.report("w1", "a", |report| {
        report.generation = flotilla_proto::Generation(generation);
        report.source_state = Some(state);
        report.source_error = Some(error(ErrorKind::Auth, Some(401)));
        report.last_error = Some(error(ErrorKind::Store, None));
    });
}

#[test]
fn a_key_that_is_being_refused_is_replaced_at_once() {
    let mut world = serving();
    refuse(&mut world, SourceState::Interrupted, 1);
    assert_eq!(world.condition("a", "Connected").unwrap().1, "KeyRefused");
    world.act("a", rotate("sdk-2")).unwrap();
    assert_eq!(key_in_force(&world), "sdk-2");

    // Restarted meanwhile, control learns it from the first report, and a proof need not be had.
    let mut world = serving();
    world.cut("w1");
    world.act("a", rotate("sdk-2")).unwrap();
    world.restart();
    let session = world.connect("w1");
    assert_eq!((rotation(&world).as_str(), key_in_force(&world).as_str()), ("Proving", "sdk-1"));
    world.step(Input::SessionClosed { session });
    world.connect("w1");
    refuse(&mut world, SourceState::Interrupted, 1);
    world.advance(Duration::from_secs(2));
    assert_eq!(key_in_force(&world), "sdk-2");
}

#[test]
fn an_error_of_the_past_does_not_replace_a_key_without_proof() {
    let mut world = serving();
    world.report("w1", "a", |report| {
        let (kind, time) = (ErrorKind::Auth, Timestamp(1));
        report.last_error = Some(LastError { kind, status: Some(401), message: "no".to_owned(), time });
        report.source_state = Some(SourceState::Interrupted);
    });
    world.act("a", rotate("sdk-2")).unwrap();
    assert_eq!(key_in_force(&world), "sdk-1", "no longer what the source says");

    let mut world = serving();
    refuse(&mut world, SourceState::Connecting, 1);
    world.act("a", rotate("sdk-2")).unwrap();
    assert_eq!(key_in_force(&world), "sdk-1", "nobody has refused it yet");

    let mut world = serving();
    world.act("a", Edit::RotateSdkKey { sdk_key: key("sdk-2"), proof: Proof::Skipped }).unwrap();
    refuse(&mut world, SourceState::Interrupted, 1);
    assert_eq!(world.condition("a", "Connected").unwrap().1, "Interrupted", "the key before was refused");
    world.act("a", rotate("sdk-3")).unwrap();
    assert_eq!(key_in_force(&world), "sdk-2");
}

#[test]
fn without_a_worker_a_key_stays_pending() {
    let mut world = World::new();
    world.create("a");
    world.act("a", rotate("sdk-2")).unwrap();
    assert_eq!((key_in_force(&world).as_str(), rotation(&world).as_str()), ("sdk-1", "Waiting"));
    world.connect("w1");
    assert_eq!(rotation(&world), "Proving");
}

#[test]
fn a_pending_key_survives_a_restart_and_the_loss_of_the_worker() {
    let mut world = serving();
    world.act("a", rotate("sdk-2")).unwrap();
    world.cut("w1");
    assert_eq!(rotation(&world), "Retrying");
    world.restart();
    assert_eq!(rotation(&world), "Waiting");
    world.connect("w1");
    let (id, _) = asked(&mut world).expect("asked anew");
    world.say("w1", WorkerMessage::Reply { id, answer: proved("", "") });
    assert_eq!(key_in_force(&world), "sdk-2");
}

#[test]
fn a_newer_key_replaces_a_pending_one_and_the_old_one_cancels_it() {
    let mut world = serving();
    world.act("a", rotate("sdk-2")).unwrap();
    let (first, _) = asked(&mut world).unwrap();
    world.act("a", rotate("sdk-3")).unwrap();
    let (second, _) = asked(&mut world).unwrap();
    world.say("w1", WorkerMessage::Reply { id: first, answer: proved("", "") });
    assert_eq!(key_in_force(&world), "sdk-1", "that was about another key");
    world.act("a", rotate("sdk-1")).unwrap();
    world.say("w1", WorkerMessage::Reply { id: second, answer: proved("", "") });
    assert_eq!((key_in_force(&world).as_str(), rotation(&world).as_str()), ("sdk-1", ""));
}

#[test]
fn rotating_to_the_key_in_force_ends_an_earlier_failure() {
    let mut world = serving();
    world.act("a", rotate("sdk-2")).unwrap();
    let (id, _) = asked(&mut world).unwrap();
    world.say("w1", WorkerMessage::Reply { id, answer: failure("KEY_REJECTED") });
    let etag = world.view("a").etag;
    let dry = Mutation { validate_only: true, ..mutation("a", rotate("sdk-1")) };
    world.mutate(dry).unwrap();
    assert_eq!(rotation(&world), "KeyRejected", "a dry run changes nothing");
    let shown = world.act("a", rotate("sdk-1")).unwrap().unwrap();
    assert!(!shown.status.unwrap().conditions.iter().any(|one| one.r#type == "KeyRotation"));
    assert_eq!((rotation(&world).as_str(), world.view("a").etag), ("", etag));
    world.act("a", Edit::RotateSdkKey { sdk_key: key("sdk-2"), proof: Proof::Skipped }).unwrap();
    world.act("a", rotate("sdk-2")).unwrap();
    assert_eq!(rotation(&world), "Replaced", "as it is");
}

fn ask(world: &mut World, name: &str) -> u64 {
    let question = Question::GetItem(v1::GetItemRequest::default());
    world.command(Command::Ask { environment: env(name), question, timeout: Duration::from_secs(5) })
}

fn refusal(world: &mut World, command: u64) -> Reason {
    world.replies.remove(&command).expect("answered").expect_err("refused").reason
}

#[test]
fn a_question_reaches_the_worker_and_its_answer_the_caller() {
    let mut world = serving();
    let command = ask(&mut world, "a");
    assert!(!world.replies.contains_key(&command));
    let (id, _) = asked(&mut world).unwrap();
    world.say("w1", WorkerMessage::Reply { id: id + 9, answer: failure("ITEM_NOT_FOUND") });
    world.say("w1", WorkerMessage::Reply { id, answer: Answer::GetItem(v1::GetItemResponse::default()) });
    assert!(matches!(world.replies[&command], Ok(Reply::Answer(Answer::GetItem(_)))));

    let command = ask(&mut world, "a");
    let (id, _) = asked(&mut world).unwrap();
    world.say("w1", WorkerMessage::Reply { id, answer: failure("ITEM_NOT_FOUND") });
    assert_eq!(refusal(&mut world, command), Reason::ItemNotFound);
}

#[test]
fn a_question_that_cannot_be_answered_is_refused() {
    let mut world = serving();
    let unknown = ask(&mut world, "b");
    assert_eq!(refusal(&mut world, unknown), Reason::EnvironmentNotFound);
    let late = ask(&mut world, "a");
    world.advance(Duration::from_secs(6));
    assert_eq!(refusal(&mut world, late), Reason::WorkerTimeout);
    let abandoned = ask(&mut world, "a");
    world.step(Input::CommandAbandoned { id: CommandId(abandoned) });
    let lost = ask(&mut world, "a");
    world.cut("w1");
    assert_eq!(refusal(&mut world, lost), Reason::NoWorker);
    assert!(!world.replies.contains_key(&abandoned));
    let nobody = ask(&mut world, "a");
    assert_eq!(refusal(&mut world, nobody), Reason::NoWorker);
}

#[test]
fn how_a_rotation_failed_is_known_after_a_restart() {
    let mut world = serving();
    world.act("a", rotate("sdk-2")).unwrap();
    let (id, _) = asked(&mut world).unwrap();
    world.say("w1", WorkerMessage::Reply { id, answer: failure("KEY_REJECTED") });
    world.restart();
    assert_eq!(rotation(&world), "KeyRejected", "whoever waits must not take it for a success");
    world.act("a", rotate("sdk-3")).unwrap();
    world.restart();
    assert_eq!(rotation(&world), "Waiting");
}

#[test]
fn a_question_about_an_earlier_key_that_expires_is_not_about_the_present_one() {
    let mut world = serving();
    world.act("a", rotate("sdk-2")).unwrap();
    world.advance(Duration::from_secs(10));
    world.act("a", rotate("sdk-3")).unwrap();
    let (second, _) = asked(&mut world).unwrap();
    world.advance(Duration::from_secs(11));
    assert_eq!(rotation(&world), "Proving", "only the first question is over");
    world.say("w1", WorkerMessage::Reply { id: second, answer: proved("", "") });
    assert_eq!(key_in_force(&world), "sdk-3");
}

#[test]
fn a_reason_that_is_not_known_here_is_noted() {
    let mut world = serving();
    let command = ask(&mut world, "a");
    let (id, _) = asked(&mut world).unwrap();
    world.say("w1", WorkerMessage::Reply { id, answer: failure("FROM_THE_FUTURE") });
    assert_eq!(refusal(&mut world, command), Reason::Internal);
    let noted = |note: &Note| matches!(note, Note::UnknownReason { reason, .. } if reason == "FROM_THE_FUTURE");
    assert!(world.notes().iter().any(noted));
}
