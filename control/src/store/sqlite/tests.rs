//! What is promised of the file: nothing lost, nothing shared, nothing readable by others.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use flotilla_proto::process::Sealing;
use flotilla_proto::session::TakeOver;
use flotilla_proto::{
    EnvironmentSpec, Epoch, Generation, Grant, GrantId, Intent, SdkKeySource, StoreName, StoreUrl, Term, Timestamp,
    v1,
};

use prost::Message as _;

use super::{SqliteStore, schema};
use crate::fleet::{
    Change, EnvironmentRecord, FailedRotation, GrantRecord, RemovalKind, RequestId, RotationFailure, Subject,
};
use crate::store::{Loaded, Store as _, StoreError};

fn record(name: &str) -> EnvironmentRecord {
    let message = v1::EnvironmentSpec {
        display_name: "Spree".to_owned(),
        prefix: format!("ld:{name}"),
        stream_uri: "http://127.0.0.1:8030".to_owned(),
        labels: [("team".to_owned(), "checkout".to_owned())].into(),
        ..Default::default()
    };
    EnvironmentRecord {
        name: name.parse().unwrap(),
        uid: "0b5d".parse().unwrap(),
        spec: EnvironmentSpec::parse(&message, "spec").unwrap(),
        sdk_key: Some(SdkKeySource::parse("sdk_key", "sdk-one").unwrap()),
        pending_key: Some(SdkKeySource::parse("sdk_key", "sdk-two").unwrap()),
        failed_rotation: Some(FailedRotation {
            reason: RotationFailure::KeyRejected,
            message: "refused".to_owned(),
        }),
        paused: true,
        removal: Some(RemovalKind::Purge),
        generation: Generation(3),
        change_number: u64::MAX,
        resync: 2,
        accepted_resync: Some(1),
        take_over: Some(TakeOver::Value("any".to_owned())),
        grant: Some(GrantRecord {
            worker: "w1".parse().unwrap(),
            grant: Grant { epoch: Epoch(7), id: GrantId::parse("x-1").unwrap(), intent: Intent::Purge },
        }),
        predecessor: Some(GrantRecord {
            worker: "w0".parse().unwrap(),
            grant: Grant { epoch: Epoch(5), id: GrantId::parse("x-0").unwrap(), intent: Intent::Serve },
        }),
        released: Some(Epoch(6)),
        created: Timestamp(1),
        updated: Timestamp(2),
    }
}

fn load(directory: &Path) -> (SqliteStore, Loaded) {
    let mut store = SqliteStore::open(directory, Sealing::default()).unwrap();
    let loaded = store.load().unwrap();
    (store, loaded)
}

#[test]
fn everything_is_there_after_reopening() {
    let directory = tempfile::tempdir().unwrap();
    let (mut store, first) = load(directory.path());
    assert_eq!(first.term, Term(1));
    let mut bare = record("b");
    bare.grant = None;
    bare.released = None;
    bare.take_over = Some(TakeOver::Any);
    (bare.sdk_key, bare.pending_key) = (None, SdkKeySource::parse("sdk_key", "file:team/b").ok());
    let request = RequestId { id: "r".to_owned(), digest: "d".to_owned() };
    let url = StoreUrl::parse("url", "redis://u:p@127.0.0.1").unwrap();
    let changes = [
        Change::PutEnvironment(Box::new(record("a"))),
        Change::PutEnvironment(Box::new(bare.clone())),
        Change::PutEnvironment(Box::new(record("gone"))),
        Change::DeleteEnvironment { environment: "gone".parse().unwrap() },
        Change::PutEpoch { store: StoreName::default_store(), prefix: "ld:a".parse().unwrap(), epoch: Epoch(7) },
        Change::PutStore { store: StoreName::default_store(), url: Box::new(url.clone()) },
        Change::PutRequest {
            request: request.clone(),
            subject: Subject::Environment("a".parse().unwrap()),
            at: Timestamp(5),
        },
        Change::PutRequest {
            request: RequestId { id: "s".to_owned(), digest: "d".to_owned() },
            subject: Subject::Store("eu".parse().unwrap()),
            at: Timestamp(6),
        },
        Change::PutStore { store: "eu".parse().unwrap(), url: Box::new(url.clone()) },
        Change::PutEpoch { store: "eu".parse().unwrap(), prefix: "ld:a".parse().unwrap(), epoch: Epoch(8) },
        Change::DeleteStore { store: "eu".parse().unwrap(), endpoint: url.endpoint() },
        Change::ForgetRequests { before: Timestamp(5) },
        Change::PutEnded { uid: "old".parse().unwrap(), at: Timestamp(4) },
        Change::PutEnded { uid: "young".parse().unwrap(), at: Timestamp(5) },
        Change::ForgetEnded { before: Timestamp(5) },
    ];
    store.commit(&changes).unwrap();
    drop(store);
    let (_store, second) = load(directory.path());
    assert_eq!((second.term, &second.fleet), (Term(2), &first.fleet));
    let remembered = second.remembered;
    assert_eq!(format!("{:?}", remembered.environments), format!("{:?}", [record("a"), bare]));
    assert_eq!(remembered.environments[0].sdk_key.as_ref().unwrap().expose(), "sdk-one");
    assert_eq!(remembered.environments[1].pending_key.as_ref().unwrap().expose(), "file:team/b");
    assert_eq!(remembered.epochs, [(StoreName::default_store(), "ld:a".parse().unwrap(), Epoch(7))]);
    assert_eq!(remembered.former_epochs, [(url.endpoint(), "ld:a".parse().unwrap(), Epoch(8))]);
    assert_eq!(remembered.stores, [(StoreName::default_store(), url)]);
    let subjects: Vec<_> =
        remembered.requests.into_iter().map(|(request, subject, _)| (request.id, subject)).collect();
    let environment = Subject::Environment("a".parse().unwrap());
    let store = Subject::Store("eu".parse().unwrap());
    assert_eq!(subjects, [(request.id, environment), ("s".to_owned(), store)]);
    assert_eq!(remembered.ended, [("young".parse().unwrap(), Timestamp(5))]);
}

