//! The three members: who is up, who hears the others, who leads, and in which term.

/// How many there are.
pub const MEMBERS: usize = 3;

/// One of them.
#[derive(Clone, Copy, Debug, Default)]
struct Member {
    /// Faults that keep it down.
    down: u32,
    /// Faults that keep it from the others.
    isolated: u32,
    /// What it last heard of the others, while it hears nothing.
    left_at: Option<LeftAt>,
}

/// The world as a member knew it when it lost the others.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LeftAt {
    /// Revision it had applied.
    pub revision: i64,
    /// Raft term.
    pub term: u64,
    /// It led then, and may not know better.
    pub led: bool,
}

/// All of them.
#[derive(Clone, Debug)]
pub struct Members {
    members: [Member; MEMBERS],
    leader: Option<usize>,
    term: u64,
    /// Faults that keep an election from ending.
    leaderless: u32,
}

/// How a member is placed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Standing {
    /// It does not run.
    Down,
    /// It runs and hears nobody.
    Isolated(LeftAt),
    /// It is one of too few, or of those that have not agreed on a leader.
    Leaderless,
    /// It serves.
    Serving,
}

impl Members {
    /// All up, the first one leads.
    pub fn new() -> Members {
        Members {
            members: [Member::default(); MEMBERS],
            leader: Some(0),
            term: 2,
            leaderless: 0,
        }
    }

    /// Raft term of the majority.
    pub fn term(&self) -> u64 {
        self.term
    }

    /// Who leads.
    pub fn leader(&self) -> Option<usize> {
        self.leader
    }

    /// How a member is placed.
    pub fn standing(&self, member: usize) -> Standing {
        let m = &self.members[member];
        match (m.down, m.left_at, self.leader) {
            (0, Some(left_at), _) => Standing::Isolated(left_at),
            (0, None, Some(_)) => Standing::Serving,
            (0, None, None) => Standing::Leaderless,
            _ => Standing::Down,
        }
    }

    /// It stops for one more reason.
    pub fn stop(&mut self, member: usize) {
        self.members[member].down += 1;
        self.leave(member);
    }

    /// One reason less.
    pub fn start(&mut self, member: usize) {
        let m = &mut self.members[member];
        m.down = m.down.saturating_sub(1);
    }

    /// It loses the others, having applied everything up to `revision`.
    pub fn isolate(&mut self, member: usize, revision: i64) {
        let led = self.leader == Some(member);
        let term = self.term;
        let m = &mut self.members[member];
        m.isolated += 1;
        m.left_at.get_or_insert(LeftAt { revision, term, led });
        self.leave(member);
    }

    /// One reason less.
    pub fn rejoin(&mut self, member: usize) {
        let m = &mut self.members[member];
        m.isolated = m.isolated.saturating_sub(1);
        if m.isolated == 0 {
            m.left_at = None;
        }
    }

    /// The leader steps down, and no election ends until [`Members::let_elect`].
    pub fn depose(&mut self) {
        self.leaderless += 1;
        self.leader = None;
    }

    /// One reason less against an election.
    pub fn let_elect(&mut self) {
        self.leaderless = self.leaderless.saturating_sub(1);
    }

    /// Elects a leader if there is none and there can be one; `after` whom the turn comes. True when there is a new one.
    pub fn elect(&mut self, after: usize) -> bool {
        let able = |m: &usize| self.members[*m].down == 0 && self.members[*m].isolated == 0;
        if self.leader.is_some() || self.leaderless > 0 || (0..MEMBERS).filter(able).count() * 2 <= MEMBERS {
            return false;
        }
        self.leader = (1..=MEMBERS).map(|n| (after + n) % MEMBERS).find(able);
        self.term += 1;
        true
    }

    /// The store is made anew, at `revision`: terms begin again, and who is isolated knows the new store's beginning.
    pub fn refound(&mut self, revision: i64) {
        self.term = 2;
        self.leader = None;
        for left_at in self.members.iter_mut().filter_map(|m| m.left_at.as_mut()) {
            *left_at = LeftAt {
                revision,
                term: 2,
                led: false,
            };
        }
    }

    fn leave(&mut self, member: usize) {
        let able = |m: &&Member| m.down == 0 && m.isolated == 0;
        let rest = self.members.iter().filter(able).count();
        if self.leader == Some(member) || rest * 2 <= MEMBERS {
            self.leader = None;
        }
    }
}

impl Default for Members {
    fn default() -> Members {
        Members::new()
    }
}
