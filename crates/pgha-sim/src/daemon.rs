//! The daemons: started, killed, held back, starved. What they decide comes from the production step machine; what they
//! want done is performed effect by effect, and each effect may be the last.

use pgha_core::effect::FenceOrder;
use pgha_core::event::{Event, Wake};
use pgha_core::node::Node;
use pgha_core::view::NodeSpec;
use pgha_wire::kept::parse_kept;

use crate::etcd::Time;
use crate::planted::WorldDefect;
use crate::world::{Happening, MS, World};

impl World {
    /// Starts the daemon of a node, attaching to a fence that is there.
    pub fn start_agent(&mut self, i: usize) {
        let (at, now) = (self.now, self.node_now(i));
        let spec = NodeSpec {
            kept_cluster: self.nodes[i].pg.data().and_then(|d| parse_kept(d.kept.as_ref()?).ok()),
            ..self.plan.settings.node_spec(i, &self.nodes[i].name)
        };
        self.new_client(i);
        let node = &mut self.nodes[i];
        node.epoch += 1;
        node.started_at = at;
        node.agent = Some(Node::new(now, spec));
        let epoch = node.epoch;
        self.plant(i);
        self.tell_watchdog(i);
        if self.suffers(WorldDefect::FenceForgottenOnRestart) {
            self.nodes[i].fence = None;
        }
        match self.nodes[i].fence {
            Some(order) => self.deliver(i, epoch, Event::FenceAttached(order)),
            None => self.nodes[i].fence = Some(FenceOrder::StandbyOnly),
        }
        self.deliver(i, epoch, Event::Wake(Wake::Now));
    }

    /// What a supervisor does.
    pub(crate) fn start_agent_if_down(&mut self, i: usize) {
        if self.nodes[i].agent.is_none() && self.nodes[i].held_down == 0 {
            self.start_agent(i);
        }
    }

    /// kill -9 of the daemon alone.
    pub fn kill_agent(&mut self, i: usize) {
        self.end_agent(i);
        self.orphan_job(i);
        if self.suffers(WorldDefect::FenceDiesWithAgent) {
            self.nodes[i].fence = None;
        }
    }

    /// The power of the whole machine goes off and comes back.
    pub fn kill_node(&mut self, i: usize) {
        self.end_agent(i);
        let now = self.now;
        let node = &mut self.nodes[i];
        node.job = None;
        node.pg.lose_power();
        node.fence = None;
        node.fired = false;
        node.frozen = 0;
        node.held.clear();
        node.clock.reboot(now);
        (node.watchdog.fires_at, node.watchdog.missed_until) = (None, None);
    }

    /// The process is gone, and with it everything that was under way for it.
    pub(crate) fn end_agent(&mut self, i: usize) {
        let node = &mut self.nodes[i];
        node.agent = None;
        node.epoch += 1;
        node.stopped = 0;
        node.dies_after = None;
        node.timer_at = 0;
        node.busy_until = 0;
        self.note_hung_up(i);
    }

    /// An event for a daemon, now.
    pub(crate) fn send(&mut self, i: usize, event: Event) {
        let epoch = self.nodes[i].epoch;
        self.later(i, epoch, 0, event);
    }

    /// Is this for a node that cannot run now? It happens when that node runs again.
    pub(crate) fn holds_back(&self, what: &Happening) -> Option<usize> {
        let (i, of_agent) = match what {
            Happening::Deliver { node, .. } | Happening::Timer { node, .. } | Happening::Perform { node, .. } => {
                (*node, true)
            }
            Happening::Response { ticket, .. } | Happening::Impatient { ticket, .. } => (ticket.node, true),
            Happening::JobStep { node, .. }
            | Happening::Postgres { node, .. }
            | Happening::Fence { node }
            | Happening::Watchdog { node }
            | Happening::Supervise { node } => (*node, false),
            Happening::Request { .. }
            | Happening::Client(_)
            | Happening::Tick
            | Happening::Leases
            | Happening::Rest(_)
            | Happening::FaultBegins(_)
            | Happening::FaultEnds(_) => return None,
        };
        let node = &self.nodes[i];
        (node.frozen > 0 || (of_agent && node.stopped > 0)).then_some(i)
    }