#[test]
fn a_term_that_workers_have_seen_is_not_used_again() {
    let directory = tempfile::tempdir().unwrap();
    let (mut store, _) = load(directory.path());
    store.commit(&[Change::PutTerm { term: Term(40) }]).unwrap();
    drop(store);
    assert_eq!(load(directory.path()).1.term, Term(41));
}

#[test]
fn a_second_control_is_refused_and_told_the_directory() {
    let directory = tempfile::tempdir().unwrap();
    let _first = load(directory.path());
    let error = SqliteStore::open(directory.path(), Sealing::default()).unwrap_err();
    assert!(matches!(&error, StoreError::InUse { .. }), "{error}");
    assert!(error.to_string().contains(directory.path().to_str().unwrap()));
}

#[test]
fn only_the_owner_can_read() {
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("data");
    let (mut store, _) = load(&directory);
    store.commit(&[Change::PutEnvironment(Box::new(record("a")))]).unwrap();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&directory), 0o700);
    let mut names: Vec<_> = std::fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.sort();
    assert!(names.iter().any(|path| path.ends_with("flotilla.db-wal")), "{names:?}");
    for path in names {
        assert_eq!(mode(&path), 0o600, "{}", path.display());
    }
}

#[test]
fn a_file_left_open_to_others_is_closed_to_them() {
    let directory = tempfile::tempdir().unwrap();
    drop(load(directory.path()));
    let path = directory.path().join("flotilla.db");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    let _store = load(directory.path());
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn what_was_committed_survives_a_process_that_never_closes() {
    let directory = tempfile::tempdir().unwrap();
    let (mut store, _) = load(directory.path());
    store.commit(&[Change::PutEnvironment(Box::new(record("a")))]).unwrap();
    // As after kill -9: the files as they are on disk now, with nobody having closed them.
    let copy = tempfile::tempdir().unwrap();
    for name in ["flotilla.db", "flotilla.db-wal"] {
        std::fs::copy(directory.path().join(name), copy.path().join(name)).unwrap();
    }
    let (_copy, loaded) = load(copy.path());
    assert_eq!(loaded.remembered.environments.len(), 1);
}

#[test]
fn a_failed_commit_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let (mut store, _) = load(directory.path());
    store.connection.execute_batch("DROP TABLE stores").unwrap();
    let url = StoreUrl::parse("url", "redis://127.0.0.1").unwrap();
    let changes = [
        Change::PutEnvironment(Box::new(record("a"))),
        Change::PutStore { store: StoreName::default_store(), url: Box::new(url) },
    ];
    store.commit(&changes).unwrap_err();
    let left: i64 = store.connection.query_row("SELECT count(*) FROM environments", [], |row| row.get(0)).unwrap();
    assert_eq!(left, 0);
}

#[test]
fn a_newer_schema_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let (store, _) = load(directory.path());
    store.connection.pragma_update(None, "user_version", 99).unwrap();
    drop(store);
    let error = SqliteStore::open(directory.path(), Sealing::default()).unwrap_err();
    assert!(matches!(error, StoreError::TooNew { found: 99, .. }), "{error}");
}

