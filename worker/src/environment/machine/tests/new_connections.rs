//! The way to a store changes while an environment is served.

use super::world::{Worker, delete, granted, patch, stored};
use super::*;
use crate::store::model::Model;

/// How it was, and what a test left undone.
struct Switch {
    worker: Worker,
    store: Model,
    /// What was sent over the old connections and is not answered yet.
    under_way: Option<Op>,
}

impl Switch {
    /// An environment that is served, with a write under way.
    fn during_a_write() -> Self {
        let mut store = Model::default();
        let mut worker = Worker::start(&mut store, granted("w1", 1, Intent::Serve), NOW);
        worker.connect(&mut store, Some("env1"), &[("a", 1), ("b", 1)]);
        worker.take_done();
        let actions = worker.machine.source_event(NOW, patch("a", 2));
        let under_way = actions.into_iter().find_map(|action| match action {
            Action::Run(op) => Some(op),
            _ => None,
        });
        assert!(matches!(under_way, Some(Op::Write(_))), "{under_way:?}");
        Self { worker, store, under_way }
    }

    /// The same store is to be reached in another way, under the same grant.
    fn go_over(&mut self) {
        let store_url = flotilla_proto::StoreUrl::parse("url", "redis://:new@127.0.0.1:1").unwrap();
        let assignment = Assignment { store_url, ..granted("w1", 1, Intent::Serve) };
        self.worker.assign(&mut self.store, assignment);
        let actions = self.worker.machine.store_replaced(self.worker.now);
        self.worker.act(&mut self.store, actions);
    }

    /// The old connections answer.
    fn answered(&mut self, outcome: Outcome) {
        let (_, actions) = self.worker.machine.store_outcome(self.worker.now, outcome);
        self.worker.act(&mut self.store, actions);
    }

    fn assert_is_served(&mut self) {
        assert_eq!(stored(&self.store), [("a", 3), ("c", 1)]);
        let report = self.worker.machine.report();
        assert_eq!((report.grant_state, report.fenced_writes), (GrantState::Synchronized, 0));
        assert_eq!((report.repairs, report.doubted_items.len()), (0, 0));
        let asked = self.worker.take_done().into_iter().filter(|done| !done.starts_with("write"));
        assert_eq!(asked.collect::<Vec<_>>(), Vec::<String>::new(), "LaunchDarkly is not asked again");
    }
}

#[test]
fn what_arrives_while_the_connections_change_is_stored_whatever_becomes_of_the_last_write() {
    for is_done in [true, false] {
        let mut switch = Switch::during_a_write();
        let last = switch.under_way.take().unwrap();
        switch.go_over();
        for event in [patch("a", 3), delete("b", 2), patch("c", 1)] {
            switch.worker.hear(&mut switch.store, event);
        }
        let outcome = if is_done {
            switch.store.execute(last)
        } else {
            Outcome::Failed(crate::store::StoreError::Unknown("the connection broke".to_owned()))
        };
        switch.answered(outcome);
        switch.assert_is_served();
    }
}

#[test]
fn a_write_that_the_old_connections_deliver_late_is_refused() {
    let mut switch = Switch::during_a_write();
    let late = switch.under_way.take().unwrap();
    switch.go_over();
    switch.answered(Outcome::Failed(crate::store::StoreError::Unknown("it did not answer in time".to_owned())));
    for event in [patch("a", 3), delete("b", 2), patch("c", 1)] {
        switch.worker.hear(&mut switch.store, event);
    }
    assert!(matches!(switch.store.execute(late), Outcome::Refused(_)));
    switch.assert_is_served();
}

#[test]
fn the_first_of_the_new_connections_is_news() {
    let mut switch = Switch::during_a_write();
    let last = switch.under_way.take().unwrap();
    let first = StoreNews { connection: 1, ..StoreNews::default() };
    let _ = switch.worker.machine.store_news(NOW, first);
    switch.go_over();
    let down = || Outcome::Failed(crate::store::StoreError::NotDone("there is no connection".to_owned()));
    drop(last);
    let (_, actions) = switch.worker.machine.store_outcome(NOW, down());
    assert!(actions.iter().any(|action| matches!(action, Action::Run(Op::Look))), "{actions:?}");
    let (_, actions) = switch.worker.machine.store_outcome(NOW, down());
    assert!(matches!(actions[..], [Action::Wake(_)]), "it waits: {actions:?}");
    let actions = switch.worker.machine.store_news(NOW, first);
    assert!(actions.iter().any(|action| matches!(action, Action::Run(Op::Look))), "{actions:?}");
}
