//! What the user may do: every command that workers use is tried on keys that nobody else has.

use redis::aio::MultiplexedConnection;
use redis::{Cmd, cmd};
use uuid::Uuid;

use super::{Findings, plain};

/// How long the keys may outlive a check that is cut off.
const SECONDS: u64 = 60;

/// Tries all commands under the prefix.
pub(super) async fn check(connection: &mut MultiplexedConnection, prefix: &str, findings: &mut Findings) {
    let nonce = Uuid::new_v4().simple().to_string();
    let name = |part: &str| format!("{prefix}:$flotilla:check:{nonce}:{part}");
    let (text, renamed, hash) = (name("text"), name("renamed"), name("hash"));
    let mut refused = Vec::new();
    let mut key_refused = None;
    for command in commands(&text, &renamed, &hash) {
        let name = command_name(&command);
        match command.exec_async(connection).await {
            Ok(()) => {}
            // Who may not even make a key or a script finds none.
            Err(error) if matches!(error.code(), Some("ERR" | "NOSCRIPT")) && !refused.is_empty() => {}
            Err(error) => {
                let why = plain(&error);
                if error.code() == Some("NOPERM") && why.contains("key") {
                    key_refused = Some(why);
                } else if error.code() == Some("NOPERM") {
                    refused.push(name);
                } else {
                    // What was made until then goes, or expires.
                    let _ = cmd("UNLINK").arg(&[&renamed, &text, &hash]).exec_async(connection).await;
                    return findings.failed("permissions", format!("{name} under {prefix}: {why}"));
                }
            }
        }
    }
    match (key_refused, refused.as_slice()) {
        (Some(why), _) => findings.failed(
            "permissions",
            format!("the user may not use the keys {prefix}:*: {why}; if environments have another prefix, check with it"),
        ),
        (None, []) => findings.ok("permissions", "the user may do all that workers do"),
        (None, refused) => {
            findings.failed("permissions", format!("the user may not call {}", refused.join(", ")));
        }
    }
}

/// In an order in which each finds what it needs, and the last ones leave nothing.
fn commands(text: &str, renamed: &str, hash: &str) -> Vec<Cmd> {
    let one = |words: &[&str]| {
        let mut command = cmd(words[0]);
        command.arg(&words[1..]);
        command
    };
    let seconds = SECONDS.to_string();
    let script = "return redis.call('GET', KEYS[1])";
    vec![
        one(&["SET", text, "x", "EX", &seconds]),
        one(&["GET", text]),
        one(&["TYPE", text]),
        one(&["PTTL", text]),
        one(&["EXISTS", text]),
        one(&["HSET", hash, "field", "value"]),
        one(&["PERSIST", hash]),
        one(&["EXPIRE", hash, &seconds]),
        one(&["HGET", hash, "field"]),
        one(&["HLEN", hash]),
        one(&["HSCAN", hash, "0", "COUNT", "100"]),
        one(&["HDEL", hash, "field"]),
        one(&["SCRIPT", "LOAD", script]),
        // The digest is the script's.
        one(&["EVALSHA", redis::Script::new(script).get_hash(), "1", text]),
        one(&["RENAME", text, renamed]),
        one(&["UNLINK", renamed, text, hash]),
    ]
}

fn command_name(command: &Cmd) -> String {
    match command.args_iter().next() {
        Some(redis::Arg::Simple(name)) => String::from_utf8_lossy(name).into_owned(),
        Some(_) | None => String::new(),
    }
}
