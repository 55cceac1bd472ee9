//! Many environments at once.

use proptest::prelude::*;
use v1::ApplyOutcome as Outcome;

use super::*;

/// What tests say of one environment.
fn wanted(name: &str, spec: EnvironmentSpec, sdk_key: Option<&str>) -> BatchEntry {
    let wanted = Wanted {
        name: env(name),
        uid: format!("uid-{name}").parse().unwrap(),
        spec,
        sdk_key: sdk_key.map(key),
        claim: Claim::Respect,
    };
    BatchEntry { name: name.to_owned(), wanted: Ok(Box::new(wanted)) }
}

fn managed(name: &str) -> EnvironmentSpec {
    let labels = [("managed-by".to_owned(), "git".to_owned())].into();
    EnvironmentSpec { labels, ..spec(&format!("p:{name}")) }
}

fn batch(entries: Vec<BatchEntry>) -> Batch {
    Batch { entries, stores: Vec::new(), prune: None, request: None, validate_only: false }
}

fn pruning(entries: Vec<BatchEntry>, radius: BlastRadius) -> Batch {
    Batch { prune: Some(Prune { managed_by: "git".parse().unwrap(), radius }), ..batch(entries) }
}

type Applied = Result<v1::BatchApplyEnvironmentsResponse, Refusal>;

impl World {
    fn batch(&mut self, batch: Batch) -> Applied {
        let id = self.command(Command::Apply(batch));
        match self.replies.remove(&id).expect("it is answered at once")? {
            Reply::Applied(applied) => Ok(*applied),
            other => panic!("not what was applied: {other:?}"),
        }
    }

    fn one(&mut self, entry: BatchEntry) -> v1::EnvironmentResult {
        self.batch(batch(vec![entry])).unwrap().results.remove(0)
    }

    fn stored_key(&self, name: &str) -> (String, Option<String>) {
        let record = &self.stored.environments[&env(name)];
        let text = |key: &SdkKeySource| key.expose().to_owned();
        (record.sdk_key.as_ref().map(text).unwrap_or_default(), record.pending_key.as_ref().map(text))
    }
}

/// `name OUTCOME reason path…` of each result.
fn told(applied: &v1::BatchApplyEnvironmentsResponse) -> Vec<String> {
    applied.results.iter().map(tell).collect()
}

fn tell(result: &v1::EnvironmentResult) -> String {
    let outcome = result.outcome().as_str_name().trim_start_matches("APPLY_OUTCOME_");
    let reason = result.error.iter().map(|error| format!("{} {}", error.reason, error.field));
    let paths = result.changes.iter().map(|change| change.path.clone());
    let words: Vec<_> = [result.name.clone(), outcome.to_owned()].into_iter().chain(reason).chain(paths).collect();
    words.join(" ")
}

#[test]
fn what_is_missing_is_created_what_differs_changed_and_the_rest_left_alone() {
    let mut world = World::new();
    world.connect("w1");
    world.create("b");
    let c = world.create("c");
    let changed = EnvironmentSpec { filter: Some("f".to_owned()), ..spec("p:b") };
    let entries = vec![
        wanted("a", spec("p:a"), Some("sdk-1")),
        wanted("b", changed.clone(), None),
        wanted("c", spec("p:c"), None),
    ];
    let applied = world.batch(batch(entries)).unwrap();
    assert_eq!(told(&applied), ["a CREATED prefix sdkKey", "b UPDATED filter", "c UNCHANGED"]);
    let shown = applied.results[0].environment.as_ref().unwrap();
    assert_eq!((shown.status.as_ref().unwrap().worker.as_str(), shown.generation), ("w1", 1));
    assert_eq!(applied.results[2].environment.as_ref().unwrap().etag, c.etag);
    assert_eq!(world.stored.environments[&env("b")].spec, changed);
    // What is not given goes back to its default.
    let result = world.one(wanted("b", spec("p:b"), None));
    assert_eq!(tell(&result), "b UPDATED filter");
    assert_eq!((result.changes[0].before.as_deref(), result.changes[0].after.as_deref()), (Some("f"), None));
}

