//! Which server has which keys.

use flotilla_proto::store_url::hash_tag;

use super::target::Server;

/// How many slots a cluster has.
pub(super) const SLOTS: u16 = 16384;

/// Which server has which slots. A store that is no cluster has one server, which has them all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Layout {
    /// First and last slot, and who has them.
    ranges: Vec<(u16, u16, Server)>,
}

impl Layout {
    /// One server has everything.
    pub(super) fn single(server: Server) -> Self {
        Self { ranges: vec![(0, SLOTS - 1, server)] }
    }

    /// As a cluster says.
    pub(super) fn of_ranges(mut ranges: Vec<(u16, u16, Server)>) -> Self {
        // In one form, so that equal ones are found equal.
        ranges.sort();
        ranges.dedup_by(|(first, last, server), (_, end, before)| {
            let follows = *server == *before && *first == end.saturating_add(1);
            if follows {
                *end = *last;
            }
            follows
        });
        Self { ranges }
    }

    /// Who has the keys of a prefix; `None`: nobody.
    pub(super) fn server(&self, prefix: &str) -> Option<&Server> {
        let slot = slot(prefix);
        self.ranges.iter().find(|(first, last, _)| (*first..=*last).contains(&slot)).map(|(_, _, server)| server)
    }

    /// All servers, each once.
    pub(super) fn servers(&self) -> Vec<&Server> {
        let mut servers: Vec<_> = self.ranges.iter().map(|(_, _, server)| server).collect();
        servers.sort();
        servers.dedup();
        servers
    }

    /// How many slots nobody has.
    pub(super) fn missing(&self) -> u32 {
        let had: u32 = self.ranges.iter().map(|(first, last, _)| u32::from(last - first) + 1).sum();
        u32::from(SLOTS).saturating_sub(had)
    }

    /// The same, with one slot moved.
    pub(super) fn moved(&self, slot: u16, to: Server) -> Self {
        let mut ranges = Vec::with_capacity(self.ranges.len() + 2);
        for (first, last, server) in &self.ranges {
            if !(*first..=*last).contains(&slot) {
                ranges.push((*first, *last, server.clone()));
                continue;
            }
            if *first < slot {
                ranges.push((*first, slot - 1, server.clone()));
            }
            if slot < *last {
                ranges.push((slot + 1, *last, server.clone()));
            }
        }
        ranges.push((slot, slot, to));
        Self::of_ranges(ranges)
    }
}

/// The slot of a key: CRC-16 (XMODEM) of its hash tag, or of all of it.
///
/// A prefix with a hash tag has the slot of all its keys.
pub(super) fn slot(key: &str) -> u16 {
    let hashed = hash_tag(key).unwrap_or(key);
    hashed.bytes().fold(0u16, |crc, byte| {
        (0..8).fold(
            crc ^ (u16::from(byte) << 8),
            |crc, _| if crc & 0x8000 == 0 { crc << 1 } else { crc << 1 ^ 0x1021 },
        )
    }) % SLOTS
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(name: &str) -> Server {
        Server::Socket(name.to_owned())
    }

    #[test]
    fn slots_are_those_of_redis() {
        // As `CLUSTER KEYSLOT` answers.
        for (key, expected) in
            [("123456789", 12739), ("foo", 12182), ("{foo}:features", 12182), ("x{foo}y{z}", 12182)]
        {
            assert_eq!(slot(key), expected, "{key}");
        }
        assert_eq!(slot("{user1000}.following"), slot("{user1000}.followers"));
        assert_ne!(slot("{}a"), slot("{}b"), "an empty tag is none");
    }

    #[test]
    fn a_moved_slot_leaves_its_neighbours() {
        let layout = Layout::of_ranges(vec![(0, 8191, server("a")), (8192, 16383, server("b"))]);
        assert_eq!(layout.server("foo"), Some(&server("b")));
        let moved = layout.moved(12182, server("c"));
        assert_eq!(moved.server("foo"), Some(&server("c")));
        assert_eq!(moved.server("123456789"), Some(&server("b")));
        assert_eq!(moved.servers().len(), 3);
        let count: u32 = moved.ranges.iter().map(|(first, last, _)| u32::from(last - first) + 1).sum();
        assert_eq!(count, u32::from(SLOTS));
        assert_eq!(moved.moved(12182, server("b")), layout);
        assert_eq!(Layout::default().server("foo"), None);
        assert_eq!(Layout::single(server("a")).server("foo"), Some(&server("a")));
    }
}
