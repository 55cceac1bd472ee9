//! Which real SDK reads what Flotilla wrote, through which way to Redis: each that is claimed is gone, and
//! `docs/sdks.md` is the table of it.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use flotilla_tests::harness::{
    Fleet, RedisCluster, RedisServer, Sentinels, require_tool, wait_until, workspace_directory,
};
use flotilla_tests::sdks::{Evaluation, EvaluationFixture, Reach, Sdk, SdkReader, Source, Topology};
use flotilla_tests::simulator::{Item, Kind};

use crate::certificates::Certificates;
use crate::stored::BOUND;

const KEY: &str = "sdk-00000000-0000-4000-8000-000000000001";
const TABLE: &str = "docs/sdks.md";
const UPDATE: &str = "FLOTILLA_UPDATE_DOCS";
/// In front of the table, which follows from what was run.
const INTRODUCTION: &str = "\
# SDKs in daemon mode

This file is written by the test `sdk_matrix`, which has each of these SDKs read what Flotilla wrote, evaluate flags of every
kind, and see a change; it fails where the file is not what it found. To write it anew:

```sh
FLOTILLA_UPDATE_DOCS=1 cargo test --locked -p flotilla-tests --test e2e sdk_matrix
```

";
const CLOSING: &str = "
A prefix with a hash tag, as in `{ld:spree}`, is right for all of them, and the only kind for a cluster. The readers' ACL user had
`~PREFIX:* +@read +@connection` and nothing more.

**Java.** What was run is the SDK with a small store of our own below it (`tests/sdks/java/RedisStore.java`) in the place of
LaunchDarkly's `launchdarkly-java-server-sdk-redis-store`, no release of which for this SDK could be had where this was run.
It reads the same keys; which ways to Redis LaunchDarkly's store goes is not shown by that.

**PHP.** The SDK for PHP was not run: it comes from Packagist alone, which the tests do not reach. In its place a test holds
every item in Redis, as LaunchDarkly sends it, to the fields and types that this SDK demands (`tests/src/sdks/php.rs`).
";

/// Every kind of Redis that there is a way to.
struct Stores {
    /// Without a password, behind an ACL user, with TLS, and on a socket.
    server: RedisServer,
    certificates: Certificates,
    directory: tempfile::TempDir,
    sentinels: Sentinels,
    cluster: RedisCluster,
}

impl Stores {
    async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let certificates = Certificates::make();
        let tls = certificates.server();
        let socket = socket_in(directory.path());
        let more = ["--unixsocket", &socket];
        let (server, sentinels, cluster) =
            tokio::join!(RedisServer::start_with_tls(&more, &tls), Sentinels::start(), RedisCluster::start());
        let server = server.unwrap();
        let mut redis = server.connection().await.unwrap();
        for user in [
            "writer on >hunter2 ~{acl-user}:* +@read +@write +@scripting +@connection",
            "reader on >hunter3 ~{acl-user}:* +@read +@connection",
        ] {
            let mut command = redis::cmd("ACL");
            command.arg("SETUSER").arg(&user.split(' ').collect::<Vec<_>>()[..]);
            command.exec_async(&mut redis).await.unwrap();
        }
        let (sentinels, cluster) = (sentinels.unwrap(), cluster.unwrap());
        Self { server, certificates, directory, sentinels, cluster }
    }

    /// As Flotilla is told.
    fn url(&self, topology: Topology) -> String {
        match topology {
            Topology::Standalone | Topology::AclUser => self.server.url(),
            Topology::Tls => format!("rediss://127.0.0.1:{}", self.server.announced_port()),
            Topology::UnixSocket => format!("redis+unix://{}", socket_in(self.directory.path())),
            Topology::Sentinel => self.sentinels.url(),
            Topology::Cluster => self.cluster.url(),
        }
    }

    /// The options of `store add`; passwords are in variables.
    fn writer_options(&self, topology: Topology) -> Vec<String> {
        let words = |text: &str| text.split(' ').map(str::to_owned).collect();
        match topology {
            Topology::Standalone | Topology::UnixSocket | Topology::Cluster => Vec::new(),
            Topology::AclUser => words("--username writer --password-env WRITER_PASSWORD"),
            Topology::Tls => self.certificates.client_options(),
            Topology::Sentinel => words("--sentinel-password-env SENTINEL_PASSWORD"),
        }
    }

    fn source(&self, topology: Topology) -> Source {
        let (mut redis_url, mut more) = (self.url(topology), Vec::new());
        match topology {
            Topology::Standalone | Topology::UnixSocket | Topology::Cluster => {}
            Topology::AclUser => redis_url = redis_url.replace("://", "://reader:hunter3@"),
            Topology::Tls => more = self.certificates.client_options(),
            Topology::Sentinel => more = vec!["--sentinel-password".to_owned(), Sentinels::PASSWORD.to_owned()],
        }
        Source::Daemon { redis_url, prefix: prefix(topology), more }
    }
}

fn socket_in(directory: &Path) -> String {
    directory.join("redis.sock").to_str().unwrap().to_owned()
}

fn prefix(topology: Topology) -> String {
    format!("{{{}}}", topology.name())
}