#[test]
fn an_entry_that_is_wrong_holds_up_no_other_and_changes_nothing() {
    let mut world = World::new();
    world.create("a");
    let before = world.view("a");
    let elsewhere =
        EnvironmentSpec { store: "other".parse().unwrap(), filter: Some("f".to_owned()), ..spec("p:a") };
    let bad = BatchEntry {
        name: "B B".to_owned(),
        wanted: Err(flotilla_proto::FieldViolation::new("name", "not a name").into()),
    };
    let entries = vec![
        wanted("a", elsewhere, None),
        bad,
        wanted("c", spec("p:a"), Some("sdk-1")),
        wanted("d", spec("p:d"), None),
        wanted("e", EnvironmentSpec { store: "nowhere".parse().unwrap(), ..spec("p:e") }, Some("sdk-1")),
        wanted("f", spec("p:f"), Some("sdk-1")),
    ];
    let applied = world.batch(batch(entries)).unwrap();
    assert_eq!(
        told(&applied),
        [
            "a FAILED INVALID_FIELD spec.store",
            "B B FAILED INVALID_FIELD name",
            "c FAILED PREFIX_TAKEN spec.prefix",
            "d FAILED INVALID_FIELD sdk_key",
            "e FAILED STORE_NOT_FOUND spec.store",
            "f CREATED prefix sdkKey",
        ]
    );
    let error = applied.results[0].error.as_ref().unwrap();
    assert!(error.message.contains("remove the environment and add it again"), "{}", error.message);
    assert_eq!(world.view("a"), before);
    assert_eq!(world.stored.environments.len(), 2);
}

#[test]
fn a_key_is_kept_rotated_to_or_given_with_the_address() {
    let mut world = World::new();
    world.connect("w1");
    world.create("a");
    world.report("w1", "a", |_| {});
    assert_eq!(tell(&world.one(wanted("a", spec("p:a"), Some("sdk-1")))), "a UNCHANGED");
    let labelled = EnvironmentSpec { labels: [("k".to_owned(), "v".to_owned())].into(), ..spec("p:a") };
    let result = world.one(wanted("a", labelled.clone(), Some("sdk-2")));
    assert_eq!(tell(&result), "a UPDATED labels.k sdkKey");
    let change = &result.changes[1];
    assert_eq!((change.before.as_deref(), change.after.as_deref()), (Some("********"), Some("********")));
    assert_eq!(world.stored_key("a"), ("sdk-1".to_owned(), Some("sdk-2".to_owned())));
    // A key that is being proved is the one that is wanted.
    assert_eq!(tell(&world.one(wanted("a", labelled.clone(), Some("sdk-2")))), "a UNCHANGED");
    assert_eq!(tell(&world.one(wanted("a", labelled.clone(), None))), "a UNCHANGED");
    assert_eq!(world.stored_key("a").1.as_deref(), Some("sdk-2"));
    assert_eq!(tell(&world.one(wanted("a", labelled, Some("sdk-1")))), "a UPDATED sdkKey");
    assert_eq!(world.stored_key("a"), ("sdk-1".to_owned(), None));
    let moved = EnvironmentSpec { base_uri: Some("https://relay.test".parse().unwrap()), ..spec("p:a") };
    assert_eq!(tell(&world.one(wanted("a", moved.clone(), None))), "a FAILED INVALID_FIELD sdk_key");
    assert_eq!(tell(&world.one(wanted("a", moved.clone(), Some("sdk-3")))), "a UPDATED baseUri labels.k sdkKey");
    assert_eq!(world.stored_key("a"), ("sdk-3".to_owned(), None));
    let file = EnvironmentSpec { source: Source::File { path: "x.json".to_owned() }, ..moved };
    assert_eq!(tell(&world.one(wanted("a", file.clone(), None))), "a UPDATED source sdkKey");
    assert_eq!(tell(&world.one(wanted("a", file, Some("sdk-3")))), "a FAILED INVALID_FIELD sdk_key");
}

#[test]
fn what_carries_the_label_and_is_not_named_is_removed() {
    let mut world = World::new();
    for name in ["a", "b", "c"] {
        world.one(wanted(name, managed(name), Some("sdk-1")));
    }
    world.create("mine");
    let mut theirs = managed("theirs");
    theirs.labels.insert("managed-by".to_owned(), "other".to_owned());
    world.one(wanted("theirs", theirs, Some("sdk-1")));
    // The prefix of one that was never granted is free in the same request.
    let renamed = EnvironmentSpec { prefix: "p:b".parse().unwrap(), ..managed("b2") };
    let entries = vec![wanted("a", managed("a"), None), wanted("b2", renamed, Some("sdk-1"))];
    let applied = world.batch(pruning(entries, BlastRadius::Limited)).unwrap();
    assert_eq!(
        told(&applied),
        ["a UNCHANGED", "b2 CREATED prefix labels.managed-by sdkKey", "b REMOVED", "c REMOVED"]
    );
    assert_eq!(applied.results[2].environment, None);
    let left: Vec<_> = world.stored.environments.keys().map(EnvironmentName::as_str).collect();
    assert_eq!(left, ["a", "b2", "mine", "theirs"]);
}

