//! The Lua scripts, their arguments and answers.

use std::sync::{Arc, LazyLock};

use redis::{Cmd, FromRedisValue, Value, cmd};

use super::super::{Damage, FenceStep, Look, Outcome, RELEASED_FENCE, StoreError, Write};
use crate::dataset::{Body, Unpacked};
use crate::fence::{FenceKind, Found};
use crate::source::Kind;

/// How long a staging key may outlive its last chunk.
const STAGE_SECONDS: u64 = 600;

/// A script and the name under which Redis keeps it.
#[derive(Debug)]
pub(super) struct Script {
    text: &'static str,
    sha: LazyLock<String>,
}

macro_rules! script {
    ($name:ident = $($part:literal)+) => {
        pub(super) static $name: Script = Script {
            text: concat!($(include_str!($part), "\n"),+),
            sha: LazyLock::new(|| redis::Script::new($name.text).get_hash().to_owned()),
        };
    };
}

script!(LOOK = "guard.lua" "look.lua");
script!(WRITE = "guard.lua" "write.lua");
script!(LOAD = "guard.lua" "load.lua");
script!(PURGE = "guard.lua" "purge.lua");
script!(STAGE = "stage.lua");

/// All scripts, to be loaded with a new connection.
pub(super) static ALL: [&Script; 5] = [&LOOK, &WRITE, &LOAD, &PURGE, &STAGE];

impl Script {
    /// The command that runs it, still without arguments.
    pub(super) fn call(&self, keys: &[String]) -> Cmd {
        let mut call = cmd("EVALSHA");
        call.arg(self.sha.as_str()).arg(keys.len()).arg(keys);
        call
    }

    /// The command that makes Redis know it.
    pub(super) fn load(&self) -> Cmd {
        let mut load = cmd("SCRIPT");
        load.arg("LOAD").arg(self.text);
        load
    }
}

/// The arguments of every writing script: the fence before and after.
pub(super) fn step_arguments(call: &mut Cmd, step: &FenceStep) {
    let seconds = match step.kind {
        FenceKind::Serving => 0,
        FenceKind::Released => RELEASED_FENCE.as_secs(),
    };
    call.arg(u8::from(step.expected.is_some()))
        .arg(step.expected.as_deref().unwrap_or_default())
        .arg(&step.next)
        .arg(seconds);
}

pub(super) fn write_arguments(call: &mut Cmd, write: &Write) {
    step_arguments(call, &write.step);
    call.arg(u8::from(write.marker));
    for kind in [Kind::Flag, Kind::Segment] {
        call.arg(write.set.iter().filter(|(id, _)| id.kind == kind).count());
        call.arg(write.remove.iter().filter(|id| id.kind == kind).count());
    }
    let mut unpacked = Unpacked::default();
    for kind in [Kind::Flag, Kind::Segment] {
        for (id, body) in write.set.iter().filter(|(id, _)| id.kind == kind) {
            call.arg(id.key.as_bytes()).arg(unpacked.text(body));
        }
        for id in write.remove.iter().filter(|id| id.kind == kind) {
            call.arg(id.key.as_bytes());
        }
    }
}

pub(super) fn load_arguments(call: &mut Cmd, step: &FenceStep, counts: [usize; 2]) {
    step_arguments(call, step);
    call.arg(counts[0]).arg(counts[1]);
}

pub(super) fn stage_arguments(call: &mut Cmd, items: &[(Arc<str>, Body)]) {
    call.arg(STAGE_SECONDS);
    let mut unpacked = Unpacked::default();
    for (key, body) in items {
        call.arg(key.as_bytes()).arg(unpacked.text(body));
    }
}

/// Whether a chunk was staged.
pub(super) fn is_staged(answer: &Value) -> bool {
    let Value::Array(parts) = answer else { return false };
    parts.first().and_then(|word| String::from_redis_value_ref(word).ok()).as_deref() == Some("staged")
}

/// Reads a script's answer. Anything but a known one is a failure.
pub(super) fn outcome(answer: Value) -> Result<Outcome, StoreError> {
    let malformed =
        |what: &str| StoreError::Unknown(format!("the store's answer to a script is not understood ({what})"));
    let Value::Array(parts) = answer else {
        return Err(malformed("no list"));
    };
    let text = |at: usize| {
        parts.get(at).and_then(|part| String::from_redis_value_ref(part).ok()).ok_or_else(|| malformed("text"))
    };
    let count = |at: usize| {
        parts.get(at).and_then(|part| u64::from_redis_value_ref(part).ok()).ok_or_else(|| malformed("number"))
    };
    let found = || {
        Ok(match text(1)?.as_str() {
            "absent" => Found::Absent,
            "type" => Found::WrongType,
            // What is not text was written by nobody of us, and cannot be named as an expected value.
            "value" => text(2).map_or(Found::WrongType, Found::Value),
            _ => return Err(malformed("fence")),
        })
    };
    match text(0)?.as_str() {
        "done" => Ok(Outcome::Done { flags: count(1)?, segments: count(2)? }),
        "looked" => Ok(Outcome::Looked(Look {
            found: found()?,
            marker: count(3)? == 1,
            flags: count(4)?,
            segments: count(5)?,
            damage: match count(6)? {
                0 => None,
                1 => Some(Damage::Expiry),
                _ => Some(Damage::Type),
            },
            untracked: None,
        })),
        "refused" => Ok(Outcome::Refused(found()?)),
        "wrongtype" => Err(StoreError::NotDone(format!(
            "the key {} holds another type; delete it or choose another prefix",
            text(1)?
        ))),
        "unstaged" => Err(StoreError::NotDone("a staged hash is incomplete".to_owned())),
        "malformed" => Err(StoreError::NotDone("a script's arguments do not add up".to_owned())),
        _ => Err(malformed("word")),
    }
}