/// One environment in each store, all of them with the same flags.
async fn fill(fleet: &Fleet, stores: &Stores) {
    let variables = [("WRITER_PASSWORD", "hunter2"), ("SENTINEL_PASSWORD", Sentinels::PASSWORD)];
    for topology in Topology::ALL {
        let (name, url) = (topology.name(), stores.url(topology));
        let options = stores.writer_options(topology);
        let mut add = vec!["store", "add", name, &url];
        add.extend(options.iter().map(String::as_str));
        fleet.cli_with(&add, &variables, "").await.unwrap().expect_success();
        let more = ["--store", name, "--wait"];
        fleet.add_environment(name, &prefix(topology), KEY, &more).await.unwrap().expect_success();
    }
}

/// The flag that is changed, turned off.
fn changed(fixture: &EvaluationFixture) -> Item {
    let json = fixture.data.get(Kind::Flag, "bool-on").unwrap().json();
    Item::parse(&json.replace(r#""on": true"#, r#""on": false"#).replace(r#""version": 1"#, r#""version": 2"#))
        .unwrap()
}

/// What a reader answers to the fixture, and that it is right.
async fn first_answer(mut reader: SdkReader, fixture: &EvaluationFixture) -> (SdkReader, Evaluation) {
    let found = reader.evaluate().await.unwrap();
    fixture.assert_expected(&found);
    assert!(found.all_flags.valid, "{:?}", reader.sdk());
    assert_eq!(found.all_flags.values.len(), fixture.data.len(Kind::Flag), "{:?}", reader.sdk());
    (reader, found)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_table_of_sdks_is_what_was_found() {
    let tools = ["redis-server", "redis-cli", "openssl"];
    if !tools.into_iter().all(require_tool) || Sdk::required() != Sdk::ALL {
        return;
    }
    let fixture = EvaluationFixture::load().unwrap();
    let stores = Stores::start().await;
    let fleet = Fleet::builder().start().await.unwrap();
    fleet.simulator.add_environment(KEY, Some("readers-id"), fixture.data.clone());
    fill(&fleet, &stores).await;

    let (mut readers, mut ran) = (Vec::new(), Vec::new());
    let mut wanted: Option<Evaluation> = None;
    for topology in Topology::ALL {
        let reached =
            Sdk::ALL.into_iter().filter(|sdk| matches!(sdk.reach(topology), Reach::Setting(_) | Reach::Client(_)));
        let source = stores.source(topology);
        let started: Vec<_> = reached.map(|sdk| SdkReader::start(sdk, &source, &fixture.path).unwrap()).collect();
        for reader in started {
            let (reader, found) = first_answer(reader, &fixture).await;
            let wanted = wanted.get_or_insert_with(|| found.clone());
            wanted.compare(&found).unwrap_or_else(|text| panic!("{:?}, {topology:?}: {text}", reader.sdk()));
            ran.push((reader.sdk(), topology));
            readers.push(reader);
        }
    }

    fleet.simulator.patch(KEY, Kind::Flag, changed(&fixture));
    let first = readers.first_mut().unwrap();
    wait_until("the first reader sees the change", BOUND, async || {
        let found = first.evaluate().await.map_err(|error| format!("{error:#}"))?;
        if found.all_flags.values["bool-on"] == false { Ok(()) } else { Err("not yet".to_owned()) }
    })
    .await;
    // Once more: an answer is not of one moment, and the change may have come in the middle of that one.
    let wanted = first.evaluate().await.unwrap();
    for reader in &mut readers {
        reader.wait_until_equal(&wanted, BOUND).await;
    }
    compare_table(&table(&ran));
}

/// The document that follows from what was just run.
fn table(ran: &[(Sdk, Topology)]) -> String {
    let mut text = INTRODUCTION.to_owned();
    let title = |sdk: Sdk| match sdk {
        Sdk::Python => "Python",
        Sdk::Node => "Node.js",
        Sdk::Go => "Go",
        Sdk::Java => "Java",
    };
    text.push_str("| SDK | packages |\n|---|---|\n");
    for sdk in Sdk::ALL {
        let packages = sdk.packages().unwrap();
        let packages: Vec<_> = packages.iter().map(|(name, version)| format!("`{name}` {version}")).collect();
        writeln!(text, "| {} | {} |", title(sdk), packages.join(", ")).unwrap();
    }
    text.push_str("\n**yes** was run, by what is named; **no** cannot be; **–** was not tried.\n\n| Redis |");
    for sdk in Sdk::ALL {
        write!(text, " {} |", title(sdk)).unwrap();
    }
    writeln!(text, "\n|---|{}", "---|".repeat(Sdk::ALL.len())).unwrap();
    for topology in Topology::ALL {
        write!(text, "| {} |", topology.title()).unwrap();
        for sdk in Sdk::ALL {
            match sdk.reach(topology) {
                Reach::Setting(by) | Reach::Client(by) if ran.contains(&(sdk, topology)) => {
                    write!(text, " **yes**: {by} |").unwrap();
                }
                Reach::Setting(by) | Reach::Client(by) => panic!("{sdk:?} was not run by {by}"),
                Reach::Unsupported(why) => write!(text, " **no**: {why} |").unwrap(),
                Reach::Untried(why) => write!(text, " –: {why} |").unwrap(),
            }
        }
        text.push('\n');
    }
    text.push_str(CLOSING);
    text
}

fn compare_table(found: &str) {
    let path = workspace_directory().join(TABLE);
    if std::env::var_os(UPDATE).is_some() {
        fs::write(&path, found).unwrap();
    }
    let committed = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == found,
        "{TABLE} is not what was found; {UPDATE}=1 writes it anew. Found:\n{found}\nCommitted:\n{committed}"
    );
}
