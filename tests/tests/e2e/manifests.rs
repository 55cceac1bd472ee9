//! What files say that environments shall be: planned, applied, pruned, and kept by control itself.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Instant;

use flotilla_proto::v1::{ApplyOutcome, BatchApplyEnvironmentsRequest, EnvironmentEntry, EnvironmentSpec};
use flotilla_tests::harness::{CliOutput, Fleet, wait_until};

use crate::population::{Population, environments_api};
use crate::stored::{self, BOUND};

/// What every key begins with; no mask shows it.
const TRACE: &str = "sdk-31000000";

fn path(fleet: &Fleet) -> PathBuf {
    fleet.directory().join("environments.yaml")
}

/// Writes the manifest as editors do: a new file takes the place of the old one.
fn write(fleet: &Fleet, text: &str) {
    let new = fleet.directory().join("environments.new");
    std::fs::write(&new, text).unwrap();
    std::fs::rename(new, path(fleet)).unwrap();
}

/// These of the population, with their keys in files, under the label `managed-by`; `more` follows each.
fn manifest(fleet: &Fleet, indices: impl Iterator<Item = usize>, more: &str) -> String {
    let keys = fleet.directory().join("keys");
    std::fs::create_dir_all(&keys).unwrap();
    indices.fold("environments:\n".to_owned(), |mut text, index| {
        let name = Population::name(index);
        std::fs::write(keys.join(&name), Population::key(index)).unwrap();
        let prefix = Population::prefix(index);
        writeln!(
            text,
            "- {{name: {name}, prefix: '{prefix}', sdkKey: {{file: keys/{name}}}, labels: {{managed-by: git, team: a}}{more}}}"
        )
        .unwrap();
        text
    })
}

async fn cli(fleet: &Fleet, line: &str) -> CliOutput {
    let file = path(fleet);
    let words: Vec<_> =
        line.split(' ').map(|word| if word == "FILE" { file.to_str().unwrap() } else { word }).collect();
    let output = fleet.cli(&words).await.unwrap();
    let shown = format!("{}{}", output.stdout, output.stderr);
    assert!(!shown.contains(TRACE), "{shown}");
    output
}

