//! Requests between members that bind whoever answers: a leader without etcd asks for leave to go on. Question and answer
//! travel each for itself and may get lost or come late, so that a word can be given that nobody hears of.

use std::collections::BTreeMap;
use std::time::Duration;

use pgha_core::event::{Event, OpId};
use pgha_core::failsafe::{Ack, Question, Reply, Verdict};
use pgha_core::request::{Request, RequestId};
use pgha_core::units::{MemberName, Mono};

use crate::etcd::Time;
use crate::rng::{Rng, Stream};
use crate::world::{Happening, MS, World, nanos};

/// Numbers of requests from here on are questions between members; those below are of operators.
const FIRST_ID: u64 = 1 << 40;
/// The latest that something comes which comes late.
const LATE: Time = 6_000 * MS;

/// What is under way between members.
#[derive(Debug)]
pub struct Rest {
    rng: Rng,
    next: u64,
    rounds: BTreeMap<u64, Round>,
    /// By request: round, and whom it was sent to.
    sent: BTreeMap<RequestId, (u64, usize)>,
}

/// One leader asks all.
#[derive(Debug)]
struct Round {
    node: usize,
    epoch: u64,
    op: OpId,
    sent_at: Mono,
    replies: BTreeMap<MemberName, Reply>,
    waiting: usize,
}

/// What happens to them.
#[derive(Debug)]
pub(crate) enum RestEvent {
    /// A question reaches a machine.
    Question {
        from: usize,
        to: usize,
        id: RequestId,
        question: Box<Question>,
    },
    /// An answer reaches the machine that asked.
    Answer { id: RequestId, reply: Reply },
    /// The time of a round is used up.
    Over { round: u64 },
}

impl Rest {
    /// Nothing is under way.
    pub fn new(seed: u64) -> Rest {
        Rest {
            rng: Rng::new(seed, Stream::Rest),
            next: FIRST_ID,
            rounds: BTreeMap::new(),
            sent: BTreeMap::new(),
        }
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }
}

impl World {
    /// A leader without etcd asks these members.
    pub(crate) fn ask_failsafe(
        &mut self,
        i: usize,
        op: OpId,
        peers: &[(MemberName, String)],
        question: &Question,
        budget: Duration,
    ) {
        let round = self.rest.number();
        self.rest.rounds.insert(
            round,
            Round {
                node: i,
                epoch: self.nodes[i].epoch,
                op,
                sent_at: self.boot(i),
                replies: peers.iter().map(|(name, _)| (name.clone(), Reply::Silent)).collect(),
                waiting: peers.len(),
            },
        );
        for (name, _) in peers {
            let Some(to) = self.nodes.iter().position(|n| n.name == *name) else {
                continue;
            };
            let id = RequestId(self.rest.number());
            self.rest.sent.insert(id, (round, to));
            let mut question = Box::new(question.clone());
            question.addressee = Some(("sim".into(), name.clone()));
            if let Some(after) = self.way(i, to) {
                let event = RestEvent::Question {
                    from: i,
                    to,
                    id,
                    question,
                };
                self.at(self.now + after, Happening::Rest(event));
            }
        }
        let time = if peers.is_empty() { MS } else { nanos(budget) };
        self.at(self.now + time, Happening::Rest(RestEvent::Over { round }));
    }

    /// How long something is under way between two members; `None` when it gets lost.
    fn way(&mut self, from: usize, to: usize) -> Option<Time> {
        let settings = &self.plan.settings;
        let rest = &mut self.rest;
        if !self.links.passes(from, to) || rest.rng.chance(settings.lost_rest_per_mille) {
            return None;
        }
        let late = rest.rng.chance(settings.slow_rest_per_mille);
        Some(rest.rng.range(MS, if late { LATE } else { 5 * MS }))
    }

    pub(crate) fn rest_happens(&mut self, event: RestEvent) {
        match event {
            RestEvent::Question { from, to, id, question } => {
                if self.nodes[to].agent.is_none() {
                    // The kernel refuses the connection, which is heard at once.
                    return self.send_reply(id, to, from, Reply::Silent);
                }
                let request = Request::Failsafe(*question);
                self.send(to, Event::Requested { id, request });
            }
            RestEvent::Answer { id, reply } => self.reply_arrives(id, reply),
            RestEvent::Over { round } => self.end_round(round),
        }
    }

    /// A daemon answers a question of another.
    pub(crate) fn answered_failsafe(&mut self, i: usize, id: RequestId, verdict: &Verdict) {
        let Some((number, _)) = self.rest.sent.get(&id) else {
            return;
        };
        let Some(round) = self.rest.rounds.get(number) else {
            return;
        };
        let (asker, sent_at) = (round.node, round.sent_at);
        let reply = match verdict {
            Verdict::Accepted { lsn, dcs_read_ago } => Reply::Accepted(Ack {
                sent_at,
                lsn: *lsn,
                dcs_read_at: dcs_read_ago.map(|ago| sent_at.minus(ago)),
            }),
            Verdict::Off => Reply::Refused("off".into()),
            Verdict::RunsAsLeader => Reply::Refused("Running as a leader".into()),
            Verdict::Refused(text) => Reply::Refused(text.clone()),
        };
        self.count(match &reply {
            Reply::Accepted(_) => "leave to go on given",
            Reply::Refused(_) | Reply::Silent => "leave to go on refused",
        });
        self.send_reply(id, i, asker, reply);
    }

    fn send_reply(&mut self, id: RequestId, from: usize, to: usize, reply: Reply) {
        if let Some(after) = self.way(from, to) {
            self.at(self.now + after, Happening::Rest(RestEvent::Answer { id, reply }));
        }
    }

    fn reply_arrives(&mut self, id: RequestId, reply: Reply) {
        let Some((number, to)) = self.rest.sent.remove(&id) else {
            return;
        };
        let name = self.nodes[to].name.clone();
        let Some(round) = self.rest.rounds.get_mut(&number) else {
            return;
        };
        round.replies.insert(name, reply);
        round.waiting -= 1;
        if round.waiting == 0 {
            self.end_round(number);
        }
    }

    fn end_round(&mut self, number: u64) {
        let Some(round) = self.rest.rounds.remove(&number) else {
            return;
        };
        self.rest.sent.retain(|_, (of, _)| *of != number);
        let event = Event::FailsafeAnswered {
            op: round.op,
            replies: round.replies,
        };
        self.later(round.node, round.epoch, 0, event);
    }
}
