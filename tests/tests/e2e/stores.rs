//! Stores that are named, entered with passwords and certificates, and looked over.

use std::time::Duration;

use flotilla_tests::harness::{Fleet, RedisServer, require_tool};
use flotilla_tests::simulator::{Dataset, Item, Kind, generated_flags};
use redis::aio::MultiplexedConnection;

use crate::certificates::Certificates;
use crate::population::probe;
use crate::stored::{BOUND, SOON, Stored, assert_stored, keys, wait_for_stored};

const KEY: &str = "sdk-00000000-0000-4000-8000-000000012345";

/// Pause between two patches of those that never cease.
const PATCH_PAUSE: Duration = Duration::from_millis(10);

fn data() -> Dataset {
    generated_flags(25, 1_000, 12)
}

async fn fleet() -> Fleet {
    let fleet = Fleet::builder().start().await.unwrap();
    fleet.simulator.add_environment(KEY, Some("spree-id"), data());
    fleet
}

async fn told(fleet: &Fleet, arguments: &str) -> String {
    let arguments: Vec<&str> = arguments.split(' ').collect();
    fleet.cli(&arguments).await.unwrap().expect_success().stdout
}

/// Adds an environment to a store, and waits until it is current.
async fn add(fleet: &Fleet, name: &str, prefix: &str, store: &str) {
    let added = fleet.add_environment(name, prefix, KEY, &["--store", store, "--wait"]).await.unwrap();
    added.expect_success();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn environments_of_one_prefix_live_in_two_stores_and_a_store_in_use_stays() {
    if !require_tool("redis-server") {
        return;
    }
    let mut fleet = fleet().await;
    let second = RedisServer::start().await.unwrap();
    let url = format!("{}/3", second.url());
    assert_eq!(told(&fleet, &format!("store add eu {url} --dry-run")).await, "store/eu created (dry run)\n");
    assert_eq!(told(&fleet, &format!("store add eu {url}")).await, "store/eu created\n");
    assert_eq!(told(&fleet, "store list -o name").await, "store/default\nstore/eu\n");
    add(&fleet, "a", "ld:spree", "default").await;
    add(&fleet, "b", "ld:spree", "eu").await;
    assert_stored(&fleet.redis, "ld:spree", &data()).await;
    let mut connection = second.connection().await.unwrap();
    assert_eq!(keys(&second).await.len(), 0, "it is another database");
    redis::cmd("SELECT").arg(3).exec_async(&mut connection).await.unwrap();
    assert_eq!(Stored::read(&mut connection, "ld:spree").await.compare(&Stored::of(&data())), Ok(()));

    // The same place under another name.
    told(&fleet, &format!("store add alias {}", url.replace("127.0.0.1", "localhost"))).await;
    let taken = fleet.add_environment("c", "ld:spree", KEY, &["--store", "alias"]).await.unwrap();
    assert_eq!(taken.status, 4, "{taken:?}");
    assert!(taken.stderr.contains("the same place as store \"eu\""), "{taken:?}");

    fleet.restart_control().await.unwrap();
    let refused = fleet.cli(&["store", "remove", "eu", "--yes"]).await.unwrap();
    assert_eq!(refused.status, 1, "{refused:?}");
    assert!(refused.stderr.contains("used by \"b\""), "{refused:?}");
    fleet.wait_for_initialization("b", "current", BOUND).await;
    told(&fleet, "env remove b --purge --yes").await;
    assert_eq!(told(&fleet, "store remove eu --yes").await, "store/eu removed\n");
    assert_eq!(fleet.cli(&["store", "get", "eu"]).await.unwrap().status, 3);
    assert_stored(&fleet.redis, "ld:spree", &data()).await;
}

/// The outcome of each check, and the whole as text.
async fn check(fleet: &Fleet, arguments: &str) -> (i32, Vec<(String, String)>, String) {
    let mut words = vec!["store", "check", "-o", "json"];
    words.extend(arguments.split(' '));
    let output = fleet.cli(&words).await.unwrap();
    let document: serde_json::Value = serde_json::from_str(&output.stdout).unwrap_or_default();
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let checks = document["checks"].as_array().cloned().unwrap_or_default();
    let outcomes = checks.iter().map(|one| (text(&one["name"]), text(&one["outcome"]))).collect();
    (output.status, outcomes, format!("{}{}", output.stdout, output.stderr))
}

fn outcome<'a>(outcomes: &'a [(String, String)], name: &str) -> &'a str {
    outcomes.iter().find(|(found, _)| found == name).map_or("absent", |(_, outcome)| outcome)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_is_looked_over_before_it_is_used() {
    if !require_tool("redis-server") {
        return;
    }
    let fleet = fleet().await;
    let good = RedisServer::start_with(&["--appendonly", "yes"]).await.unwrap();
    told(&fleet, &format!("store add good {}", good.url())).await;
    let (status, outcomes, text) = check(&fleet, "good").await;
    assert_eq!(status, 0, "{text}");
    for name in ["connection", "version", "role", "persistence", "eviction", "latency", "permissions", "tracking"] {
        assert_eq!(outcome(&outcomes, name), "ok", "{name}: {text}");
    }
    assert_eq!(keys(&good).await, Vec::<String>::new(), "nothing is left behind");
    let table = told(&fleet, "store check good").await;
    assert!(table.starts_with("CHECK        OUTCOME  FOUND\n"), "{table}");

    let lossy = RedisServer::start_with(&["--maxmemory-policy", "allkeys-lru"]).await.unwrap();
    told(&fleet, &format!("store add lossy {}", lossy.url())).await;
    let (status, outcomes, text) = check(&fleet, "lossy").await;
    assert_eq!((status, outcome(&outcomes, "eviction")), (0, "warning"), "{text}");
    assert_eq!(outcome(&outcomes, "persistence"), "warning", "{text}");

    let port = good.port().to_string();
    let replica = RedisServer::start_with(&["--replicaof", "127.0.0.1", &port]).await.unwrap();
    told(&fleet, &format!("store add replica {}", replica.url())).await;
    let (status, outcomes, text) = check(&fleet, "replica").await;
    assert_eq!((status, outcome(&outcomes, "role")), (1, "failed"), "{text}");

    told(&fleet, "store add nobody redis://127.0.0.1:1").await;
    let (status, outcomes, text) = check(&fleet, "nobody").await;
    assert_eq!((status, outcome(&outcomes, "connection")), (1, "failed"), "{text}");
    assert_eq!(check(&fleet, "unknown").await.0, 3);
    assert_eq!(check(&fleet, "good --worker w9").await.0, 3);
}

