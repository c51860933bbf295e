//! Requests of nodes to etcd, and what becomes of them on the way: the adversary between store and nodes.
//!
//! A request travels to one member, is served when it arrives, and the reply travels back. Each way may fail by itself.
//! What the driver is told in the end is what pgha-dcs would tell it: answers from the past are dropped, harmless requests
//! are repeated elsewhere, a transaction that somebody may have seen is not.

use std::rc::Rc;
use std::time::Duration;

use pgha_core::cluster::ClusterView;
use pgha_core::commit::{Commit, CommitOutcome};
use pgha_core::event::{Event, KeepAnswer, OpId};
use pgha_core::horizon::{Freshness, Header, Regression};
use pgha_core::roster::{MAX_PAUSE, SHORTEST_REST};
use pgha_core::units::{LeaseId, Revision};
use pgha_wire::cluster::{parse_cluster, parse_keys};
use pgha_wire::commit::{MemberIdentity, render_txn};
use pgha_wire::meaning::Meaning;

use crate::client::{Client, Wish, url};
use crate::etcd::{Asked, MEMBERS, Reply, Said, Time, understood};
use crate::planted::WorldDefect;
use crate::world::{BASE, Happening, LEADER_KEY, MS, PREFIX, SEC, World};

/// How far back a stale read looks at most.
const STALE_BY: Time = 5 * SEC;

/// What a request came to when it reached the store, with the state it read.
#[derive(Debug)]
pub(crate) struct Answered {
    reply: Reply,
    state: Option<Rc<ClusterView>>,
}

/// One attempt of one call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ticket {
    pub node: usize,
    pub epoch: u64,
    pub call: u64,
    pub attempt: u32,
}

/// How a call ended.
enum Ended {
    State(Rc<ClusterView>),
    Granted(LeaseId),
    Kept(bool),
    Committed(CommitOutcome),
    /// No answer that could be handed on.
    Nothing,
}

impl World {
    /// `Effect::ReadDcs`, `GrantLease`, `KeepLease`.
    pub(crate) fn ask_etcd(&mut self, i: usize, op: OpId, wish: Wish, budget: Duration) {
        let sent_at = self.boot(i);
        let call = self.nodes[i].client.begin(op, sent_at, wish, budget);
        self.next_attempt(i, call);
    }

    /// `Effect::Commit`.
    pub(crate) fn send_commit(&mut self, i: usize, op: OpId, commit: &Commit, budget: Duration) {
        let name = self.nodes[i].name.clone();
        let spec = self.plan.settings.node_spec(i, &name);
        let me = MemberIdentity {
            name: &name,
            conn_url: &spec.conn_url,
            api_url: &spec.api_url,
            proxy_url: None,
            version: "4.1.5",
            tags: &spec.tags,
        };
        let txn = Rc::new(render_txn(BASE, &me, commit));
        self.ask_etcd(i, op, Wish::Commit(txn), budget);
    }

    /// Sends a call to the next member in its order, or ends it.
    fn next_attempt(&mut self, i: usize, number: u64) {
        let now = self.boot(i);
        let keeps_to_one = self.suffers(WorldDefect::OneMemberAsked);
        let node = &mut self.nodes[i];
        let epoch = node.epoch;
        let Some(call) = node.client.calls.get_mut(&number) else {
            return;
        };
        let left = call.deadline.since(now);
        if left < SHORTEST_REST {
            return self.give_up(i, number);
        }
        if call.order.is_empty() {
            return self.round_is_over(i, number);
        }
        call.member = call.order.remove(0);
        if keeps_to_one {
            call.member = i % MEMBERS;
        }
        call.floor = node.client.horizon.floor();
        call.reauthenticated = false;
        let allowed = match call.wish.may_be_repeated() {
            true => call.share.min(left),
            false => left,
        };
        self.dispatch(i, epoch, number, allowed);
    }

    /// All members were tried: the next round begins after a pause, if there is time for it.
    fn round_is_over(&mut self, i: usize, number: u64) {
        let now = self.boot(i);
        let node = &mut self.nodes[i];
        let epoch = node.epoch;
        let order = node.client.order(now);
        let Some(call) = node.client.calls.get_mut(&number) else {
            return;
        };
        let over = call.deadline.since(now) < call.pause + SHORTEST_REST;
        // Members that are behind do not catch up by being asked again at once.
        if over || !call.refused.is_empty() || !call.wish.may_be_repeated() {
            return self.give_up(i, number);
        }
        let again = now.plus(call.pause);
        call.pause = (call.pause * 2).min(MAX_PAUSE);
        call.order = order;
        call.attempt += 1;
        let attempt = call.attempt;
        let when = self.nodes[i].clock.when(again);
        let ticket = Ticket {
            node: i,
            epoch,
            call: number,
            attempt,
        };
        self.at(when, Happening::Impatient { ticket, paused: true });
    }

