//! The session and a model of control, over any sequence of changes, losses and waits: in the end what runs is what
//! control wants, and control knows the last of every report.

use std::collections::BTreeMap;
use std::time::Duration;

use flotilla_proto::session::{Assignment, ControlMessage, Removal, Update, Welcome, WorkerMessage};
use flotilla_proto::{EnvironmentReport, HeldGrant, Term, Timestamp};
use proptest::prelude::*;

use super::testing::{FLEET, assignment, memory, profile, report};
use super::{Effect, Input, Session};

const NAMES: [&str; 3] = ["a", "b", "c"];

#[derive(Debug, Clone)]
enum Happening {
    /// Control grants the environment anew.
    Grant(usize),
    /// Control gives the name to another environment.
    Recreate(usize),
    /// Control takes it away.
    Remove(usize),
    /// The environment's count of flags changes, and maybe something that matters.
    Report(usize, u64, bool),
    /// The environment asks about its grant.
    Confirm(usize),
    /// The stream breaks.
    Lose,
    /// Nothing happens for a time.
    Wait(u64),
}

fn happenings() -> impl Strategy<Value = Vec<Happening>> {
    let name = 0..NAMES.len();
    let one = prop_oneof![
        3 => name.clone().prop_map(Happening::Grant),
        1 => name.clone().prop_map(Happening::Recreate),
        1 => name.clone().prop_map(Happening::Remove),
        4 => (name.clone(), 0..9_u64, any::<bool>()).prop_map(|(name, flags, matters)| Happening::Report(name, flags, matters)),
        2 => name.prop_map(Happening::Confirm),
        1 => Just(Happening::Lose),
        3 => (0..4_000_u64).prop_map(Happening::Wait),
    ];
    proptest::collection::vec(one, 0..60)
}

/// Both ends, and what each knows.
struct Pair {
    session: Session,
    now: Timestamp,
    is_open: bool,
    /// What control wants.
    desired: BTreeMap<String, Assignment>,
    /// What control knows.
    known: BTreeMap<String, EnvironmentReport>,
    /// What runs on the worker, by the effects it was given.
    running: BTreeMap<String, Assignment>,
    /// What the environments said last.
    said: BTreeMap<String, EnvironmentReport>,
    confirm_under_way: bool,
    epoch: u64,
    nonce: u64,
}

impl Pair {
    fn new(cached: Vec<Assignment>) -> Self {
        let now = Timestamp(5_000_000);
        Self {
            session: Session::new(profile(), Some(memory(cached)), now),
            now,
            is_open: false,
            desired: BTreeMap::new(),
            known: BTreeMap::new(),
            running: BTreeMap::new(),
            said: BTreeMap::new(),
            confirm_under_way: false,
            epoch: 10,
            nonce: 0,
        }
    }

    fn step(&mut self, input: Input) {
        for effect in self.session.step(self.now, input) {
            match effect {
                Effect::Start(assignment) => {
                    self.said.remove(assignment.environment.as_str());
                    self.running.insert(assignment.environment.to_string(), assignment.as_ref().clone());
                }
                Effect::Reassign(assignment) => {
                    let before =
                        self.running.insert(assignment.environment.to_string(), assignment.as_ref().clone());
                    assert_eq!(before.expect("only what runs is reassigned").uid, assignment.uid);
                }
                Effect::Stop(environment) => {
                    self.said.remove(environment.as_str());
                    self.running.remove(environment.as_str()).expect("only what runs is stopped");
                }
                Effect::Send(message) => self.control_hears(message),
                Effect::Close(_) => self.is_open = false,
                Effect::AnswerUpdate { rejections, .. } => assert!(rejections.is_empty()),
                Effect::Confirmed { .. } | Effect::TellControlState | Effect::Save => {}
                Effect::Ask { .. } | Effect::End(_) => panic!("not in this script: {effect:?}"),
            }
        }
    }

    fn control_hears(&mut self, message: WorkerMessage) {
        match message {
            WorkerMessage::Hello(hello) => self.welcome(&hello.held),
            WorkerMessage::Report(reports) => {
                assert!(!reports.is_empty());
                for report in reports {
                    self.known.insert(report.environment.to_string(), report);
                }
            }
            WorkerMessage::Heartbeat => self.step(Input::Received(ControlMessage::HeartbeatReply)),
            WorkerMessage::Confirm { id, grants } => {
                assert!(!std::mem::replace(&mut self.confirm_under_way, true), "one at a time");
                let grants = grants.into_iter().map(|held| held.grant.id).collect();
                self.confirm_under_way = false;
                self.step(Input::Received(ControlMessage::Confirmed { id, grants }));
            }
            other => panic!("not in this script: {other:?}"),
        }
    }

