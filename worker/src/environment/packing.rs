//! When what has been quiet is packed, a part at a time, so that nothing waits for it.

use std::time::Duration;

use flotilla_proto::Timestamp;

/// An item that has not changed for so long is packed.
pub(super) const QUIET: Duration = Duration::from_secs(5);
/// Pause after a part, for what else there is to do.
const PAUSE: Duration = Duration::from_millis(5);

/// When the next part is due.
#[derive(Debug, Default)]
pub(super) struct Packing {
    due: Option<Timestamp>,
    /// When an item changed last.
    changed: Timestamp,
}

impl Packing {
    /// Items may have changed.
    pub(super) fn changed(&mut self, now: Timestamp) {
        self.changed = now;
        self.due.get_or_insert(now.after(QUIET));
    }

    /// When there is something to pack, if there is.
    pub(super) fn due(&self) -> Option<Timestamp> {
        self.due
    }

    /// Whether a part is to be packed now.
    pub(super) fn begin(&mut self, now: Timestamp) -> bool {
        self.due.take_if(|due| *due <= now).is_some()
    }

    /// A part was packed, and there may be more.
    pub(super) fn go_on(&mut self, now: Timestamp) {
        self.due = Some(now.after(PAUSE));
    }

    /// All that was quiet is packed.
    pub(super) fn end(&mut self, now: Timestamp) {
        let quiet_at = self.changed.after(QUIET);
        self.due = (quiet_at > now).then_some(quiet_at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_change_is_packed_when_it_has_been_quiet() {
        let mut packing = Packing::default();
        assert_eq!(packing.due(), None);
        packing.changed(Timestamp(1_000));
        packing.changed(Timestamp(3_000));
        assert!(!packing.begin(Timestamp(5_999)) && packing.begin(Timestamp(6_000)));
        packing.go_on(Timestamp(6_000));
        assert!(!packing.begin(Timestamp(6_004)) && packing.begin(Timestamp(6_005)));
        packing.end(Timestamp(6_005));
        assert_eq!(packing.due(), Some(Timestamp(8_000)), "the later one");
        assert!(packing.begin(Timestamp(8_000)));
        packing.end(Timestamp(8_000));
        assert_eq!(packing.due(), None);
    }
}