    /// No admissible answer came.
    fn give_up(&mut self, i: usize, number: u64) {
        let now = self.boot(i);
        let client = &mut self.nodes[i].client;
        let Some(call) = client.calls.get_mut(&number) else {
            return;
        };
        let refused = std::mem::take(&mut call.refused);
        let ended = match &call.wish {
            Wish::Commit(_) => Ended::Committed(CommitOutcome::Refused),
            Wish::Read | Wish::Grant(_) | Wish::Keep(_) => Ended::Nothing,
        };
        if call.wish.freshness() == Freshness::Linearizable && !refused.is_empty() && client.refused(now, &refused) {
            self.count("restored or replaced etcd accepted");
            self.note(|| format!("n{} accepts the store that took the place of the old one", i + 1));
        }
        self.end_call(i, number, ended);
    }

    /// One request on its way to one member.
    fn dispatch(&mut self, i: usize, epoch: u64, number: u64, allowed: Duration) {
        let now = self.boot(i);
        let Some(call) = self.nodes[i].client.calls.get_mut(&number) else {
            return;
        };
        call.attempt += 1;
        let (attempt, member, wish) = (call.attempt, call.member, call.wish.clone());
        let ticket = Ticket {
            node: i,
            epoch,
            call: number,
            attempt,
        };
        let patience = self.nodes[i].clock.when(now.plus(allowed));
        self.at(patience, Happening::Impatient { ticket, paused: false });
        let token = self.nodes[i].client.token;
        let settings = &self.plan.settings;
        let (lost, delayed, twice) = (
            settings.lost_request_per_mille,
            settings.delayed_per_mille,
            settings.duplicated_per_mille,
        );
        let is_write = matches!(wish, Wish::Commit(_));
        if self.network.chance(lost) {
            self.count("request to etcd lost");
            return;
        }
        let mut there = self.latency();
        if is_write && self.network.chance(delayed) {
            // On its way while its sender gives up.
            there = patience.saturating_sub(self.now) + self.network.range(0, 3 * SEC);
            self.count("write applied after its time-out");
        }
        if is_write && self.network.chance(twice) {
            self.count("write applied twice");
            let again = self.now + there + self.network.range(MS, 3 * SEC);
            let second = Ticket {
                attempt: u32::MAX,
                ..ticket
            };
            let wish = wish.clone();
            self.at(
                again,
                Happening::Request {
                    ticket: second,
                    member,
                    token,
                    wish,
                },
            );
        }
        self.at(
            self.now + there,
            Happening::Request {
                ticket,
                member,
                token,
                wish,
            },
        );
    }

    /// A request reaches a member, if anything does.
    pub(crate) fn request_arrives(&mut self, ticket: Ticket, member: usize, token: u64, wish: &Wish) {
        if !self.reaches_member(ticket.node, member) {
            return;
        }
        let stale = match wish {
            Wish::Read if self.etcd.buggy && self.network.chance(self.plan.settings.stale_read_per_mille) => {
                let back = self.network.range(0, STALE_BY);
                self.count("stale linearizable read");
                Some(self.etcd.revision_at(self.now.saturating_sub(back)))
            }
            Wish::Read | Wish::Grant(_) | Wish::Keep(_) | Wish::Commit(_) => None,
        };
        let asked = match wish {
            Wish::Read => Asked::Read { stale },
            Wish::Grant(ttl) => Asked::Grant(*ttl),
            Wish::Keep(lease) => Asked::Keep(*lease),
            Wish::Commit(txn) => Asked::Commit(txn),
        };
        let before = self.etcd.revision();
        let mut reply = self.etcd.serve(self.now, member, token, asked);
        if self.etcd.revision() != before {
            self.tell_watches();
        }
        let lies = self.plan.settings.false_keepalive_per_mille;
        if let Reply::Answer(header, Said::Kept(false)) = reply
            && self.network.chance(lies)
        {
            self.count("keepalive success on a revoked lease");
            reply = Reply::Answer(header, Said::Kept(true));
        }
        let state = match reply {
            Reply::Answer(_, Said::State(revision)) => {
                Some(self.cluster_at(revision).unwrap_or_else(|| self.read_cluster()))
            }
            Reply::Answer(..) | Reply::Error(_) | Reply::NobodyThere => None,
            Reply::Silence => return,
        };
        let heard = self.hears_member(ticket.node, member);
        if !heard || self.network.chance(self.plan.settings.lost_reply_per_mille) {
            if let Reply::Answer(_, Said::Committed(Some(_))) = reply {
                self.count("write applied, answer lost");
            }
            // Some of those that are lost come after all, when nobody waits for them any more.
            if !heard || self.network.chance(700) {
                return;
            }
            self.count("answer after the time-out");
            let after = self.network.range(SEC, 40 * SEC);
            let answered = Box::new(Answered { reply, state });
            return self.at(self.now + after, Happening::Response { ticket, answered });
        }
        let back = self.latency();
        let answered = Box::new(Answered { reply, state });
        self.at(self.now + back, Happening::Response { ticket, answered });
    }

