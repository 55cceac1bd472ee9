//! What happens to bytes: rules for all clients, and for those of one process.

use std::collections::BTreeMap;
use std::time::Duration;

/// Whose connections a rule is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Client {
    /// Everybody's.
    All,
    /// Those of the process with this id.
    Process(u32),
}

/// What happens to the bytes of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Flow {
    /// They go on.
    #[default]
    Pass,
    /// They go on so much later.
    Delay(Duration),
    /// They wait, the end of the connection too, and go on when the rule is lifted: as over a network that is away for a
    /// while, which sends again what was not acknowledged.
    Hold,
    /// They are lost, the end of the connection too, while everything seems well. With this rule in one direction a
    /// connection is half open. It breaks when the rule is lifted after something was lost.
    BlackHole,
    /// They go on in writes of at most so many bytes, and nothing is written together with what follows.
    Slice(usize),
    /// So many more go on, then the connection is reset: in the middle of an event, of an answer.
    CutAfter(usize),
}

/// What happens to connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// New ones are reset as soon as they are accepted, and open ones too.
    pub refuse: bool,
    /// From the client.
    pub up: Flow,
    /// From the server.
    pub down: Flow,
}

impl Rule {
    /// All is well.
    pub const PASS: Self = Self::both(Flow::Pass);
    /// Connects are refused, and what is open is reset.
    pub const RESET: Self = Self { refuse: true, up: Flow::Pass, down: Flow::Pass };

    /// The same in both directions.
    pub const fn both(flow: Flow) -> Self {
        Self { refuse: false, up: flow, down: flow }
    }

    /// From the client only.
    pub const fn up(flow: Flow) -> Self {
        Self { up: flow, ..Self::PASS }
    }

    /// From the server only.
    pub const fn down(flow: Flow) -> Self {
        Self { down: flow, ..Self::PASS }
    }
}

/// How often rules for open connections were set so far.
type Place = u64;

/// Which connection it is, for the rules.
#[derive(Clone, Copy, Debug)]
pub(super) struct Opened {
    process: Option<u32>,
    at: Place,
}

/// All rules.
#[derive(Clone, Debug, Default)]
pub(super) struct Rules {
    always: BTreeMap<Client, Rule>,
    /// With the place that they took: they are for connections that were opened before.
    open: BTreeMap<Client, (Place, Rule)>,
    place: Place,
}

impl Rules {
    pub(super) fn set(&mut self, client: Client, rule: Rule) {
        self.always.insert(client, rule);
    }

    pub(super) fn set_for_open(&mut self, client: Client, rule: Rule) {
        self.place += 1;
        self.open.insert(client, (self.place, rule));
    }

    pub(super) fn clear(&mut self) {
        self.always.clear();
        self.open.clear();
    }

    /// What tells a connection that is opened now from others.
    pub(super) fn opened(&self, process: Option<u32>) -> Opened {
        Opened { process, at: self.place }
    }

    /// The rule for a connection: that for open ones, then that of its process, then that of all.
    pub(super) fn of(&self, opened: Opened) -> Rule {
        let clients = || opened.process.map(Client::Process).into_iter().chain([Client::All]);
        let open = clients().find_map(|client| self.open.get(&client).filter(|(place, _)| opened.at < *place));
        let always = || clients().find_map(|client| self.always.get(&client));
        open.map(|(_, rule)| rule).or_else(always).copied().unwrap_or(Rule::PASS)
    }
}