#[test]
fn an_older_schema_is_brought_up_to_date_with_all_that_is_in_it() {
    let directory = tempfile::tempdir().unwrap();
    let old = rusqlite::Connection::open(directory.path().join("flotilla.db")).unwrap();
    old.execute_batch(schema::MIGRATIONS[0]).unwrap();
    old.pragma_update(None, "user_version", 1).unwrap();
    let spec = v1::EnvironmentSpec::from(&record("a").spec).encode_to_vec();
    let row =
        "INSERT INTO environments (name, uid, spec, paused, generation, change_number, resync, created, updated)
        VALUES ('a', 'u', ?1, 0, 1, 1, 0, 1, 1)";
    old.execute(row, [spec]).unwrap();
    drop(old);
    let (mut store, loaded) = load(directory.path());
    assert_eq!(loaded.remembered.environments.len(), 1);
    store.commit(&[Change::PutEnded { uid: "u".parse().unwrap(), at: Timestamp(1) }]).unwrap();
    drop(store);
    assert_eq!(load(directory.path()).1.remembered.ended.len(), 1);
}

/// The files of the directory that hold one of the secrets of [`record`] and of the store.
fn files_with_secrets(directory: &Path) -> Vec<PathBuf> {
    let files = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let holds = |path: &PathBuf| {
        let content = String::from_utf8_lossy(&std::fs::read(path).unwrap()).into_owned();
        ["sdk-one", "sdk-two", "hunter2", "digest-of-it"].iter().any(|secret| content.contains(secret))
    };
    files.filter(holds).collect()
}

#[test]
fn secrets_are_sealed_from_the_start_with_a_key_on_and_keys_can_be_changed() {
    let directory = tempfile::tempdir().unwrap();
    let keys = directory.path().join("keys");
    let data = directory.path().join("data");
    let open = |lines: &[&str]| {
        let sealing = if lines.is_empty() {
            Sealing::default()
        } else {
            let text: Vec<_> = lines.iter().map(|digit| digit.repeat(64)).collect();
            std::fs::write(&keys, text.join("\n")).unwrap();
            Sealing::from_file(&keys).unwrap()
        };
        let mut store = SqliteStore::open(&data, sealing).unwrap();
        let loaded = store.load();
        loaded.map(|loaded| (store, loaded.remembered))
    };
    let (mut plain, _) = open(&[]).unwrap();
    let request = RequestId { id: "r".to_owned(), digest: "digest-of-it".to_owned() };
    let url = StoreUrl::parse("url", "redis://u:hunter2@127.0.0.1").unwrap();
    let changes = [
        Change::PutEnvironment(Box::new(record("a"))),
        Change::PutStore { store: StoreName::default_store(), url: Box::new(url.clone()) },
        Change::PutRequest { request: request.clone(), subject: Subject::Batch, at: Timestamp(1) },
    ];
    plain.commit(&changes).unwrap();
    assert!(!files_with_secrets(&data).is_empty());
    drop(plain);
    // Begun, changed, and changed with the old one gone.
    for lines in [["1"].as_slice(), &["2", "1"], &["2"]] {
        let (mut store, remembered) = open(lines).unwrap();
        assert_eq!(format!("{:?}", remembered.environments), format!("{:?}", [record("a")]));
        assert_eq!(remembered.environments[0].pending_key, record("a").pending_key, "its Debug is a mask");
        assert_eq!(remembered.stores, [(StoreName::default_store(), url.clone())]);
        assert_eq!(remembered.requests, [(request.clone(), Subject::Batch, Timestamp(1))]);
        assert_eq!(files_with_secrets(&data), Vec::<PathBuf>::new());
        store.commit(&changes).unwrap();
        assert_eq!(files_with_secrets(&data), Vec::<PathBuf>::new());
    }
    for lines in [[].as_slice(), &["1"]] {
        let error = open(lines).unwrap_err();
        assert!(matches!(error, StoreError::Sealed(_)), "{error}");
        assert!(error.to_string().contains("--encryption-key-file"), "{error}");
    }
}

/// Whoever can write the database must not have a key sent to an address of their own.
#[test]
fn a_sealed_key_does_not_open_for_another_address() {
    let directory = tempfile::tempdir().unwrap();
    let keys = directory.path().join("keys");
    std::fs::write(&keys, "1".repeat(64)).unwrap();
    let open = || SqliteStore::open(&directory.path().join("data"), Sealing::from_file(&keys).unwrap()).unwrap();
    let mut store = open();
    store.load().unwrap();
    store.commit(&[Change::PutEnvironment(Box::new(record("a")))]).unwrap();
    store.load().unwrap();
    let spec = v1::EnvironmentSpec {
        stream_uri: "https://elsewhere.example".to_owned(),
        ..v1::EnvironmentSpec::from(&record("a").spec)
    };
    store.connection.execute("UPDATE environments SET spec = ?1", [spec.encode_to_vec()]).unwrap();
    let error = store.load().unwrap_err();
    assert!(matches!(error, StoreError::Sealed(_)) && error.to_string().contains("elsewhere.example"), "{error}");
}

#[test]
fn an_unusable_directory_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    std::fs::write(&file, "x").unwrap();
    let error = SqliteStore::open(&file.join("data"), Sealing::default()).unwrap_err();
    assert!(error.to_string().contains("--data-dir"), "{error}");
}
