//! The model that stands in for Redis in unit tests and in the simulation does what Redis does.

use std::sync::Arc;

use flotilla_tests::harness::require_tool;
use flotilla_worker::dataset::{Evidence, ItemId, Snapshot};
use flotilla_worker::fence::FenceKind;
use flotilla_worker::source::Kind;
use flotilla_worker::store::model::Model;
use flotilla_worker::store::{Damage, FenceStep, Look, Op, Outcome, Urgency, Write};
use redis::AsyncCommands as _;
use redis::aio::MultiplexedConnection;

use crate::bench::{Bench, PREFIX};

const STEPS: u32 = 3_000;

/// Numbers that look like chance and come again with the same seed.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }

    fn item(&mut self) -> ItemId {
        let kind = if self.below(3) == 0 { Kind::Segment } else { Kind::Flag };
        ItemId { kind, key: format!("item-{}", self.below(4)).into() }
    }

    fn body(&mut self, id: &ItemId) -> Arc<[u8]> {
        format!(r#"{{"key":"{}","version":{}}}"#, id.key, self.below(5)).into_bytes().into()
    }

    fn step(&mut self, model: &Model) -> FenceStep {
        let expected = match self.below(6) {
            0 => None,
            1 => Some("another".to_owned()),
            _ => model.fence.clone(),
        };
        FenceStep { expected, next: format!("fence-{}", self.below(1_000_000)), kind: FenceKind::Serving }
    }

    fn snapshot(&mut self) -> Arc<Snapshot> {
        let mut snapshot = Snapshot::default();
        for number in 0..self.below(4) {
            let id = ItemId { kind: Kind::Flag, key: format!("item-{number}").into() };
            let body = self.body(&id);
            snapshot.flags.push((id.key, body.into()));
        }
        Arc::new(snapshot)
    }

    fn op(&mut self, model: &Model) -> Op {
        match self.below(12) {
            0 | 1 => Op::Look,
            2 => Op::List,
            3 => Op::Read(self.item()),
            4 | 5 => {
                let evidence = [Evidence::Nothing, Evidence::Newer, Evidence::NewerOrForeign];
                let evidence = evidence[usize::try_from(self.below(3)).unwrap()];
                Op::Compare { snapshot: self.snapshot(), urgency: Urgency::Now, evidence }
            }
            6 => Op::Load { step: self.step(model), snapshot: self.snapshot() },
            7 => Op::Purge(FenceStep { kind: FenceKind::Released, ..self.step(model) }),
            _ => {
                let set: Vec<_> = (0..self.below(3)).map(|_| self.item()).collect();
                let remove: Vec<_> =
                    (0..self.below(2)).map(|_| self.item()).filter(|id| !set.contains(id)).collect();
                let mut set: Vec<_> = set.into_iter().map(|id| (id.clone(), self.body(&id))).collect();
                set.dedup_by(|one, other| one.0 == other.0);
                let marker = self.below(2) == 0;
                let set = set.into_iter().map(|(id, body)| (id, body.into())).collect();
                Op::Write(Write { step: self.step(model), set, remove, marker })
            }
        }
    }
}

fn key(name: &str) -> String {
    format!("{PREFIX}:{name}")
}

fn hash(kind: Kind) -> String {
    key(match kind {
        Kind::Flag => "features",
        Kind::Segment => "segments",
    })
}

/// Somebody else does something to both.
async fn tamper(random: &mut Random, model: &mut Model, redis: &mut MultiplexedConnection) {
    match random.below(11) {
        // Of both hashes, which the model does not tell apart.
        0 => {
            for kind in [Kind::Flag, Kind::Segment] {
                let _: () = redis.set(hash(kind), "text").await.unwrap();
            }
            model.items.clear();
            model.damage = Some(Damage::Type);
        }
        1 => {
            redis::cmd("FLUSHALL").exec_async(redis).await.unwrap();
            *model = Model::default();
        }
        2 | 3 => {
            let _: () = redis.del(key("$inited")).await.unwrap();
            model.marker = false;
        }
        4 | 5 => {
            let _: () = redis.del(key("$flotilla")).await.unwrap();
            model.fence = None;
        }
        // Nobody writes a field of what is no hash.
        _ if model.damage.is_some() => {}
        6 | 7 => {
            let id = random.item();
            let _: () = redis.hdel(hash(id.kind), &*id.key).await.unwrap();
            model.items.remove(&id);
        }
        _ => {
            let id = random.item();
            let body = random.body(&id);
            let _: () = redis.hset(hash(id.kind), &*id.key, &*body).await.unwrap();
            model.items.insert(id, body);
        }
    }
}

/// An answer without what only Redis has: a released fence expires, which a look tells, and an error names the key.
fn plain(outcome: Outcome) -> String {
    let plain = match outcome {
        Outcome::Failed(_) => return "failed".to_owned(),
        Outcome::Looked(look) => {
            Outcome::Looked(Look { damage: look.damage.filter(|damage| *damage != Damage::Expiry), ..look })
        }
        Outcome::Compared(mut differences) => {
            differences.items.sort();
            differences.stored.sort_by(|one, other| one.id.cmp(&other.id));
            Outcome::Compared(differences)
        }
        other => other,
    };
    format!("{plain:?}")
}

#[tokio::test]
async fn the_model_answers_as_redis_does() {
    if !require_tool("redis-server") {
        return;
    }
    let seed = std::env::var("FLOTILLA_SEED").map_or(1, |seed| seed.parse().expect("a number"));
    println!("replay it with FLOTILLA_SEED={seed}");
    let mut bench = Bench::start().await;
    let (mut random, mut model) = (Random(seed), Model::default());
    let (mut done, mut refused) = (0, 0);
    for number in 0..STEPS {
        if random.below(8) == 0 {
            tamper(&mut random, &mut model, &mut bench.other).await;
        }
        let op = random.op(&model);
        let told = format!("step {number}: {op:?}");
        let outcome = bench.run(op.clone()).await;
        done += u32::from(matches!(outcome, Outcome::Done { .. }));
        refused += u32::from(matches!(outcome, Outcome::Refused(_)));
        assert_eq!(plain(outcome), plain(model.execute(op)), "{told}");
    }
    assert!(done > STEPS / 10 && refused > STEPS / 20, "{done} done, {refused} refused");
}
