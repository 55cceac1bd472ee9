//! Random histories of faults.

use proptest::prelude::*;

use super::*;

/// What may happen between any two steps.
#[derive(Debug, Clone)]
enum Fault {
    /// The operation is done and answered.
    None,
    /// Done, but the answer is lost.
    AnswerLost,
    /// Not done, and nobody knows.
    RequestLost,
    /// Nobody knows, and it is done later, after what follows.
    Delayed,
    /// The store says that it did not do it.
    Refused,
    /// The store loses everything, first.
    Flushed,
    /// The data set changes while the operation is under way.
    Patched(u8),
}

fn fault() -> impl Strategy<Value = Fault> {
    prop_oneof![
        4 => Just(Fault::None),
        1 => Just(Fault::AnswerLost),
        1 => Just(Fault::RequestLost),
        1 => Just(Fault::Delayed),
        1 => Just(Fault::Refused),
        1 => Just(Fault::Flushed),
        3 => (0u8..4).prop_map(Fault::Patched),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Whatever is lost, late or refused: afterwards the store equals the data set, and no late write does harm.
    #[test]
    fn after_any_faults_the_store_equals_the_data(faults in proptest::collection::vec(fault(), 0..40)) {
        let (mut writer, mut model, mut data) = (Writer::new(me(1, "g1", Intent::Serve), 1), Model::default(), data(&[("a", 1), ("b", 1)]));
        let (mut now, mut version, mut delayed) = (NOW, 1, Vec::new());
        for fault in faults {
            now = now.after(Duration::from_secs(2));
            if let Fault::Flushed = fault {
                model = Model::default();
                writer.check();
            }
            match writer.decide(now, Some(&data), ONLINE) {
                Decision::Confirm => writer.confirmed(now, true),
                Decision::Wait(_) => {}
                Decision::Run(op) => {
                    if let Fault::Patched(number) = fault {
                        version += 1;
                        let key = ["a", "b", "c", "d"][usize::from(number)];
                        let change = if version % 3 == 0 { data.delete(Kind::Flag, key, version) } else { data.patch(Kind::Flag, key, version, b"new", NOW) };
                        writer.changed(change);
                    }
                    let unknown = || Outcome::Failed(StoreError::Unknown("no answer".to_owned()));
                    let outcome = match fault {
                        Fault::None | Fault::Flushed | Fault::Patched(_) => model.execute(op),
                        Fault::AnswerLost => { model.execute(op); unknown() }
                        Fault::RequestLost => unknown(),
                        Fault::Delayed => { delayed.push(op); unknown() }
                        Fault::Refused => Outcome::Failed(StoreError::NotDone("OOM".to_owned())),
                    };
                    writer.outcome(now, outcome);
                }
            }
            if let Fault::Patched(_) = fault {
                // A delayed one arrives in the middle of everything.
                if let Some(op) = delayed.pop() { model.execute(op); }
            }
        }
        now = now.after(Duration::from_secs(5));
        writer.check();
        settle(&mut writer, &mut model, Some(&data), now);
        assert_in_line(&writer, &model, &data);
        for late in delayed {
            model.execute(late);
        }
        assert_in_line(&writer, &model, &data);
    }
}