    /// The node runs again: the fence first, whose deadline may have passed, then everything that waited.
    pub(crate) fn release_held(&mut self, i: usize) {
        if self.nodes[i].frozen > 0 {
            return;
        }
        self.nodes[i].thawed_at = Some(self.now);
        self.fence_looks(i);
        for what in std::mem::take(&mut self.nodes[i].held) {
            self.at(self.now, what);
        }
    }

    /// The boot clock runs at another rate: alarms are set anew.
    pub(crate) fn clock_changed(&mut self, i: usize) {
        self.set_fence_alarm(i);
        let (epoch, now) = (self.nodes[i].epoch, self.now);
        self.nodes[i].timer_at = now;
        self.at(now, Happening::Timer { node: i, epoch });
    }

    /// A daemon gets an event, unless it is dead or busy.
    pub(crate) fn deliver(&mut self, i: usize, epoch: u64, event: Event) {
        let now = self.node_now(i);
        let node = &mut self.nodes[i];
        if node.epoch != epoch {
            return;
        }
        if node.busy_until > self.now {
            let when = node.busy_until;
            let event = Box::new(event);
            return self.at(when, Happening::Deliver { node: i, epoch, event });
        }
        let Some(agent) = &mut node.agent else { return };
        let before = agent.last_decision().map(|(d, _)| d.rule);
        let effects = agent.handle(now, event);
        let violations = agent.take_violations();
        let next_wake = agent.next_wake();
        let after = agent.last_decision().map(|(d, _)| d.rule);
        let due = node.timer_at;
        let wake = node.clock.when(next_wake).max(self.now + MS);
        if due <= self.now || wake < due {
            node.timer_at = wake;
            self.at(wake, Happening::Timer { node: i, epoch });
        }
        if let Some(rule) = after {
            self.reached(rule);
            if before != Some(rule) {
                self.note_decision(i);
            }
        }
        self.check_books(i);
        for v in violations {
            let name = &self.nodes[i].name;
            self.violation(format!("{} refused on {name}: {}", v.invariant, v.what));
        }
        let pause = self.nodes[i].starved_by;
        for (number, effect) in effects.into_iter().enumerate() {
            if pause == 0 {
                self.perform_next(i, epoch, effect);
                continue;
            }
            let when = self.now + pause * (number as Time + 1);
            self.nodes[i].busy_until = when;
            let effect = Box::new(effect);
            self.at(when, Happening::Perform { node: i, epoch, effect });
        }
    }

    /// Performs one effect of a daemon that still lives, and lets it die if this was to be its last.
    pub(crate) fn perform_next(&mut self, i: usize, epoch: u64, effect: pgha_core::effect::Effect) {
        if self.nodes[i].epoch != epoch {
            return;
        }
        self.perform(i, epoch, effect);
        match &mut self.nodes[i].dies_after {
            Some(left) if *left > 1 => *left -= 1,
            Some(_) => {
                self.note(|| format!("n{} is killed between two effects", i + 1));
                self.count("agent died between effects");
                self.kill_agent(i);
                self.at(self.now + crate::world::SUPERVISOR, Happening::Supervise { node: i });
            }
            None => {}
        }
    }

    fn note_decision(&mut self, i: usize) {
        let Some((decision, _)) = self.nodes[i].agent.as_ref().and_then(|a| a.last_decision()) else {
            return;
        };
        let text = format!(
            "{} {} {}: {}",
            self.nodes[i].name,
            decision.rule.number(),
            decision.rule.name(),
            decision.because
        );
        self.note(|| text);
    }
}