#[test]
fn one_that_a_worker_holds_is_shown_removing_and_takes_no_more_changes() {
    let mut world = World::new();
    world.connect("w1");
    world.one(wanted("a", managed("a"), Some("sdk-1")));
    world.one(wanted("b", managed("b"), Some("sdk-1")));
    let applied = world.batch(pruning(vec![wanted("a", managed("a"), None)], BlastRadius::Limited)).unwrap();
    assert!(applied.results[1].environment.as_ref().unwrap().removing);
    assert_eq!(tell(&world.one(wanted("b", managed("b"), None))), "b FAILED ENVIRONMENT_REMOVING ");
    // It is being removed already, and counts no more.
    let applied = world.batch(pruning(vec![wanted("a", managed("a"), None)], BlastRadius::Limited)).unwrap();
    assert_eq!(told(&applied), ["a UNCHANGED"]);
}

#[test]
fn more_than_goes_without_saying_is_not_removed_and_nothing_applied() {
    for (carriers, going, is_refused) in
        [(6, 5, false), (29, 6, true), (30, 6, false), (31, 7, true), (1, 1, true), (3, 3, true), (3, 0, false)]
    {
        let mut world = World::new();
        let names: Vec<_> = (0..carriers).map(|index| format!("e{index:02}")).collect();
        let entries: Vec<_> = names.iter().map(|name| wanted(name, managed(name), Some("sdk-1"))).collect();
        world.batch(batch(entries)).unwrap();
        let asked = || {
            let kept = names.iter().skip(going).map(|name| wanted(name, managed(name), None));
            kept.chain([wanted("new", managed("new"), Some("sdk-1"))]).collect()
        };
        let result = world.batch(pruning(asked(), BlastRadius::Limited));
        let is_applied = world.stored.environments.contains_key(&env("new"));
        assert_eq!((result.is_err(), is_applied), (is_refused, !is_refused), "{going} of {carriers}");
        if let Err(refusal) = result {
            assert_eq!(refusal.reason, Reason::BlastRadius);
            let words = format!("{going} of the {carriers} environments that carry managed-by=git: \"e00\"");
            assert!(refusal.message.contains(&words), "{}", refusal.message);
            let applied = world.batch(pruning(asked(), BlastRadius::Accepted)).unwrap();
            assert_eq!(applied.results.len(), carriers + 1);
        }
    }
}

#[test]
fn stores_are_there_before_the_environments_and_left_alone_if_they_differ() {
    let store = |name: &str, url: &str| BatchStore {
        name: name.to_owned(),
        wanted: Ok((name.parse().unwrap(), Box::new(StoreUrl::parse("url", url).unwrap()))),
    };
    let on = |name: &str, at: &str| {
        wanted(name, EnvironmentSpec { store: at.parse().unwrap(), ..spec(&format!("p:{name}")) }, Some("sdk-1"))
    };
    let asked = |validate_only| Batch {
        stores: vec![store("eu", "redis://:pw@eu.test"), store("other", "redis://elsewhere.test")],
        validate_only,
        ..batch(vec![on("a", "eu"), on("b", "other")])
    };
    let mut world = World::new();
    for validate_only in [true, false] {
        let applied = world.batch(asked(validate_only)).unwrap();
        assert_eq!(told(&applied), ["a CREATED prefix store sdkKey", "b FAILED STORE_NAME_TAKEN url"]);
        let outcomes: Vec<_> = applied.stores.iter().map(v1::StoreResult::outcome).collect();
        assert_eq!(outcomes, [Outcome::Created, Outcome::Failed]);
        let message = &applied.stores[1].error.as_ref().unwrap().message;
        assert!(message.contains("`flotilla store update other`"), "{message}");
    }
    // A password that is not given is not compared.
    let again = Batch { stores: vec![store("eu", "redis://eu.test")], ..batch(Vec::new()) };
    assert_eq!(world.batch(again).unwrap().stores[0].outcome(), Outcome::Unchanged);
    let other = Batch { stores: vec![store("eu", "redis://:other@eu.test")], ..batch(Vec::new()) };
    assert_eq!(world.batch(other).unwrap().stores[0].outcome(), Outcome::Failed);
}

