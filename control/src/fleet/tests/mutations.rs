use flotilla_proto::Generation;

use super::*;

fn change(function: impl FnOnce(&mut EnvironmentSpec) + Send + 'static) -> SpecChange {
    SpecChange(Box::new(move |old| {
        let mut new = old.clone();
        function(&mut new);
        Ok(new)
    }))
}

fn update(function: impl FnOnce(&mut EnvironmentSpec) + Send + 'static) -> Edit {
    Edit::Update { change: change(function), sdk_key: None }
}

fn refused(result: Result<Option<v1::Environment>, Refusal>) -> (Reason, String) {
    let refusal = result.expect_err("refused");
    (refusal.reason, refusal.message)
}

const REMOVE: Action = Action::Delete(RemovalRequest::Release);
const PURGE: Action = Action::Delete(RemovalRequest::Purge);
const ABANDON: Action = Action::Delete(RemovalRequest::Abandon);

#[test]
fn a_created_environment_is_shown_and_given_to_a_worker() {
    let mut world = World::new();
    world.connect("w1");
    let created = world.create("a");
    assert_eq!((created.generation, created.status.unwrap().worker.as_str()), (1, "w1"));
    assert_eq!(created.etag, format!("{}-1", created.uid));
    let assignment = world.assignment("w1", "a").expect("assigned");
    assert_eq!((assignment.grant.epoch, assignment.grant.intent), (Epoch(1), Intent::Serve));
    assert_eq!(assignment.spec.stream_uri.as_ref().unwrap().as_str(), "https://stream.launchdarkly.com/");
    assert_eq!(world.stored.epochs.len(), 1);
}

#[test]
fn a_name_is_taken_once() {
    let mut world = World::new();
    world.create("a");
    let action = world.creation(spec("other"));
    let (reason, message) = refused(world.act("a", action));
    assert_eq!(reason, Reason::NameTaken);
    assert!(message.contains("\"a\""), "{message}");
}

#[test]
fn a_prefix_is_taken_once_under_every_name_of_its_store() {
    let mut world = World::new();
    world.connect("w1");
    world.create("a");
    for store in ["default", "alias"] {
        let action = world.creation(EnvironmentSpec { store: store.parse().unwrap(), ..spec("p:a") });
        let (reason, message) = refused(world.act("b", action));
        assert_eq!(reason, Reason::PrefixTaken, "{store}");
        assert!(message.contains("\"p:a\"") && message.contains("\"a\""), "{message}");
    }
    let elsewhere = world.creation(EnvironmentSpec { store: "other".parse().unwrap(), ..spec("p:a") });
    world.act("b", elsewhere).unwrap();

    world.act("a", REMOVE).unwrap();
    let action = world.creation(spec("p:a"));
    let (reason, message) = refused(world.act("c", action));
    assert_eq!(reason, Reason::PrefixTaken);
    assert!(message.contains("being removed"), "{message}");
}

#[test]
fn an_unknown_store_is_answered_with_the_known_ones() {
    let mut world = World::new();
    let action = world.creation(EnvironmentSpec { store: "nope".parse().unwrap(), ..spec("p") });
    let (reason, message) = refused(world.act("a", action));
    assert_eq!(reason, Reason::StoreNotFound);
    assert!(message.contains("nope") && message.contains("\"alias\", \"default\", \"other\""), "{message}");
}

#[test]
fn a_key_is_required_but_for_files() {
    let mut world = World::new();
    let uid: Uid = "u".parse().unwrap();
    let create = |spec, sdk_key| Action::Create { uid: uid.clone(), spec, sdk_key, claim: Claim::Respect };
    let file = EnvironmentSpec { source: Source::File { path: "x.json".to_owned() }, ..spec("p") };
    for action in [create(spec("p"), None), create(file.clone(), Some(key("sdk-1")))] {
        let refusal = world.act("a", action).unwrap_err();
        assert_eq!(refusal.violations[0].field, "sdk_key");
    }
    assert_eq!(world.act("a", create(file, None)).unwrap().unwrap().sdk_key_masked, "");
}

#[test]
fn an_update_changes_the_generation_and_reaches_the_worker() {
    let mut world = World::new();
    world.connect("w1");
    let before = world.create("a");
    let after = world.act("a", update(|spec| spec.display_name = "A".to_owned())).unwrap().unwrap();
    assert_eq!(after.generation, 2);
    assert_ne!(after.etag, before.etag);
    assert_eq!(world.assignment("w1", "a").unwrap().spec.display_name, "A");
    assert_eq!(world.epoch("a"), 1, "an update is not a new grant");
}

