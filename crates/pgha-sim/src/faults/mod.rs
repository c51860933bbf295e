//! The adversary: every kind of thing that can go wrong, or that an operator may ask for.
//!
//! A kind is one [`FaultKind`] in the list of its concern. Its `form` is its text form: plain words are themselves, words
//! in capitals are [`Slot`]s. Reading, writing, drawing and counting follow from it, so a new kind is a new entry with two
//! functions.

mod archive;
mod clock;
mod etcd;
mod network;
mod operator;
mod postgres;
mod process;
mod real;
mod synchronous;

pub(crate) use operator::Operator;
pub(crate) use synchronous::KINDS as SYNCHRONOUS;

use crate::etcd::Time;
use crate::plan::{Lasts, Target};
use crate::settings::SimSettings;
use crate::world::{Happening, World};

/// One kind of fault.
#[derive(Debug)]
pub struct FaultKind {
    /// Its name in counters.
    pub name: &'static str,
    /// Its text form, without `at` and `for`.
    pub form: &'static str,
    /// Has it an end?
    pub span: Span,
    /// From where to where the slot `NUMBER` or `TIME` (milliseconds) is drawn.
    pub range: (i64, i64),
    /// How often it is drawn compared with others; 0: never.
    pub weight: u64,
    /// It begins.
    pub begin: fn(&mut World, &Hit),
    /// It ends.
    pub end: fn(&mut World, &Hit),
}

/// Has a fault an end?
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Span {
    /// It happens once.
    Instant,
    /// It lasts, and ends with all others at the latest.
    Passing,
    /// It lasts, and one of its kind may last for ever: the others can do without that node.
    Lasting,
}

/// A place in a text form that is filled per fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Slot {
    /// `NODE`: `n1`, `leader`, `standby` or `synchronous`.
    Node,
    /// `OTHER`: a second node.
    Other,
    /// `TIME`: a signed duration.
    Time,
    /// `NUMBER`: a signed number.
    Number,
}

/// Whom and what a fault hit, once it began.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Hit {
    /// `NODE`.
    pub node: usize,
    /// `OTHER`.
    pub other: usize,
    /// `NUMBER`, or `TIME` in milliseconds.
    pub number: i64,
}

/// For faults that happen once.
pub(crate) fn nothing(_: &mut World, _: &Hit) {}

/// All kinds, by concern.
pub fn kinds() -> impl Iterator<Item = &'static FaultKind> {
    [
        process::KINDS,
        network::KINDS,
        etcd::KINDS,
        postgres::KINDS,
        clock::KINDS,
        operator::KINDS,
        real::KINDS,
        postgres::LATER_KINDS,
        archive::KINDS,
        synchronous::KINDS,
    ]
    .into_iter()
    .flatten()
}

impl FaultKind {
    /// Does this kind exist in a cluster with these settings? What cannot happen takes no draw from those that can.
    pub fn is_possible(&self, settings: &SimSettings) -> bool {
        settings.archive || !archive::KINDS.contains(self)
    }
    /// The words of the text form; `Err` is a plain word.
    pub fn words(&self) -> impl Iterator<Item = Result<Slot, &'static str>> {
        self.form.split(' ').map(|word| match word {
            "NODE" => Ok(Slot::Node),
            "OTHER" => Ok(Slot::Other),
            "TIME" => Ok(Slot::Time),
            "NUMBER" => Ok(Slot::Number),
            plain => Err(plain),
        })
    }
    /// Has it this slot?
    pub fn has(&self, slot: Slot) -> bool {
        self.words().any(|word| word == Ok(slot))
    }
}

impl PartialEq for FaultKind {
    fn eq(&self, other: &FaultKind) -> bool {
        self.form == other.form
    }
}

impl World {
    /// Puts the plan on the calendar.
    pub(crate) fn schedule_plan(&mut self) {
        for number in 0..self.plan.faults.len() {
            self.at(self.plan.faults[number].at, Happening::FaultBegins(number));
        }
    }

    pub(crate) fn fault_begins(&mut self, number: usize) {
        let fault = self.plan.faults[number].clone();
        let node = fault.node.map_or(0, |t| self.resolve(t));
        let other = fault.other.map_or(node, |t| self.resolve(t));
        if fault.other.is_some() && node == other {
            return;
        }
        let hit = Hit {
            node,
            other,
            number: fault.number.unwrap_or(0),
        };
        self.count(fault.kind.name);
        self.note(|| format!("fault: {fault} (n{})", node + 1));
        (fault.kind.begin)(self, &hit);
        if fault.kind.span == Span::Instant {
            return;
        }
        self.active.insert(number, hit);
        if let Lasts::For(lasts) = fault.lasts {
            self.at(self.now + lasts, Happening::FaultEnds(number));
        }
    }

    pub(crate) fn fault_ends(&mut self, number: usize) {
        if let Some(hit) = self.active.remove(&number) {
            let kind = self.plan.faults[number].kind;
            self.note(|| format!("fault ends: {} (n{})", kind.name, hit.node + 1));
            (kind.end)(self, &hit);
        }
    }

    /// Ends all faults but those that last for ever, and all chance faults.
    pub fn heal(&mut self) {
        let over: Vec<usize> = self.active.keys().copied().collect();
        for number in over {
            if self.plan.faults[number].lasts != Lasts::Ever {
                self.fault_ends(number);
            }
        }
        self.plan.settings.calm_down();
        self.etcd.buggy = false;
    }

    /// Which node a target means now.
    fn resolve(&self, target: Target) -> usize {
        match target {
            Target::Node(i) => i.min(self.nodes.len() - 1),
            Target::Leader => self.leader().unwrap_or(0),
            Target::Standby => self.any_standby(),
            Target::Synchronous => {
                let cluster = self.read_cluster();
                let named = cluster.sync.as_ref().and_then(|s| s.standbys.first());
                let node = self.nodes.iter().position(|n| Some(&n.name) == named);
                node.unwrap_or_else(|| self.any_standby())
            }
        }
    }

    fn any_standby(&self) -> usize {
        let leader = self.leader();
        (0..self.nodes.len()).find(|i| Some(*i) != leader).unwrap_or(0)
    }

    /// Nodes beside this one.
    pub(crate) fn others(&self, i: usize) -> impl Iterator<Item = usize> + use<> {
        (0..self.nodes.len()).filter(move |n| *n != i)
    }
}

/// Time from milliseconds.
pub(crate) fn millis(ms: i64) -> Time {
    Time::try_from(ms).unwrap_or(0) * crate::world::MS
}