    fn welcome(&mut self, held: &[HeldGrant]) {
        self.step(Input::Received(ControlMessage::Welcome(Welcome {
            fleet: FLEET.parse().unwrap(),
            term: Term(6),
            heartbeat_interval: Duration::from_secs(3),
            lease_duration: Duration::from_secs(15),
        })));
        let is_wanted = |held: &&HeldGrant| {
            self.desired.get(held.environment.as_str()).is_some_and(|wanted| wanted.uid == held.uid)
        };
        let removals = held
            .iter()
            .filter(|held| !is_wanted(held))
            .map(|held| Removal { environment: held.environment.clone(), uid: held.uid.clone() })
            .collect();
        self.update(self.desired.values().cloned().collect(), removals);
        self.step(Input::Received(ControlMessage::InitialStateComplete));
    }

    fn update(&mut self, assignments: Vec<Assignment>, removals: Vec<Removal>) {
        self.nonce += 1;
        let assignments = assignments.into_iter().map(Ok).collect();
        let update = Update { nonce: self.nonce, assignments, removals };
        self.step(Input::Received(ControlMessage::Update(update)));
    }

    fn want(&mut self, name: &str, uid: &str) {
        self.epoch += 1;
        let wanted = assignment(name, uid, self.epoch);
        let before = self.desired.insert(name.to_owned(), wanted.clone());
        if self.is_open {
            let gone = before.filter(|before| before.uid != wanted.uid);
            let removals = gone.map(|gone| Removal { environment: gone.environment, uid: gone.uid });
            self.update(vec![wanted], removals.into_iter().collect());
        }
    }

    fn open(&mut self) {
        if !self.is_open {
            self.is_open = true;
            self.step(Input::Opened);
        }
    }

    fn wait(&mut self, time: Duration) {
        let end = self.now.after(time);
        while let Some(deadline) = self.session.next_deadline().filter(|deadline| *deadline <= end) {
            self.now = self.now.max(deadline);
            self.step(Input::TimePassed);
        }
        self.now = end;
    }

    fn happens(&mut self, happening: &Happening) {
        match *happening {
            Happening::Grant(name) => {
                let uid =
                    self.desired.get(NAMES[name]).map_or_else(|| "u0".to_owned(), |held| held.uid.to_string());
                self.want(NAMES[name], &uid);
            }
            Happening::Recreate(name) => self.want(NAMES[name], &format!("u{}", self.epoch)),
            Happening::Remove(name) => {
                if let Some(gone) = self.desired.remove(NAMES[name])
                    && self.is_open
                {
                    self.update(vec![], vec![Removal { environment: gone.environment, uid: gone.uid }]);
                }
            }
            Happening::Report(name, flags, matters) => {
                if let Some(running) = self.running.get(NAMES[name]) {
                    let status = EnvironmentReport { flags, store_available: Some(matters), ..report(running) };
                    self.said.insert(NAMES[name].to_owned(), status.clone());
                    self.step(Input::Reported(Box::new(status)));
                }
            }
            Happening::Confirm(name) => {
                if let Some(running) = self.running.get(NAMES[name]) {
                    let held = HeldGrant {
                        environment: running.environment.clone(),
                        uid: running.uid.clone(),
                        generation: running.generation,
                        grant: running.grant.clone(),
                    };
                    self.step(Input::ConfirmWanted(held));
                }
            }
            Happening::Lose => {
                self.is_open = false;
                // A control that starts again knows nothing.
                self.known.clear();
                self.step(Input::Closed);
            }
            Happening::Wait(millis) => {
                self.wait(Duration::from_millis(millis));
                self.open();
            }
        }
    }
}

proptest! {
    #[test]
    fn both_agree_in_the_end(cached in 0..=NAMES.len(), script in happenings()) {
        let cached = NAMES[..cached].iter().map(|name| assignment(name, "u0", 1)).collect();
        let mut pair = Pair::new(cached);
        for happening in &script {
            pair.happens(happening);
        }
        pair.open();
        pair.wait(Duration::from_secs(11));
        prop_assert_eq!(&pair.running, &pair.desired);
        pair.known.retain(|name, known| pair.said.get(name).is_some_and(|said| said.uid == known.uid));
        prop_assert_eq!(&pair.known, &pair.said);
    }
}