#[test]
fn what_changes_nothing_changes_nothing() {
    let mut world = World::new();
    world.connect("w1");
    let before = world.create("a");
    world.effects.clear();
    assert_eq!(world.act("a", update(|_| {})).unwrap().unwrap().etag, before.etag);
    assert_eq!(world.act("a", Edit::Resume).unwrap().unwrap().etag, before.etag);
    let same_key = Edit::RotateSdkKey { sdk_key: key("sdk-1"), proof: Proof::Required };
    assert_eq!(world.act("a", same_key).unwrap().unwrap().etag, before.etag);
    assert!(world.effects.is_empty(), "{:?}", world.effects);
}

#[test]
fn prefix_and_store_are_immutable() {
    let mut world = World::new();
    world.create("a");
    let action = update(|spec| {
        spec.prefix = "q".parse().unwrap();
        spec.store = "other".parse().unwrap();
    });
    let refusal = world.act("a", action).unwrap_err();
    let fields: Vec<_> = refusal.violations.iter().map(|one| one.field.as_str()).collect();
    assert_eq!(fields, ["spec.prefix", "spec.store"]);
}

#[test]
fn a_changed_uri_needs_the_key_again() {
    let mut world = World::new();
    world.connect("w1");
    world.create("a");
    let moved = || change(|spec| spec.stream_uri = Some("http://localhost:1".parse().unwrap()));
    let (_, message) = refused(world.act("a", Edit::Update { change: moved(), sdk_key: None }));
    assert!(message.contains("sdk_key") && message.contains("again"), "{message}");
    world.act("a", Edit::Update { change: moved(), sdk_key: Some(key("sdk-1")) }).unwrap();
    let pointless =
        Edit::Update { change: change(|spec| spec.filter = Some("f".to_owned())), sdk_key: Some(key("sdk-2")) };
    let (_, message) = refused(world.act("a", pointless));
    assert!(message.contains("rotate-key"), "{message}");
}

#[test]
fn a_source_may_become_a_file_and_come_back() {
    let mut world = World::new();
    world.create("a");
    let to_file = || change(|spec| spec.source = Source::File { path: "f".to_owned() });
    let to_stream = || change(|spec| spec.source = super::spec("x").source);
    refused(world.act("a", Edit::Update { change: to_file(), sdk_key: Some(key("sdk-1")) }));
    world.act("a", Edit::Update { change: to_file(), sdk_key: None }).unwrap();
    assert_eq!(world.view("a").sdk_key_masked, "");
    let (reason, _) = refused(world.act("a", Edit::RotateSdkKey { sdk_key: key("sdk-2"), proof: Proof::Required }));
    assert_eq!(reason, Reason::NoSdkKey);
    refused(world.act("a", Edit::Update { change: to_stream(), sdk_key: None }));
    world.act("a", Edit::Update { change: to_stream(), sdk_key: Some(key("sdk-2")) }).unwrap();
}

#[test]
fn a_deletion_is_pending_until_its_release_stands() {
    let mut world = World::new();
    world.connect("w1");
    let uid: Uid = world.create("a").uid.parse().unwrap();
    world.report("w1", "a", |_| {});
    let shown = world.act("a", REMOVE).unwrap().expect("still there");
    assert!(shown.removing);
    assert_eq!(world.condition("a", "Removing").unwrap().1, "Releasing");
    let assignment = world.assignment("w1", "a").unwrap();
    assert_eq!((assignment.grant.intent, assignment.grant.epoch), (Intent::Release, Epoch(2)));
    assert!(assignment.sdk_key.is_none());
    let (reason, _) = refused(world.act("a", Edit::Pause));
    assert_eq!(reason, Reason::EnvironmentRemoving);

    world.report("w1", "a", |report| report.grant_state = GrantState::Pending);
    assert!(world.fleet.environment(&env("a")).is_some());
    world.report("w1", "a", |_| {});
    assert!(world.fleet.environment(&env("a")).is_none());
    assert!(world.stored.environments.is_empty());
    assert_eq!(world.players[&w("w1")].removals, [Removal { environment: env("a"), uid: uid.clone() }]);
    let gone = |effect: &Effect| matches!(effect, Effect::EnvironmentRemoved { uid: gone, .. } if *gone == uid);
    assert!(world.effects.iter().any(gone));
    world.create("a");
    assert_eq!(world.epoch("a"), 3, "epochs survive the environment");
}

