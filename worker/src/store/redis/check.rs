//! Looks a store over, for those who want to know before they use it: a list of what is well and what is not.

use std::time::{Duration, Instant};

use flotilla_proto::StoreUrl;
use flotilla_proto::store_url::StorePlace;
use flotilla_proto::v1::{CheckOutcome, StoreCheck};
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, cmd};

use super::guide::Guide;
use super::layout::Layout;
use super::plain;
use super::target::{Server, Target};
use super::tracking::standing;
use crate::secrets::Secrets;

// What `INFO` tells.
mod info;
// What the user may do.
mod permissions;

/// Of connecting to a server, and of one call.
const PATIENCE: Duration = Duration::from_secs(3);
/// What is kept of the time there is, to say what was found.
const RESERVE: Duration = Duration::from_millis(300);
/// PINGs that are timed, and from where on a typical one is slow.
const PINGS: usize = 10;
const SLOW: Duration = Duration::from_millis(10);

/// What was found so far.
#[derive(Debug, Default)]
struct Findings {
    checks: Vec<StoreCheck>,
}

impl Findings {
    fn add(&mut self, name: &str, outcome: CheckOutcome, message: impl Into<String>) {
        let check = StoreCheck { name: name.to_owned(), outcome: outcome.into(), message: message.into() };
        self.checks.push(check);
    }

    fn ok(&mut self, name: &str, message: impl Into<String>) {
        self.add(name, CheckOutcome::Ok, message);
    }

    fn warning(&mut self, name: &str, message: impl Into<String>) {
        self.add(name, CheckOutcome::Warning, message);
    }

    fn failed(&mut self, name: &str, message: impl Into<String>) {
        self.add(name, CheckOutcome::Failed, message);
    }

    /// Of several servers each check once: with the worst that one of them has, and which it is.
    fn merge(&mut self, server: &Server, others: Self) {
        for mut one in others.checks {
            if one.outcome() != CheckOutcome::Ok {
                one.message = format!("{server}: {}", one.message);
            }
            match self.checks.iter_mut().find(|known| known.name == one.name) {
                Some(known) if known.outcome < one.outcome => *known = one,
                Some(_) => {}
                None => self.checks.push(one),
            }
        }
    }
}

/// Looks a store over within the deadline. Keys of its own, for a moment, are written under the prefix.
pub(crate) async fn check(url: StoreUrl, secrets: Secrets, prefix: &str, deadline: Duration) -> Vec<StoreCheck> {
    let mut findings = Findings::default();
    let target = Target { url, secrets };
    let whole = look_over(&target, prefix, &mut findings);
    if tokio::time::timeout(deadline.saturating_sub(RESERVE), whole).await.is_err() {
        findings.failed("time", "the store did not answer everything in time");
    }
    findings.checks
}

async fn look_over(target: &Target, prefix: &str, findings: &mut Findings) {
    let layout = match Guide::new(target.clone()).layout().await {
        Ok(layout) => layout,
        Err(why) => return findings.failed("servers", why),
    };
    let servers = layout.servers();
    match &target.url.place {
        StorePlace::Server(_) | StorePlace::Socket(_) => {}
        StorePlace::Sentinel { master, .. } => {
            let named = servers.first().map(ToString::to_string).unwrap_or_default();
            findings.ok("servers", format!("the Sentinels name {named} as the master of {master}"));
        }
        StorePlace::Cluster(_) => match layout.missing() {
            0 => findings.ok("servers", format!("{} masters have all slots of the cluster", servers.len())),
            missing => findings.failed("servers", format!("no master of the cluster has {missing} of the slots")),
        },
    }
    for server in servers {
        let mut others = Findings::default();
        look_at(target, server, prefix, &layout, &mut others).await;
        findings.merge(server, others);
    }
}

async fn look_at(target: &Target, server: &Server, prefix: &str, layout: &Layout, findings: &mut Findings) {
    let mut connection = match connect(target, server).await {
        Ok(connection) => connection,
        Err(why) => return findings.failed("connection", why),
    };
    let how = if target.url.tls.is_some() { ", with TLS" } else { "" };
    findings.ok("connection", format!("connected to {server}{how}"));
    info::check(&mut connection, findings).await;
    latency(&mut connection, findings).await;
    if layout.server(prefix) == Some(server) {
        permissions::check(&mut connection, prefix, findings).await;
    }
    match standing(&mut connection, false).await.map(|standing| standing.untracked) {
        Ok(None) => findings.ok("tracking", "the server tells at once when somebody else changes a key"),
        Ok(Some(why)) => {
            findings.warning(
                "tracking",
                format!("what somebody else changes is found by looking only, so later: {why}"),
            );
        }
        Err(error) => findings.failed("tracking", plain(&error)),
    }
}

async fn connect(target: &Target, server: &Server) -> Result<MultiplexedConnection, String> {
    let client = target.data_client(server).await.map_err(|error| error.to_string())?;
    // A push sender is what makes the client accept pushes.
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(PATIENCE))
        .set_response_timeout(Some(PATIENCE))
        .set_push_sender(|_| Ok::<(), ()>(()));
    client.get_multiplexed_async_connection_with_config(&config).await.map_err(|error| {
        let hint = match error.code() {
            Some("WRONGPASS" | "NOAUTH") => "; check user and password",
            _ => "",
        };
        format!("cannot connect to {server}: {}{hint}", plain(&error))
    })
}

#[expect(clippy::disallowed_methods, reason = "measures how long the store takes")]
async fn latency(connection: &mut MultiplexedConnection, findings: &mut Findings) {
    let mut times = Vec::with_capacity(PINGS);
    for _ in 0..PINGS {
        let begun = Instant::now();
        if let Err(error) = cmd("PING").exec_async(connection).await {
            return findings.failed("latency", format!("a PING failed: {}", plain(&error)));
        }
        times.push(begun.elapsed());
    }
    times.sort();
    let (typical, longest) = (times[PINGS / 2], times[PINGS - 1]);
    let text = format!("PING takes {:.1} ms, at most {:.1} ms", millis(typical), millis(longest));
    if typical < SLOW {
        findings.ok("latency", text);
    } else {
        findings.warning("latency", format!("{text}; better have workers near their store"));
    }
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
