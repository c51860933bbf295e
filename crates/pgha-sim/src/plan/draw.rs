//! The swarm: a plan drawn from a seed. Which kinds of fault exist at all is drawn first, so that some runs show one fault
//! again and again and others a mixture of all.

use pgha_core::settings::SynchronousMode;

use crate::faults::{FaultKind, SYNCHRONOUS, Slot, Span, kinds};
use crate::plan::{Lasts, Plan, PlannedFault, Target};
use crate::rng::{Rng, Stream};
use crate::settings::{SYNCHRONOUS_FROM, SimSettings};
use crate::world::{MS, SEC};

/// Before this time nothing goes wrong, so that there is a cluster.
const QUIET_START: u64 = 20;

impl Plan {
    /// The plan of a seed.
    pub fn draw(seed: u64) -> Plan {
        let settings = SimSettings::draw(seed);
        let mut r = Rng::new(seed, Stream::Faults);
        let existing = draw_kinds(&mut r, &settings);
        let number = 1 + r.index(24);
        let mut faults: Vec<PlannedFault> = (0..number).map(|_| draw_fault(&mut r, &settings, &existing)).collect();
        faults.extend(draw_synchronous(seed, &settings));
        faults.sort_by_key(|f| f.at);
        if settings.nodes > 2 && r.chance(100) {
            // One victim is never healed; the others keep a majority of etcd and must do without it.
            if let Some(last) = faults.iter_mut().rev().find(|f| f.kind.span == Span::Lasting) {
                last.lasts = Lasts::Ever;
            }
        }
        Plan {
            seed,
            settings,
            faults,
            leader: None,
        }
    }
}

/// What happens to synchronous replication: seldom anything where it is off. Two kinds of a plan at most, so that the same
/// comes again; and now and then a fault of the usual kind that hits a synchronous standby.
fn draw_synchronous(seed: u64, settings: &SimSettings) -> Vec<PlannedFault> {
    if seed < SYNCHRONOUS_FROM {
        return Vec::new();
    }
    let mut r = Rng::new(seed, Stream::SynchronousFaults);
    let likely = if settings.sync == SynchronousMode::Off { 60 } else { 600 };
    if !r.chance(likely) {
        return Vec::new();
    }
    let existing: Vec<_> = (0..2).map(|_| &SYNCHRONOUS[r.index(SYNCHRONOUS.len())]).collect();
    let usual: Vec<_> = kinds()
        .filter(|k| k.weight > 0 && k.has(Slot::Node) && !k.has(Slot::Other) && !SYNCHRONOUS.contains(k))
        .collect();
    let number = 1 + r.index(8);
    let mut draw = |_| {
        if r.chance(400) {
            let kind = usual[r.index(usual.len())];
            let fault = draw_fault(&mut r, settings, &[kind]);
            let node = Some(Target::Synchronous);
            return PlannedFault { node, ..fault };
        }
        draw_fault(&mut r, settings, &existing)
    };
    (0..number).map(&mut draw).collect()
}

fn draw_kinds(r: &mut Rng, settings: &SimSettings) -> Vec<&'static FaultKind> {
    let likely = [100, 300, 600, 1000][r.index(4)];
    let all: Vec<_> = kinds()
        .filter(|kind| kind.weight > 0 && kind.is_possible(settings) && !SYNCHRONOUS.contains(kind))
        .collect();
    let mut existing: Vec<_> = all.iter().copied().filter(|_| r.chance(likely)).collect();
    if existing.is_empty() {
        existing.push(all[r.index(all.len())]);
    }
    existing
}

fn draw_fault(r: &mut Rng, settings: &SimSettings, existing: &[&'static FaultKind]) -> PlannedFault {
    let total: u64 = existing.iter().map(|k| k.weight).sum();
    let mut ticket = r.range(0, total.max(1) - 1);
    let kind = existing
        .iter()
        .find(|k| {
            let mine = ticket < k.weight;
            ticket = ticket.saturating_sub(k.weight);
            mine
        })
        .unwrap_or(&existing[0]);
    let at = r.range(QUIET_START * 1000, settings.fault_seconds * 1000) * MS;
    // Most faults hit the leader: that is where it hurts.
    let any = Target::Node(r.index(settings.nodes));
    let node = if r.chance(500) { Target::Leader } else { any };
    let other = Target::Node(r.index(settings.nodes));
    let lasts = r.range(500, 3000 * settings.ttl) * MS;
    let lasts = if r.chance(200) {
        lasts / 10 / MS * MS + 100 * MS
    } else {
        lasts
    };
    let (low, high) = kind.range;
    let number = low + i64::try_from(r.range(0, high.abs_diff(low))).unwrap_or(0);
    PlannedFault {
        at,
        kind,
        node: kind.has(Slot::Node).then_some(node),
        other: kind.has(Slot::Other).then_some(other),
        number: (kind.has(Slot::Number) || kind.has(Slot::Time)).then_some(number),
        lasts: match kind.span {
            Span::Instant => Lasts::UntilHealed,
            Span::Passing | Span::Lasting => Lasts::For(lasts.min(settings.fault_seconds * SEC)),
        },
    }
}