#[test]
fn a_report_under_an_earlier_grant_does_not_end_a_removal() {
    let mut world = World::new();
    world.connect("w1");
    world.create("a");
    let early = world.report_of("w1", "a");
    world.act("a", REMOVE).unwrap();
    world.say("w1", WorkerMessage::Report(vec![early]));
    assert!(world.fleet.environment(&env("a")).is_some());
}

#[test]
fn a_release_may_become_a_purge_but_not_the_other_way() {
    let mut world = World::new();
    world.connect("w1");
    world.create("a");
    world.act("a", REMOVE).unwrap();
    world.act("a", PURGE).unwrap();
    assert_eq!(world.assignment("w1", "a").unwrap().grant.intent, Intent::Purge);
    let etag = world.view("a").etag;
    assert_eq!(world.act("a", REMOVE).unwrap().unwrap().etag, etag);
    world.report("w1", "a", |_| {});
    assert!(world.fleet.environment(&env("a")).is_none());
}

#[test]
fn what_was_never_granted_ends_at_once() {
    for action in [REMOVE, PURGE] {
        let mut world = World::new();
        world.create("a");
        assert!(world.act("a", action).unwrap().is_none());
        assert!(world.stored.environments.is_empty());
    }
}

#[test]
fn an_abandoned_environment_ends_at_once() {
    let mut world = World::new();
    world.connect("w1");
    world.create("a");
    world.act("a", REMOVE).unwrap();
    assert!(world.act("a", ABANDON).unwrap().is_none());
    assert!(world.players[&w("w1")].held.is_empty());
}

#[test]
fn a_pause_releases_and_a_resume_serves_again() {
    let mut world = World::new();
    world.connect("w1");
    world.create("a");
    world.report("w1", "a", |_| {});
    let paused = world.act("a", Edit::Pause).unwrap().unwrap();
    assert!(paused.paused && paused.generation == 2);
    assert_eq!(world.assignment("w1", "a").unwrap().grant.intent, Intent::Release);
    assert_eq!(world.initialization("a"), v1::Initialization::Stale);
    world.report("w1", "a", |_| {});
    assert_eq!(world.owner("a"), "");
    assert!(world.players[&w("w1")].held.is_empty());
    assert_eq!(world.initialization("a"), v1::Initialization::Stale);
    assert_eq!(world.condition("a", "Assigned").unwrap().1, "Paused");
    assert_eq!(world.epoch("a"), 2);

    world.restart();
    world.connect("w1");
    assert_eq!(world.owner("a"), "");
    world.act("a", Edit::Resume).unwrap();
    let assignment = world.assignment("w1", "a").unwrap();
    assert_eq!((assignment.grant.intent, assignment.grant.epoch), (Intent::Serve, Epoch(3)));
}

#[test]
fn a_paused_environment_that_is_released_goes_at_once_but_a_purge_needs_a_worker() {
    for (action, ended) in [(REMOVE, true), (PURGE, false)] {
        let mut world = World::new();
        world.connect("w1");
        world.create("a");
        world.act("a", Edit::Pause).unwrap();
        world.report("w1", "a", |_| {});
        assert_eq!(world.act("a", action).unwrap().is_none(), ended);
        if !ended {
            assert_eq!(world.assignment("w1", "a").unwrap().grant.intent, Intent::Purge);
            world.report("w1", "a", |_| {});
            assert!(world.fleet.environment(&env("a")).is_none());
        }
    }
}

#[test]
fn a_resync_is_counted_and_sent() {
    let mut world = World::new();
    world.connect("w1");
    world.create("a");
    let after =
        world.act("a", Edit::Resync { claim: Claim::Respect, regression: Regression::Doubt }).unwrap().unwrap();
    assert_eq!(after.generation, 1);
    let sent = world.assignment("w1", "a").unwrap();
    assert_eq!((sent.resync, sent.accept_regression), (1, false));
    world.report("w1", "a", |_| {});
    world.act("a", Edit::Resync { claim: Claim::Respect, regression: Regression::Accept }).unwrap();
    let sent = world.assignment("w1", "a").unwrap();
    assert_eq!((sent.resync, sent.accept_regression), (2, true));
    world.report("w1", "a", |report| report.accepted_resync = Some(1));
    assert_eq!(world.stored.environments[&env("a")].accepted_resync, Some(2), "that was an earlier one");
    world.report("w1", "a", |report| {
        (report.accepted_resync, report.grant_state) = (Some(2), GrantState::Established);
    });
    assert_eq!(world.stored.environments[&env("a")].accepted_resync, Some(2), "it is not written yet");
    world.report("w1", "a", |report| report.accepted_resync = Some(2));
    assert_eq!(world.stored.environments[&env("a")].accepted_resync, None, "it is spent");
    let sent = world.assignment("w1", "a").unwrap();
    assert_eq!((sent.resync, sent.accept_regression), (2, false), "and whoever starts anew knows it");
    world.act("a", Edit::Resync { claim: Claim::Respect, regression: Regression::Accept }).unwrap();
    world.act("a", Edit::Resync { claim: Claim::Respect, regression: Regression::Doubt }).unwrap();
    let sent = world.assignment("w1", "a").unwrap();
    assert_eq!((sent.resync, sent.accept_regression), (4, false), "that was once");
    let (reason, _) =
        refused(world.act("a", Edit::Resync { claim: Claim::TakeOver, regression: Regression::Doubt }));
    assert_eq!(reason, Reason::NoConflict);
    world.act("a", Edit::Pause).unwrap();
    let (reason, _) =
        refused(world.act("a", Edit::Resync { claim: Claim::Respect, regression: Regression::Doubt }));
    assert_eq!(reason, Reason::EnvironmentPaused);
}

