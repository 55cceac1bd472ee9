//! How long changes are on their way: from the receipt of an event's last byte to the store's acknowledgement.

use std::time::Instant;

use crate::store::Op;

/// Since when the oldest change is on its way.
#[derive(Debug, Default)]
pub(super) struct Propagation {
    /// Of those that no write carries yet.
    waiting: Option<Instant>,
    /// Of those that the write under way carries.
    carried: Option<Instant>,
}

/// What is known to be written after an answer of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Written {
    /// It was no write, or is not known to be done.
    Nothing,
    /// What the write carried, if it carried items.
    WhatWasCarried,
    /// All that was received: what was not carried, a comparison has found there.
    Everything,
}

impl Propagation {
    /// A change was received then.
    pub(super) fn received(&mut self, at: Instant) {
        self.waiting.get_or_insert(at);
    }

    /// An operation begins. One that writes items carries everything that waits.
    pub(super) fn sent(&mut self, op: &Op) {
        let carries = match op {
            Op::Write(write) => !write.set.is_empty() || !write.remove.is_empty(),
            Op::Load { .. } => true,
            Op::Look | Op::Purge(_) | Op::Compare { .. } | Op::List | Op::Read(_) => false,
        };
        if carries {
            self.carried = self.waiting.take();
        }
    }

    /// The operation was answered. The oldest change that is written by now was received at the time returned.
    pub(super) fn answered(&mut self, written: Written) -> Option<Instant> {
        let carried = self.carried.take();
        match written {
            Written::Nothing => {
                self.waiting = carried.or(self.waiting);
                None
            }
            Written::WhatWasCarried => carried,
            Written::Everything => carried.or(self.waiting.take()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::dataset::ItemId;
    use crate::fence::FenceKind;
    use crate::source::Kind;
    use crate::store::{FenceStep, Write};

    fn write(items: usize) -> Op {
        let step = FenceStep { expected: None, next: "next".to_owned(), kind: FenceKind::Serving };
        let remove = (0..items).map(|item| ItemId { kind: Kind::Flag, key: item.to_string().into() }).collect();
        Op::Write(Write { step, set: Vec::new(), remove, marker: false })
    }

    #[test]
    fn each_write_ends_the_wait_of_the_oldest_change_that_it_carries() {
        #[expect(clippy::disallowed_methods, reason = "any moment will do")]
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut propagation = Propagation::default();
        propagation.received(at(1));
        propagation.received(at(2));
        propagation.sent(&write(2));
        propagation.received(at(3));
        assert_eq!(propagation.answered(Written::WhatWasCarried), Some(at(1)), "though others wait");
        propagation.sent(&write(1));
        assert_eq!(propagation.answered(Written::Nothing), None, "it was not done");
        propagation.received(at(4));
        propagation.sent(&write(2));
        assert_eq!(propagation.answered(Written::Everything), Some(at(3)));
        propagation.sent(&write(0));
        assert_eq!(propagation.answered(Written::Everything), None, "nothing waited");
    }

    #[test]
    fn what_a_comparison_finds_to_be_there_waits_no_longer() {
        #[expect(clippy::disallowed_methods, reason = "any moment will do")]
        let start = Instant::now();
        let mut propagation = Propagation::default();
        propagation.received(start);
        propagation.sent(&write(0));
        assert_eq!(propagation.answered(Written::WhatWasCarried), None, "a claim carries nothing");
        assert_eq!(propagation.answered(Written::Everything), Some(start));
    }
}