#[test]
fn a_retry_tells_what_applying_it_again_would_change() {
    let mut world = World::new();
    let request = |digest: &str| Some(RequestId { id: "r1".to_owned(), digest: digest.to_owned() });
    let asked = || vec![wanted("a", spec("p:a"), Some("sdk-1"))];
    let first = world.batch(Batch { request: request("1"), ..batch(asked()) }).unwrap();
    assert_eq!(told(&first), ["a CREATED prefix sdkKey"]);
    world.restart();
    let second = world.batch(Batch { request: request("1"), ..batch(asked()) }).unwrap();
    assert_eq!(told(&second), ["a UNCHANGED"]);
    let reused = world.batch(Batch { request: request("2"), ..batch(asked()) }).unwrap_err();
    assert_eq!(reused.reason, Reason::RequestIdReused);
    world.act("a", Action::Delete(RemovalRequest::Abandon)).unwrap();
    let third = world.batch(Batch { request: request("1"), ..batch(asked()) }).unwrap();
    assert_eq!((told(&third), world.stored.environments.len()), (told(&first), 0));
}

/// An entry of a random batch.
fn entry() -> impl Strategy<Value = (u8, u8, Option<u8>, u8, bool, bool)> {
    (0u8..6, 0u8..6, prop::option::of(0u8..3), 0u8..3, any::<bool>(), any::<bool>())
}

fn random((name, prefix, sdk_key, label, moved, is_file): (u8, u8, Option<u8>, u8, bool, bool)) -> BatchEntry {
    let name = format!("e{name}");
    let sdk_key = sdk_key.map(|number| format!("sdk-{number}"));
    let source = if is_file { Source::File { path: "x.json".to_owned() } } else { managed(&name).source };
    let spec = EnvironmentSpec {
        prefix: format!("p{}", if prefix == 0 { 0 } else { name.as_bytes()[1] }).parse().unwrap(),
        labels: [("managed-by".to_owned(), "git".to_owned()), ("l".to_owned(), label.to_string())].into(),
        base_uri: moved.then(|| "https://relay.test".parse().unwrap()),
        source,
        ..managed(&name)
    };
    wanted(&name, spec, sdk_key.as_deref())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn each_environment_is_done_wholly_or_not_at_all_and_a_dry_run_says_which(
        batches in prop::collection::vec((prop::collection::btree_map(0u8..6, entry(), 0..6), any::<bool>()), 1..5),
        has_worker in any::<bool>(),
    ) {
        let mut world = World::new();
        if has_worker {
            world.connect("w1");
        }
        for (entries, prunes) in batches {
            let asked = || {
                let entries = entries.iter().map(|(name, entry)| random((*name, entry.1, entry.2, entry.3, entry.4, entry.5)));
                let entries = entries.collect();
                if prunes { pruning(entries, BlastRadius::Accepted) } else { batch(entries) }
            };
            let before = world.stored.environments.clone();
            let foreseen = world.batch(Batch { validate_only: true, ..asked() }).unwrap();
            prop_assert_eq!(format!("{:?}", world.stored.environments), format!("{before:?}"));
            let applied = world.batch(asked()).unwrap();
            prop_assert_eq!(told(&foreseen), told(&applied));
            for (result, entry) in applied.results.iter().zip(asked().entries) {
                let entry = entry.wanted.unwrap();
                let after = world.stored.environments.get(&entry.name);
                match result.outcome() {
                    Outcome::Failed => {
                        prop_assert_eq!(format!("{after:?}"), format!("{:?}", before.get(&entry.name)));
                    }
                    Outcome::Created | Outcome::Updated | Outcome::Unchanged => {
                        let after = after.unwrap();
                        prop_assert_eq!(&after.spec, &entry.spec);
                        let held = after.pending_key.as_ref().or(after.sdk_key.as_ref());
                        prop_assert!(entry.sdk_key.is_none() || held == entry.sdk_key.as_ref());
                    }
                    Outcome::Unspecified | Outcome::Removed => prop_assert!(false, "{}", tell(result)),
                }
            }
            let settled = format!("{:?}", world.stored.environments);
            for (first, again) in applied.results.iter().zip(world.batch(asked()).unwrap().results) {
                let expected = if first.outcome() == Outcome::Failed { Outcome::Failed } else { Outcome::Unchanged };
                prop_assert_eq!(again.outcome(), expected, "{} then {}", tell(first), tell(&again));
            }
            prop_assert_eq!(format!("{:?}", world.stored.environments), settled);
        }
    }
}
