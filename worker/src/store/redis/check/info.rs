//! Version, role, persistence and eviction, as `INFO` tells them.

use redis::aio::MultiplexedConnection;

use super::super::info::Info;
use super::{Findings, plain};

/// The oldest versions that workers can use.
const OLDEST_REDIS: (u32, u32) = (6, 2);
const OLDEST_VALKEY: (u32, u32) = (7, 2);

/// Looks at what the server says of itself.
pub(super) async fn check(connection: &mut MultiplexedConnection, findings: &mut Findings) {
    match Info::ask(connection, None).await {
        Ok(info) => judge(&info, findings),
        Err(error) => findings.warning(
            "version",
            format!("the server does not tell version, role, persistence and eviction (INFO): {}", plain(&error)),
        ),
    }
}

fn judge(info: &Info, findings: &mut Findings) {
    let (product, version, oldest) = match info.get("valkey_version") {
        "" => ("Redis", info.get("redis_version"), OLDEST_REDIS),
        version => ("Valkey", version, OLDEST_VALKEY),
    };
    match parse_version(version) {
        Some(found) if found >= oldest => findings.ok("version", format!("{product} {version}")),
        Some(_) | None => findings
            .failed("version", format!("{product} {version}: workers need {}.{} or newer", oldest.0, oldest.1)),
    }
    match info.get("role") {
        "master" => findings.ok("role", format!("master, with {} replicas", info.get("connected_slaves"))),
        "slave" => {
            findings.failed("role", "a replica, which takes no writes; use the master's address, or Sentinels");
        }
        other => findings.warning("role", format!("the server does not say whether it is a master ({other:?})")),
    }
    persistence(info, findings);
    match (info.get("maxmemory_policy"), info.get("maxmemory")) {
        ("noeviction", "0") => findings.ok("eviction", "noeviction, and no limit of memory"),
        ("noeviction", _) => {
            let limit = info.get("maxmemory_human");
            findings.ok("eviction", format!("noeviction, limit {limit}, used {}", info.get("used_memory_human")));
        }
        (policy, _) => findings.warning(
            "eviction",
            format!("{policy}: Redis may drop flags when its memory is full; set maxmemory-policy noeviction"),
        ),
    }
}

fn persistence(info: &Info, findings: &mut Findings) {
    let saves = info.get("rdb_last_bgsave_status") == "ok" && info.get("rdb_last_save_time") != "0";
    match (info.get("aof_enabled"), saves) {
        (_, _) if info.get("rdb_last_bgsave_status") == "err" => findings
            .warning("persistence", "the last save to disk failed; Redis may refuse writes until one succeeds (MISCONF)"),
        ("1", _) => findings.ok("persistence", "append-only file"),
        (_, true) if info.get("rdb_saves") != "0" => findings.ok("persistence", "snapshots"),
        (_, _) => findings.warning(
            "persistence",
            "neither an append-only file nor a snapshot yet: after a restart Redis is empty until workers have refilled it",
        ),
    }
}

fn parse_version(text: &str) -> Option<(u32, u32)> {
    let mut parts = text.split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use flotilla_proto::v1::CheckOutcome;

    use super::*;

    fn outcomes(text: &str) -> Vec<(String, CheckOutcome)> {
        let mut findings = Findings::default();
        judge(&Info::read(text), &mut findings);
        findings.checks.iter().map(|check| (check.name.clone(), check.outcome())).collect()
    }

    #[test]
    fn what_info_tells_is_judged() {
        use CheckOutcome::{Failed, Ok, Warning};
        let good = "redis_version:7.0.15\r\nrole:master\r\nconnected_slaves:1\r\naof_enabled:1\r\n\
            maxmemory:0\r\nmaxmemory_policy:noeviction\r\n";
        let bad = "redis_version:6.0.1\nrole:slave\naof_enabled:0\nrdb_saves:0\nmaxmemory_policy:allkeys-lru\n";
        let valkey = "redis_version:7.2.4\nvalkey_version:7.1.0\nrole:odd\nrdb_last_bgsave_status:err\n\
            maxmemory:1\nmaxmemory_policy:noeviction\n";
        for (text, expected) in [
            (good, [Ok, Ok, Ok, Ok]),
            (bad, [Failed, Failed, Warning, Warning]),
            (valkey, [Failed, Warning, Warning, Ok]),
        ] {
            let names = ["version", "role", "persistence", "eviction"].map(ToOwned::to_owned);
            assert_eq!(outcomes(text), names.into_iter().zip(expected).collect::<Vec<_>>());
        }
    }
}