async fn names(fleet: &Fleet) -> Vec<String> {
    let output = fleet.cli(&["env", "list", "-o", "name"]).await.unwrap().expect_success();
    output.stdout.lines().map(|line| line.trim_start_matches("environment/").to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_tells_three_differences_and_apply_carries_them_out() {
    let fleet = Fleet::builder().start().await.unwrap();
    for index in 0..4 {
        Population::add_to_simulator(&fleet, index);
    }
    write(&fleet, &manifest(&fleet, 0..3, ""));
    let output = cli(&fleet, "apply -f FILE").await.expect_success();
    assert_eq!(output.stdout.lines().count(), 3, "{output:?}");
    fleet.cli(&["env", "wait", "--all", "--for", "current"]).await.unwrap().expect_success();
    assert_eq!(cli(&fleet, "plan -f FILE --prune").await.status, 0);

    let changed = manifest(&fleet, 0..1, ", filter: ''").replace("team: a", "team: b");
    let rest = manifest(&fleet, [2, 3].into_iter(), "").replace("environments:\n", "");
    write(&fleet, &(changed + &rest));
    let planned = cli(&fleet, "plan -f FILE --prune").await;
    println!("$ flotilla plan -f environments.yaml --prune\n{}exit status {}", planned.stdout, planned.status);
    let expected = "\
~ env-000  labels.team: \"a\" → \"b\"
+ env-003  prefix: \"ld:env:003\"
           labels.managed-by: \"git\"
           labels.team: \"a\"
           sdkKey: \"sdk-********-****-****-****-*******00003\"
- env-001
1 to create, 1 to update, 1 to remove, 1 unchanged
";
    assert_eq!((planned.status, planned.stdout.as_str()), (1, expected), "{planned:?}");
    let dry = cli(&fleet, "apply -f FILE --prune --dry-run -o json").await.expect_success().json().unwrap();
    assert_eq!((dry["dryRun"].as_bool(), dry["summary"]["created"].as_u64()), (Some(true), Some(1)));
    let applied = cli(&fleet, "apply -f FILE --prune").await.expect_success();
    let lines = "environment/env-000 updated\nenvironment/env-003 created\nenvironment/env-001 removed\n";
    assert_eq!(applied.stdout, lines);
    fleet.cli(&["env", "wait", "env-001", "--for", "removed"]).await.unwrap().expect_success();
    fleet.cli(&["env", "wait", "--all", "--for", "current"]).await.unwrap().expect_success();
    assert_eq!(cli(&fleet, "plan -f FILE --prune").await.status, 0);
    // Its data stays.
    let keys = stored::keys(&fleet.redis).await;
    assert!(keys.iter().any(|key| key == "ld:env:001:features"), "{keys:?}");

    let exported = fleet.cli(&["export"]).await.unwrap().expect_success();
    let same = fleet.cli_with(&["plan", "-f", "-", "--prune"], &[], &exported.stdout).await.unwrap();
    assert_eq!((same.status, same.stdout.as_str()), (0, "0 to create, 0 to update, 0 to remove, 3 unchanged\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_prune_is_refused_whole_and_done_with_a_yes() {
    let fleet = Fleet::builder().workers(0).start().await.unwrap();
    write(&fleet, &manifest(&fleet, 0..12, ""));
    cli(&fleet, "apply -f FILE").await.expect_success();
    write(&fleet, &manifest(&fleet, 6..13, ""));
    let refused = cli(&fleet, "apply -f FILE --prune").await;
    println!(
        "$ flotilla apply -f environments.yaml --prune\n{}{}exit status {}",
        refused.stdout, refused.stderr, refused.status
    );
    assert_eq!((refused.status, refused.stdout.as_str()), (2, ""));
    assert!(refused.stderr.contains("6 of the 12 environments that carry managed-by=git"), "{refused:?}");
    assert!(refused.stderr.contains("hint: ") && refused.stderr.contains("--yes"), "{refused:?}");
    assert_eq!(names(&fleet).await.len(), 12);
    let applied = cli(&fleet, "apply -f FILE --prune --yes").await.expect_success();
    assert_eq!(applied.stdout.lines().count(), 7, "{applied:?}");
    assert_eq!(names(&fleet).await.len(), 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_applied_is_listed_and_the_rest_applied() {
    let fleet = Fleet::builder().workers(0).start().await.unwrap();
    write(&fleet, &manifest(&fleet, 0..2, ""));
    cli(&fleet, "apply -f FILE").await.expect_success();
    let moved = manifest(&fleet, 0..1, "").replace("ld:env:000", "ld:moved");
    let twin = manifest(&fleet, 2..3, "").replace("ld:env:002", "ld:env:001").replace("environments:\n", "");
    let fine = manifest(&fleet, [1, 3].into_iter(), "").replace("environments:\n", "");
    write(&fleet, &(moved + &twin + &fine));
    let output = cli(&fleet, "apply -f FILE").await;
    assert_eq!((output.status, output.stdout.as_str()), (1, "environment/env-003 created\n"), "{output:?}");
    for words in [
        "2 of 4 cannot be applied",
        "environment/env-000: INVALID_FIELD: prefix: immutable",
        "environment/env-002: PREFIX_TAKEN: prefix: \"ld:env:001\"",
    ] {
        assert!(output.stderr.contains(words), "{words} in {}", output.stderr);
    }
    assert_eq!(names(&fleet).await, ["env-000", "env-001", "env-003"]);
    assert_eq!(cli(&fleet, "plan -f FILE").await.status, 2);
}

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::disallowed_methods, reason = "the time is printed")]
async fn a_thousand_environments_are_applied_in_one_call() {
    const COUNT: usize = 1000;
    let mut fleet = Fleet::builder().start().await.unwrap();
    let entries = (0..COUNT).map(|index| EnvironmentEntry {
        name: Population::name(index),
        spec: Some(EnvironmentSpec {
            display_name: format!("Environment number {index}"),
            prefix: Population::prefix(index),
            labels: [("managed-by".to_owned(), "git".to_owned())].into(),
            ..EnvironmentSpec::default()
        }),
        sdk_key: Population::key(index),
        take_over: false,
    });
    let mut request = BatchApplyEnvironmentsRequest { entries: entries.collect(), ..Default::default() };
    let mut client = environments_api(&fleet);
    for (expected, what) in [
        (ApplyOutcome::Created, "created"),
        (ApplyOutcome::Updated, "updated"),
        (ApplyOutcome::Unchanged, "unchanged"),
    ] {
        let begun = Instant::now();
        let applied = client.batch_apply_environments(request.clone()).await.unwrap().into_inner();
        println!("{COUNT} environments {what} in one call: {:?}", begun.elapsed());
        assert!(applied.results.iter().all(|result| result.outcome() == expected), "{what}");
        assert_eq!(applied.results.len(), COUNT);
        for entry in &mut request.entries {
            entry.spec.as_mut().unwrap().display_name = "Another".to_owned();
        }
    }
    write(&fleet, &manifest(&fleet, 0..COUNT, ""));
    let begun = Instant::now();
    let output = cli(&fleet, "apply -f FILE").await.expect_success();
    println!("$ flotilla apply -f environments.yaml\n{}took {:?}", output.stderr, begun.elapsed());
    assert_eq!(output.stderr, "0 created, 1000 updated, 0 removed, 0 unchanged, 0 failed\n");
    // All of it was durable when it was answered.
    fleet.control().kill9();
    fleet.restart_control().await.unwrap();
    assert_eq!(names(&fleet).await.len(), COUNT);
    assert_eq!(cli(&fleet, "plan -f FILE --prune").await.status, 0);
}

async fn file_is_ok(fleet: &Fleet) -> bool {
    let page = fleet.control_get("/metrics").await.unwrap().body;
    let line = page.lines().find(|line| line.starts_with("flotilla_environments_file_ok ")).expect("the gauge");
    line.ends_with(" 1")
}

fn control_log(fleet: &Fleet, words: &str) -> usize {
    let outputs = fleet.outputs().unwrap();
    outputs.iter().flat_map(|(_, text)| text.lines()).filter(|line| line.contains(words)).count()
}

async fn until_names(fleet: &Fleet, expected: &[&str]) {
    wait_until("the environments of the file", BOUND, async || {
        let names = names(fleet).await;
        if names == expected { Ok(()) } else { Err(format!("{names:?}")) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn control_keeps_itself_in_line_with_a_mounted_file() {
    let mount = tempfile::tempdir().unwrap();
    let file = mount.path().join("environments.yaml");
    // As volumes are mounted: the file is a link through a directory that is replaced as a whole.
    let publish = |version: &str, text: &str| {
        std::fs::create_dir(mount.path().join(version)).unwrap();
        std::fs::write(mount.path().join(version).join("environments.yaml"), text).unwrap();
        std::os::unix::fs::symlink(version, mount.path().join("..data_tmp")).unwrap();
        std::fs::rename(mount.path().join("..data_tmp"), mount.path().join("..data")).unwrap();
    };
    let entry = |name: &str, more: &str| {
        format!(
            "- {{name: {name}, prefix: {name}, source: 'file:{name}.json', labels: {{managed-by: mount}}{more}}}\n"
        )
    };
    let entries =
        |names: &[&str]| names.iter().fold("environments:\n".to_owned(), |text, name| text + &entry(name, ""));
    publish("..1", &entries(&["a", "b", "c", "d"]));
    std::os::unix::fs::symlink("..data/environments.yaml", &file).unwrap();
    let arguments = ["--environments", file.to_str().unwrap()];
    let fleet = Fleet::builder().workers(0).control_arguments(&arguments).start().await.unwrap();
    until_names(&fleet, &["a", "b", "c", "d"]).await;
    let add = ["env", "add", "by-hand", "--prefix", "h", "--source", "file:h.json"];
    fleet.cli(&add).await.unwrap().expect_success();

    publish("..2", &(entries(&["a", "b"]) + &entry("e", ", displayName: E")));
    until_names(&fleet, &["a", "b", "by-hand", "e"]).await;
    wait_until("a file that is applied", BOUND, async || {
        if file_is_ok(&fleet).await { Ok(()) } else { Err("not ok".to_owned()) }
    })
    .await;

    // A bad file changes nothing, is shown, and is logged once.
    publish("..3", &entries(&["a"]).replace("prefix", "prefx"));
    wait_until("a file that is not applied", BOUND, async || {
        if file_is_ok(&fleet).await { Err("ok".to_owned()) } else { Ok(()) }
    })
    .await;
    assert_eq!(names(&fleet).await, ["a", "b", "by-hand", "e"]);
    assert_eq!(control_log(&fleet, "the environments file is wrong"), 1);
    let logged = control_log(&fleet, "document 1, environment \\\"a\\\", prefx: unknown field");
    assert_eq!(logged, 1);

    // What would remove all that carry the label removes nothing, and the rest is done.
    publish("..4", &entries(&["f"]));
    until_names(&fleet, &["a", "b", "by-hand", "e", "f"]).await;
    wait_until("the way out in the log", BOUND, async || match control_log(&fleet, "--prune --yes") {
        1 => Ok(()),
        count => Err(format!("{count} times")),
    })
    .await;
    assert!(!file_is_ok(&fleet).await);

    publish("..5", &entries(&["a", "b", "e", "f", "g"]));
    until_names(&fleet, &["a", "b", "by-hand", "e", "f", "g"]).await;
    wait_until("a file that is applied", BOUND, async || {
        if file_is_ok(&fleet).await { Ok(()) } else { Err("not ok".to_owned()) }
    })
    .await;
    assert_eq!(control_log(&fleet, "the environments file is wrong"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_name_for_a_prefix_is_tried_until_the_old_one_is_gone() {
    let mount = tempfile::tempdir().unwrap();
    let (file, flags) = (mount.path().join("environments.yaml"), mount.path().join("flags.json"));
    std::fs::write(&flags, "{\"flags\":{},\"segments\":{}}").unwrap();
    let entry = |name: &str, prefix: &str| {
        format!("- {{name: {name}, prefix: {prefix}, source: 'file:flags.json', labels: {{managed-by: mount}}}}\n")
    };
    let publish =
        |entries: [String; 2]| std::fs::write(&file, format!("environments:\n{}", entries.concat())).unwrap();
    publish([entry("a", "p"), entry("c", "c")]);
    let arguments = ["--environments", file.to_str().unwrap()];
    let sources = ["--file-source-dir", mount.path().to_str().unwrap()];
    let builder = Fleet::builder().control_arguments(&arguments).worker_arguments(&sources);
    let fleet = builder.start().await.unwrap();
    until_names(&fleet, &["a", "c"]).await;
    fleet.cli(&["env", "wait", "--all", "--for", "current"]).await.unwrap().expect_success();
    publish([entry("b", "p"), entry("c", "c")]);
    until_names(&fleet, &["b", "c"]).await;
    fleet.cli(&["env", "wait", "--all", "--for", "current"]).await.unwrap().expect_success();
    assert!(file_is_ok(&fleet).await);
    assert_eq!(control_log(&fleet, "PREFIX_TAKEN"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_beside_the_file_is_a_part_of_it() {
    let mount = tempfile::tempdir().unwrap();
    let file = mount.path().join("environments.yaml");
    std::fs::write(&file, "environments: [{name: a, prefix: a, sdkKey: {file: key}}]").unwrap();
    let arguments = ["--environments", file.to_str().unwrap()];
    let fleet = Fleet::builder().control_arguments(&arguments).start().await.unwrap();
    for index in 0..2 {
        Population::add_to_simulator(&fleet, index);
    }
    assert_eq!(names(&fleet).await.len(), 0);
    std::fs::write(mount.path().join("key"), Population::key(0)).unwrap();
    until_names(&fleet, &["a"]).await;
    fleet.cli(&["env", "wait", "a", "--for", "current"]).await.unwrap().expect_success();
    // The new key is of another environment: it is tried, and dropped.
    std::fs::write(mount.path().join("key"), Population::key(1)).unwrap();
    wait_until("the new key is tried", BOUND, async || {
        let status = fleet.cli(&["env", "status", "a", "-o", "json"]).await.map_err(|error| error.to_string())?;
        let shown = status.stdout;
        if shown.contains("KeyRotation") { Ok(()) } else { Err(shown) }
    })
    .await;
    for (path, text) in fleet.outputs().unwrap() {
        assert!(!text.contains(TRACE), "{}", path.display());
    }
}