    /// A reply reaches a node: it is taken only by the attempt that it belongs to.
    pub(crate) fn response_arrives(&mut self, ticket: Ticket, answered: Answered) {
        let Ticket {
            node: i, call: number, ..
        } = ticket;
        if !self.waits(ticket) {
            return;
        }
        let now = self.boot(i);
        match answered.reply {
            Reply::Answer(header, said) => self.take_answer(i, number, header, said, answered.state),
            Reply::Error(text) => self.take_error(i, number, text),
            Reply::NobodyThere => {
                let client = &mut self.nodes[i].client;
                if let Some(member) = client.calls.get(&number).map(|call| call.member) {
                    client.failed(member, now);
                }
                self.next_attempt(i, number);
            }
            Reply::Silence => {}
        }
    }

    /// An attempt has had its time, or a pause is over.
    pub(crate) fn impatient(&mut self, ticket: Ticket, paused: bool) {
        if !self.waits(ticket) {
            return;
        }
        let Ticket {
            node: i, call: number, ..
        } = ticket;
        if !paused {
            let now = self.boot(i);
            let client = &mut self.nodes[i].client;
            let Some((member, repeatable)) = client.calls.get(&number).map(|c| (c.member, c.wish.may_be_repeated()))
            else {
                return;
            };
            client.failed(member, now);
            if !repeatable {
                return self.end_call(i, number, Ended::Committed(CommitOutcome::Unknown));
            }
        }
        self.next_attempt(i, number);
    }

    fn waits(&self, ticket: Ticket) -> bool {
        let node = &self.nodes[ticket.node];
        let call = node.client.calls.get(&ticket.call);
        node.epoch == ticket.epoch && call.is_some_and(|call| call.attempt == ticket.attempt)
    }

    fn take_answer(&mut self, i: usize, number: u64, header: Header, said: Said, state: Option<Rc<ClusterView>>) {
        let now = self.boot(i);
        let believes = self.suffers(WorldDefect::PastBelieved);
        let client = &mut self.nodes[i].client;
        let Some(call) = client.calls.get_mut(&number) else {
            return;
        };
        let member = call.member;
        let admitted = client.horizon.admit(call.floor, header, call.wish.freshness());
        if let Err(regression) = admitted
            && !believes
        {
            let repeatable = call.wish.may_be_repeated();
            match regression {
                Regression::Overtaken => {}
                Regression::Cluster { .. } | Regression::Term { .. } | Regression::Revision { .. } => {
                    call.refused.push((url(member), header));
                }
            }
            if repeatable {
                client.failed(member, now);
            }
            self.count("answer from the past dropped");
            return match repeatable {
                true => self.next_attempt(i, number),
                // It was written to, or compared with, something that is not the cluster we know.
                false => self.end_call(i, number, Ended::Committed(CommitOutcome::Unknown)),
            };
        }
        client.succeeded(member);
        let ended = match said {
            Said::State(_) => state.map_or(Ended::Nothing, Ended::State),
            Said::Granted(lease) => Ended::Granted(lease),
            Said::Kept(alive) => Ended::Kept(alive),
            Said::Committed(Some(revision)) => Ended::Committed(CommitOutcome::Applied {
                revision: Revision(revision),
            }),
            Said::Committed(None) => Ended::Committed(CommitOutcome::Conflict),
        };
        self.end_call(i, number, ended);
    }