#[test]
fn an_etag_guards_against_lost_updates() {
    let mut world = World::new();
    let created = world.create("a");
    let with = |etag: &str| Mutation { etag: Some(etag.to_owned()), ..mutation("a", Edit::Pause) };
    let (reason, message) = refused(world.mutate(with("old-7")));
    assert_eq!(reason, Reason::EtagMismatch);
    assert!(message.contains("old-7") && message.contains(&created.etag), "{message}");
    world.mutate(with(&created.etag)).unwrap();
}

#[test]
fn a_request_id_is_answered_once_for_an_hour() {
    let mut world = World::new();
    world.create("a");
    let request = |digest: &str| Some(RequestId { id: "r".to_owned(), digest: digest.to_owned() });
    let resync = |digest| Mutation {
        request: request(digest),
        ..mutation("a", Edit::Resync { claim: Claim::Respect, regression: Regression::Doubt })
    };
    let first = world.mutate(resync("d1")).unwrap().unwrap();
    assert_eq!(world.mutate(resync("d1")).unwrap().unwrap().etag, first.etag);
    assert_eq!(refused(world.mutate(resync("d2"))).0, Reason::RequestIdReused);
    world.restart();
    assert_eq!(world.mutate(resync("d1")).unwrap().unwrap().etag, first.etag);
    assert_eq!(world.stored.environments[&env("a")].resync, 1);

    world.now = world.now.after(Duration::from_hours(1));
    world.step(Input::Tick);
    assert!(world.stored.requests.is_empty());
    world.mutate(resync("d2")).unwrap();
    assert_eq!(world.stored.environments[&env("a")].resync, 2);
}

#[test]
fn a_retried_removal_is_answered_after_the_end() {
    let mut world = World::new();
    world.create("a");
    let request = Some(RequestId { id: "r".to_owned(), digest: "d".to_owned() });
    for _ in 0..2 {
        assert!(world.mutate(Mutation { request: request.clone(), ..mutation("a", REMOVE) }).unwrap().is_none());
    }
}

#[test]
fn a_dry_run_checks_everything_and_changes_nothing() {
    let mut world = World::new();
    world.connect("w1");
    let dry = |name: &str, action: Action| Mutation { validate_only: true, ..mutation(name, action) };
    let action = world.creation(spec("p"));
    assert_eq!(world.mutate(dry("a", action)).unwrap().unwrap().name, "a");
    assert!(world.fleet.environment(&env("a")).is_none());
    world.create("a");
    world.effects.clear();
    assert!(world.mutate(dry("a", Edit::Pause.into())).unwrap().unwrap().paused);
    assert!(world.mutate(dry("a", ABANDON)).unwrap().is_none());
    assert_eq!(refused(world.mutate(dry("b", Edit::Pause.into()))).0, Reason::EnvironmentNotFound);
    assert!(world.effects.is_empty(), "{:?}", world.effects);
    assert_eq!(world.stored.environments[&env("a")].generation, Generation(1));
}

#[test]
fn only_what_changed_something_is_noted() {
    let mut world = World::new();
    world.create("a");
    world.effects.clear();
    let request = Some(RequestId { id: "r".to_owned(), digest: "d".to_owned() });
    for _ in 0..2 {
        world.mutate(Mutation { request: request.clone(), ..mutation("a", Edit::Pause) }).unwrap();
    }
    world.act("a", Edit::Pause).unwrap();
    assert_eq!(world.notes(), [Note::Changed { environment: env("a"), action: "pause" }]);
}
