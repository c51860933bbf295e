//! A node's end of etcd: what pgha-dcs remembers from one request to the next. It is lost with the daemon.
//!
//! Which endpoint comes next, which answers are from the past and what errors mean is decided by the code that
//! pgha-dcs calls.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use pgha_core::event::OpId;
use pgha_core::horizon::{Floor, Freshness, Header, Horizon};
use pgha_core::roster::{FIRST_PAUSE, Roster};
use pgha_core::units::{LeaseId, Mono};
use pgha_wire::kv::Txn;

use crate::etcd::{MEMBERS, Time};
use crate::watch::Watch;

/// What a node wants of etcd.
#[derive(Clone, Debug)]
pub(crate) enum Wish {
    /// To read everything.
    Read,
    /// A lease.
    Grant(Time),
    /// To renew a lease.
    Keep(LeaseId),
    /// A transaction.
    Commit(Rc<Txn>),
}

impl Wish {
    /// How much of an answer's header must be up to date.
    pub fn freshness(&self) -> Freshness {
        match self {
            Wish::Read | Wish::Commit(_) => Freshness::Linearizable,
            Wish::Grant(_) | Wish::Keep(_) => Freshness::Local,
        }
    }

    /// May it be sent to another endpoint when one may have seen it?
    pub fn may_be_repeated(&self) -> bool {
        match self {
            Wish::Read | Wish::Grant(_) | Wish::Keep(_) => true,
            Wish::Commit(_) => false,
        }
    }
}

/// One call of the driver, under way.
#[derive(Debug)]
pub(crate) struct Call {
    pub op: OpId,
    pub sent_at: Mono,
    pub wish: Wish,
    /// By the node's clock.
    pub deadline: Mono,
    /// What one attempt gets.
    pub share: Duration,
    /// Which attempt this is: replies to earlier ones are dropped.
    pub attempt: u32,
    /// The member that it was sent to.
    pub member: usize,
    /// Members to be tried next in this round.
    pub order: Vec<usize>,
    /// What was known when it was sent.
    pub floor: Floor,
    /// Answers from the past in this round.
    pub refused: Vec<(String, Header)>,
    /// Pause before the next round.
    pub pause: Duration,
    /// A new token was asked for in this attempt.
    pub reauthenticated: bool,
}

/// What the daemon remembers of etcd.
#[derive(Debug)]
pub(crate) struct Client {
    pub roster: Roster<()>,
    pub horizon: Horizon,
    /// The auth revision of its token.
    pub token: u64,
    pub calls: BTreeMap<u64, Call>,
    pub watch: Watch,
    configured: Vec<String>,
    last: u64,
}

impl Client {
    /// A client that knows nothing yet and begins with a random endpoint.
    pub fn new(token: u64, dice: u64) -> Client {
        let configured: Vec<String> = (0..MEMBERS).map(url).collect();
        Client {
            roster: Roster::new(&configured, dice),
            horizon: Horizon::default(),
            token,
            calls: BTreeMap::new(),
            watch: Watch::default(),
            configured,
            last: 0,
        }
    }

    /// A new call; returns its number.
    pub fn begin(&mut self, op: OpId, sent_at: Mono, wish: Wish, budget: Duration) -> u64 {
        self.last += 1;
        let call = Call {
            op,
            sent_at,
            wish,
            deadline: sent_at.plus(budget),
            share: self.roster.share_of(budget, sent_at),
            attempt: 0,
            member: 0,
            order: self.order(sent_at),
            floor: self.horizon.floor(),
            refused: Vec::new(),
            pause: FIRST_PAUSE,
            reauthenticated: false,
        };
        self.calls.insert(self.last, call);
        self.last
    }

    /// Members in the order to try them.
    pub fn order(&self, now: Mono) -> Vec<usize> {
        let place = |url: &str| self.configured.iter().position(|u| u == url);
        self.roster.order(now).iter().filter_map(|url| place(url)).collect()
    }

    /// The member that requests go to.
    pub fn current(&self) -> usize {
        let current = self.roster.current();
        self.configured.iter().position(|u| **u == *current).unwrap_or_default()
    }

    /// A member served a request.
    pub fn succeeded(&mut self, member: usize) {
        self.roster.succeeded(&self.configured[member]);
    }

    /// A member failed.
    pub fn failed(&mut self, member: usize, now: Mono) {
        self.roster.failed(&self.configured[member], now);
    }

    /// A whole read was refused. True when the store is believed from now on.
    pub fn refused(&mut self, now: Mono, refused: &[(String, Header)]) -> bool {
        self.horizon
            .refused_round(now, pgha_core::horizon::REGRESSION_GRACE, refused, &self.configured)
    }
}

/// Url of a member.
pub(crate) fn url(member: usize) -> String {
    format!("http://etcd{}:2379", member + 1)
}