/// Adds an environment to a store, sends a patch, and waits for it in Redis, read through `reader`.
async fn serves(fleet: &Fleet, store: &str, prefix: &str, reader: &RedisServer) {
    add(fleet, store, prefix, store).await;
    let mut data = data();
    assert_stored(reader, prefix, &data).await;
    fleet.simulator.patch(KEY, Kind::Flag, probe(9));
    data.insert(Kind::Flag, probe(9));
    wait_for_stored(reader, prefix, &data, SOON).await;
    fleet.cli(&["env", "remove", store, "--purge", "--yes"]).await.unwrap().expect_success();
    fleet.simulator.set_data(KEY, self::data());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restricted_user_and_a_unix_socket_serve() {
    if !require_tool("redis-server") {
        return;
    }
    let mut fleet = fleet().await;
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("redis.sock").to_str().unwrap().to_owned();
    let server = RedisServer::start_with(&["--unixsocket", &socket]).await.unwrap();
    let mut redis = server.connection().await.unwrap();
    let rules = "ACL SETUSER flotilla on >hunter2 ~ld:acl:* +@read +@write +@scripting +@connection";
    let mut command = redis::cmd("ACL");
    command.arg(&rules.split(' ').skip(1).collect::<Vec<_>>()[..]);
    command.exec_async(&mut redis).await.unwrap();

    let password = directory.path().join("password");
    std::fs::write(&password, "hunter2\n").unwrap();
    let (url, file) = (server.url(), password.to_str().unwrap());
    let added =
        told(&fleet, &format!("store add acl {url} --username flotilla --password-file {file} -o json")).await;
    assert!(added.contains("\"hasPassword\": true") && !added.contains("hunter2"), "{added}");
    let (status, outcomes, text) = check(&fleet, "acl").await;
    assert_eq!((status, outcome(&outcomes, "permissions")), (1, "failed"), "other keys are not the user's: {text}");
    let (status, outcomes, text) = check(&fleet, "acl --prefix ld:acl").await;
    assert_eq!((status, outcome(&outcomes, "permissions")), (0, "ok"), "{text}");
    assert_eq!(outcome(&outcomes, "version"), "warning", "the user may not call INFO: {text}");
    serves(&fleet, "acl", "ld:acl", &server).await;

    for (rule, refused) in [("-hset", "HSET"), ("+hset -@scripting", "SCRIPT, EVALSHA")] {
        let mut command = redis::cmd("ACL");
        command.arg("SETUSER").arg("flotilla").arg(&rule.split(' ').collect::<Vec<_>>()[..]);
        command.exec_async(&mut redis).await.unwrap();
        let (status, _, text) = check(&fleet, "acl --prefix ld:acl").await;
        assert!(status == 1 && text.contains(&format!("may not call {refused}")), "{text}");
    }
    told(&fleet, &format!("store add wrong {url} --username flotilla --password-env HOME")).await;
    let (status, outcomes, text) = check(&fleet, "wrong").await;
    assert_eq!((status, outcome(&outcomes, "connection")), (1, "failed"), "{text}");
    assert!(text.contains("WRONGPASS"), "{text}");

    told(&fleet, &format!("store add socket redis+unix://{socket}")).await;
    assert_eq!(check(&fleet, "socket").await.0, 0);
    serves(&fleet, "socket", "ld:socket", &server).await;
    for log in [fleet.control().log(), fleet.worker(0).log()] {
        assert!(!log.is_empty() && !log.contains("hunter2"), "{log}");
    }
}

/// The ACL user "flotilla" has this password from now on, and whoever came with another one is sent away.
async fn set_password(redis: &mut MultiplexedConnection, password: &str) {
    let rules =
        format!("SETUSER flotilla on resetpass >{password} ~ld:acl:* +@read +@write +@scripting +@connection");
    let mut command = redis::cmd("ACL");
    command.arg(&rules.split(' ').collect::<Vec<_>>()[..]);
    command.exec_async(redis).await.unwrap();
    redis::cmd("CLIENT").arg("KILL").arg("USER").arg("flotilla").exec_async(redis).await.unwrap();
}

/// Two environments that are current in the store "acl", whose password is `hunter1`.
async fn fleet_with_acl() -> (RedisServer, MultiplexedConnection, Fleet) {
    let server = RedisServer::start().await.unwrap();
    let mut redis = server.connection().await.unwrap();
    let fleet = fleet().await;
    set_password(&mut redis, "hunter1").await;
    let add = ["store", "add", "acl", &server.url(), "--username", "flotilla", "--password-stdin"];
    fleet.cli_with(&add, &[], "hunter1\n").await.unwrap().expect_success();
    add_both(&fleet).await;
    (server, redis, fleet)
}

const BOTH: [(&str, &str); 2] = [("a", "ld:acl:a"), ("b", "ld:acl:b")];

async fn add_both(fleet: &Fleet) {
    for (name, prefix) in BOTH {
        add(fleet, name, prefix, "acl").await;
    }
}

async fn are(fleet: &Fleet, initialization: &str) {
    for (name, _) in BOTH {
        fleet.wait_for_initialization(name, initialization, BOUND).await;
    }
}

/// How often LaunchDarkly was asked.
fn asked(fleet: &Fleet) -> (u64, u64) {
    let counters = fleet.simulator.counters(KEY);
    (counters.stream_connections, counters.polls)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_is_changed_while_environments_use_the_store() {
    if !require_tool("redis-server") {
        return;
    }
    let (server, mut redis, mut fleet) = fleet_with_acl().await;
    let before = asked(&fleet);
    set_password(&mut redis, "hunter2").await;
    are(&fleet, "stale").await;
    let mut data = data();
    fleet.simulator.patch(KEY, Kind::Flag, probe(9));
    data.insert(Kind::Flag, probe(9));

    // What leads elsewhere is refused, and nothing happens.
    let shown = told(&fleet, "store get acl -o json").await;
    let elsewhere = fleet.cli(&["store", "update", "acl", "--url", &fleet.redis.url()]).await.unwrap();
    assert_eq!(elsewhere.status, 2, "{elsewhere:?}");
    assert!(elsewhere.stderr.contains("add another store"), "{elsewhere:?}");
    assert_eq!(told(&fleet, "store get acl -o json").await, shown);
    assert_eq!(keys(&fleet.redis).await, Vec::<String>::new());

    let update = ["store", "update", "acl", "--password-stdin"];
    let updated = fleet.cli_with(&update, &[], "hunter2\n").await.unwrap().expect_success();
    assert_eq!(updated.stdout, "store/acl updated\n");
    are(&fleet, "current").await;
    for (_, prefix) in BOTH {
        wait_for_stored(&server, prefix, &data, SOON).await;
    }
    assert_eq!(asked(&fleet), before, "LaunchDarkly is not asked again");
    assert_eq!(
        told(&fleet, "store get acl -o json").await,
        shown,
        "no password is shown, nor that it is another one"
    );

    // It is there after a restart, of both.
    fleet.restart_control().await.unwrap();
    fleet.restart_worker(0).await.unwrap();
    are(&fleet, "current").await;
    for log in [fleet.control().log(), fleet.worker(0).log()] {
        assert!(!log.is_empty() && !log.contains("hunter"), "{log}");
    }
}

/// Changes that do not cease before something is done; returns what the environments are then.
async fn patched_during(fleet: &Fleet, work: impl Future<Output = ()>) -> Dataset {
    let mut work = std::pin::pin!(work);
    let mut data = data();
    for round in 0.. {
        // A flag that no other round touches, and one that each does.
        let own = Item::parse(&format!(r#"{{"key":"round-{round}","version":1}}"#)).unwrap();
        for item in [own, probe(100 + round)] {
            fleet.simulator.patch(KEY, Kind::Flag, item.clone());
            data.insert(Kind::Flag, item);
        }
        if tokio::time::timeout(PATCH_PAUSE, &mut work).await.is_ok() {
            break;
        }
    }
    data
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_patch_is_lost_when_the_connections_of_a_store_change() {
    if !require_tool("redis-server") {
        return;
    }
    let (server, mut redis, mut fleet) = fleet_with_acl().await;
    let before = asked(&fleet);
    let mut rules = redis::cmd("ACL");
    rules.arg("SETUSER").arg("flotilla").arg(">hunter2");
    rules.exec_async(&mut redis).await.unwrap();
    let data = patched_during(&fleet, async {
        for password in ["hunter2", "hunter1", "hunter2"] {
            let update = ["store", "update", "acl", "--password-stdin"];
            fleet.cli_with(&update, &[], password).await.unwrap().expect_success();
        }
        are(&fleet, "current").await;
    })
    .await;
    for (_, prefix) in BOTH {
        wait_for_stored(&server, prefix, &data, SOON).await;
    }
    assert_eq!(asked(&fleet), before, "LaunchDarkly is not asked again");
    let connected = fleet.worker(0).log().matches("connected to the store").count();
    assert!(connected >= 2, "{}", fleet.worker(0).log());
    let events = told(&fleet, "events").await;
    for unwanted in ["fenced", "found"] {
        assert!(!events.contains(unwanted), "{events}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_private_authority_and_a_client_certificate_serve_and_are_renewed_in_place() {
    if !require_tool("redis-server") || !require_tool("openssl") {
        return;
    }
    let fleet = fleet().await;
    let certificates = Certificates::make();
    let server = RedisServer::start_with_tls(&[], &certificates.server()).await.unwrap();
    let own = tempfile::tempdir().unwrap();
    let at = |name: &str| own.path().join(name).to_str().unwrap().to_owned();
    std::fs::copy(certificates.path("ca.pem"), at("ca.pem")).unwrap();
    let url = format!("rediss://127.0.0.1:{}", server.announced_port());

    told(&fleet, &format!("store add stranger {url}")).await;
    let (status, _, text) = check(&fleet, "stranger").await;
    assert_eq!(status, 1, "the system does not know the authority: {text}");
    told(&fleet, &format!("store add anonymous {url} --tls-ca {}", at("ca.pem"))).await;
    let (status, outcomes, text) = check(&fleet, "anonymous").await;
    assert_eq!((status, outcome(&outcomes, "connection")), (1, "failed"), "it wants a certificate: {text}");

    let (cert, key) = (at("client.pem"), at("client.key"));
    let options = format!("--tls-ca {} --tls-cert {cert} --tls-key {key}", at("ca.pem"));
    told(&fleet, &format!("store add tls {url} {options}")).await;
    let (status, _, text) = check(&fleet, "tls").await;
    assert!(status == 1 && text.contains("cannot read the TLS file") && text.contains(&cert), "{text}");
    // They come later, and nothing has to be told of it.
    std::fs::copy(certificates.path("client.pem"), &cert).unwrap();
    std::fs::copy(certificates.path("client.key"), &key).unwrap();
    let (status, outcomes, text) = check(&fleet, "tls").await;
    assert_eq!((status, outcome(&outcomes, "permissions")), (0, "ok"), "{text}");
    serves(&fleet, "tls", "ld:tls", &server).await;
}