    fn take_error(&mut self, i: usize, number: u64, text: &'static str) {
        self.count(format!("etcd: {text}"));
        let now = self.boot(i);
        let reading = understood(text);
        let authenticated = self.etcd.authenticate();
        let reachable = {
            let member = self.nodes[i].client.calls.get(&number).map_or(0, |call| call.member);
            self.reaches_member(i, member) && self.hears_member(i, member)
        };
        let renews = !self.suffers(WorldDefect::TokenNeverRenewed);
        let node = &mut self.nodes[i];
        let epoch = node.epoch;
        let Some(call) = node.client.calls.get_mut(&number) else {
            return;
        };
        let may_help = matches!(reading.meaning, Meaning::TokenRejected | Meaning::Denied);
        if may_help && !call.reauthenticated && reachable && renews {
            call.reauthenticated = true;
            match authenticated {
                Ok(token) => {
                    let left = call.deadline.since(now);
                    let allowed = match call.wish.may_be_repeated() {
                        true => call.share.min(left),
                        false => left,
                    };
                    node.client.token = token;
                    self.count("authenticated again");
                    return self.dispatch(i, epoch, number, allowed);
                }
                Err(text) => self.count(format!("etcd: {text}")),
            }
        }
        let client = &mut self.nodes[i].client;
        let Some(call) = client.calls.get(&number) else {
            return;
        };
        let (member, repeatable) = (call.member, call.wish.may_be_repeated());
        if repeatable {
            if reading.meaning.elsewhere_may_help() {
                client.failed(member, now);
                return self.next_attempt(i, number);
            }
            return self.end_call(i, number, Ended::Nothing);
        }
        let outcome = reading.ends_commit();
        if outcome == Some(CommitOutcome::Unknown) {
            client.failed(member, now);
        }
        match outcome {
            Some(outcome) => self.end_call(i, number, Ended::Committed(outcome)),
            None => self.next_attempt(i, number),
        }
    }

    /// The driver is told.
    fn end_call(&mut self, i: usize, number: u64, ended: Ended) {
        let node = &mut self.nodes[i];
        let epoch = node.epoch;
        let Some(call) = node.client.calls.remove(&number) else {
            return;
        };
        let (op, sent_at) = (call.op, call.sent_at);
        let event = match (&call.wish, ended) {
            (Wish::Read, Ended::State(view)) => Event::DcsRead {
                op,
                sent_at,
                view: Some(Box::new((*view).clone())),
            },
            (Wish::Read, _) => Event::DcsRead {
                op,
                sent_at,
                view: None,
            },
            (Wish::Grant(_), Ended::Granted(lease)) => Event::LeaseGranted {
                op,
                sent_at,
                lease: Some(lease),
            },
            (Wish::Grant(_), _) => Event::LeaseGranted {
                op,
                sent_at,
                lease: None,
            },
            (Wish::Keep(_), ended) => Event::LeaseKept {
                op,
                sent_at,
                answer: match ended {
                    Ended::Kept(true) => KeepAnswer::Alive,
                    Ended::Kept(false) => KeepAnswer::Gone,
                    _ => KeepAnswer::Unknown,
                },
            },
            (Wish::Commit(_), Ended::Committed(outcome)) => Event::Committed { op, sent_at, outcome },
            (Wish::Commit(_), _) => Event::Committed {
                op,
                sent_at,
                outcome: CommitOutcome::Unknown,
            },
        };
        self.later(i, epoch, 0, event);
    }

    /// A daemon begins with a client that has seen nothing.
    pub(crate) fn new_client(&mut self, i: usize) {
        let dice = self.network.draw();
        // The first token is asked for together with the first connection.
        let token = self.etcd.authenticate().unwrap_or(0);
        self.nodes[i].client = Client::new(token, dice);
    }

    /// The cluster as etcd has it. It is parsed once per revision, however many read it.
    pub fn read_cluster(&self) -> Rc<ClusterView> {
        let mut parsed = self.parsed.borrow_mut();
        let (generation, revision) = (self.etcd.generation(), Revision(self.etcd.revision()));
        if parsed.0 != generation {
            *parsed = (generation, Rc::default());
        }
        if parsed.1.revision != revision {
            let keys = self.etcd.keys_below(PREFIX);
            parsed.1 = Rc::new(parse_keys(BASE, revision, keys, &parsed.1));
        }
        Rc::clone(&parsed.1)
    }

    /// The cluster at a revision; `None` when etcd does not know any more.
    pub(crate) fn cluster_at(&self, revision: i64) -> Option<Rc<ClusterView>> {
        if revision == self.etcd.revision() {
            return Some(self.read_cluster());
        }
        let snapshot = self.etcd.read_at(PREFIX, revision).ok()?;
        Some(Rc::new(parse_cluster(BASE, &snapshot)))
    }

    /// Who holds the leader key in etcd.
    pub fn leader(&self) -> Option<usize> {
        let kv = self.etcd.get(LEADER_KEY)?;
        self.nodes.iter().position(|n| n.name.as_str().as_bytes() == kv.value)
    }

    /// Time passes for the store.
    pub(crate) fn etcd_passes(&mut self) {
        if !self.etcd_is_down() {
            let before = (self.etcd.revision(), self.etcd.members.term());
            self.etcd.pass(self.now);
            if self.etcd.members.term() != before.1 {
                self.count("etcd elected a leader");
            }
            if self.etcd.revision() != before.0 {
                self.tell_watches();
            }
        }
        self.tend_watches();
        self.at(self.now + 250 * MS, Happening::Leases);
    }
}
