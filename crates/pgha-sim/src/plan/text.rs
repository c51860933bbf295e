//! The text form of plans: scenario files. One line per setting and per fault; `#` begins a comment.
//!
//! ```text
//! seed 17
//! nodes 3
//! ttl 30
//! leader moves
//! at 12.5s cut n1 from etcd for 20s
//! at 40s kill postgres leader
//! at 60s kill node n2 for ever
//! ```

use std::fmt;

use crate::etcd::Time;
use crate::faults::{FaultKind, Slot, Span, kinds};
use crate::network::MAX_NODES;
use crate::plan::{Lasts, LeaderFate, Plan, PlannedFault, Target};
use crate::settings::{KNOBS, SimSettings};
use crate::world::MS;

/// What is wrong with a scenario file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PlanError {
    /// Line, counted from 1.
    pub line: usize,
    /// What is wrong with it.
    pub what: String,
}

impl fmt::Display for PlanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.what)
    }
}

impl std::error::Error for PlanError {}

impl Plan {
    /// Reads a scenario file. What it does not set is as in [`SimSettings::default`]; faults may stand in any order.
    pub fn parse(text: &str) -> Result<Plan, PlanError> {
        let mut plan = Plan {
            seed: 0,
            settings: SimSettings::default(),
            faults: Vec::new(),
            leader: None,
        };
        let mut seen: Vec<&str> = Vec::new();
        for (number, line) in text.lines().enumerate() {
            let content = line.split('#').next().unwrap_or_default();
            let words: Vec<&str> = content.split_whitespace().collect();
            let Some(first) = words.first() else { continue };
            if *first != "at" && seen.contains(first) {
                return Err(PlanError {
                    line: number + 1,
                    what: format!("`{first}` is set twice"),
                });
            }
            seen.push(first);
            plan.parse_line(&words)
                .map_err(|what| PlanError { line: number + 1, what })?;
        }
        plan.faults.sort_by_key(|f| f.at);
        if let Some(fault) = plan.faults.iter().find(|f| f.names_beyond(plan.settings.nodes)) {
            let line = text.lines().position(|l| l.contains(&fault.to_string())).unwrap_or(0) + 1;
            let what = format!(
                "`{fault}` names a node that does not exist: nodes {}",
                plan.settings.nodes
            );
            return Err(PlanError { line, what });
        }
        Ok(plan)
    }

    fn parse_line(&mut self, words: &[&str]) -> Result<(), String> {
        match words {
            ["at", at, rest @ ..] => {
                let at = parse_time(at)?;
                self.faults.push(parse_fault(at, rest)?);
                Ok(())
            }
            ["seed", value] => {
                self.seed = value.parse().map_err(|e| format!("seed {value}: {e}"))?;
                Ok(())
            }
            ["leader", fate] => {
                self.leader = Some(parse_fate(fate)?);
                Ok(())
            }
            [name, value] => match KNOBS.iter().find(|k| k.name == *name) {
                Some(knob) => (knob.set)(&mut self.settings, value).map_err(|e| format!("{name} {value}: {e}")),
                None => Err(format!("there is no setting `{name}`")),
            },
            [first, ..] => Err(format!(
                "`{first}` begins neither a setting nor a fault: write `NAME VALUE` or `at TIME ...`"
            )),
            [] => Ok(()),
        }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {}", self.seed)?;
        let usual = SimSettings::default();
        for knob in KNOBS {
            let value = (knob.get)(&self.settings);
            if value != (knob.get)(&usual) {
                writeln!(f, "{} {value}", knob.name)?;
            }
        }
        match self.leader {
            None => {}
            Some(LeaderFate::Stays) => writeln!(f, "leader stays")?,
            Some(LeaderFate::Moves) => writeln!(f, "leader moves")?,
        }
        self.faults.iter().try_for_each(|fault| writeln!(f, "{fault}"))
    }
}

impl fmt::Display for PlannedFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at {}", render_time(self.at))?;
        for word in self.kind.words() {
            match word {
                Err(plain) => write!(f, " {plain}")?,
                Ok(Slot::Node) => write!(f, " {}", self.node.unwrap_or(Target::Leader))?,
                Ok(Slot::Other) => write!(f, " {}", self.other.unwrap_or(Target::Leader))?,
                Ok(Slot::Number) => write!(f, " {}", self.number.unwrap_or(0))?,
                Ok(Slot::Time) => write!(f, " {}", render_signed(self.number.unwrap_or(0)))?,
            }
        }
        match (self.kind.span, self.lasts) {
            (Span::Instant, _) | (_, Lasts::UntilHealed) => Ok(()),
            (_, Lasts::For(time)) => write!(f, " for {}", render_time(time)),
            (_, Lasts::Ever) => write!(f, " for ever"),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Node(i) => write!(f, "n{}", i + 1),
            Target::Leader => write!(f, "leader"),
            Target::Standby => write!(f, "standby"),
            Target::Synchronous => write!(f, "synchronous"),
        }
    }
}

impl PlannedFault {
    /// Does it name a node that a cluster of so many does not have?
    pub(crate) fn names_beyond(&self, nodes: usize) -> bool {
        let beyond = |t: Option<Target>| matches!(t, Some(Target::Node(i)) if i >= nodes);
        beyond(self.node) || beyond(self.other)
    }
}

fn parse_fault(at: Time, words: &[&str]) -> Result<PlannedFault, String> {
    let (words, lasts) = match words {
        [rest @ .., "for", "ever"] => (rest, Some(Lasts::Ever)),
        [rest @ .., "for", time] => (rest, Some(Lasts::For(parse_time(time)?))),
        all => (all, None),
    };
    // The error of the form that went along furthest is the one to tell.
    let mut furthest = (0, String::new());
    for kind in kinds() {
        match match_form(kind, at, words) {
            Ok(mut fault) => {
                if kind.span == Span::Instant && lasts.is_some() {
                    return Err(format!("`{}` happens once and takes no `for`", kind.form));
                }
                if kind.span == Span::Passing && lasts == Some(Lasts::Ever) {
                    return Err(format!("`{}` cannot last for ever", kind.form));
                }
                fault.lasts = lasts.unwrap_or(Lasts::UntilHealed);
                return Ok(fault);
            }
            Err((length, what)) if length > furthest.0 => furthest = (length, what),
            Err(_) => {}
        }
    }
    let text = words.join(" ");
    Err(match furthest {
        (0, _) => format!("there is no fault `{text}`"),
        (_, what) => format!("`{text}`: {what}"),
    })
}

/// The fault, or how many words agreed and what the next one should have been.
fn match_form(kind: &'static FaultKind, at: Time, words: &[&str]) -> Result<PlannedFault, (usize, String)> {
    let mut fault = PlannedFault {
        at,
        kind,
        node: None,
        other: None,
        number: None,
        lasts: Lasts::UntilHealed,
    };
    let mut given = words.iter();
    for (length, wanted) in kind.words().enumerate() {
        let word = given.next().copied();
        let or_else = |what: String| (length, format!("{what} (as in `{}`)", kind.form));
        let Some(word) = word else {
            return Err(or_else("something is missing at the end".into()));
        };
        match wanted {
            Err(plain) if plain == word => {}
            Err(plain) => return Err(or_else(format!("`{plain}` was expected, not `{word}`"))),
            Ok(Slot::Node) => fault.node = Some(parse_target(word).map_err(or_else)?),
            Ok(Slot::Other) => fault.other = Some(parse_target(word).map_err(or_else)?),
            Ok(Slot::Number) => {
                fault.number = Some(
                    word.parse()
                        .map_err(|_| or_else(format!("`{word}` is no whole number")))?,
                );
            }
            Ok(Slot::Time) => fault.number = Some(parse_signed(word).map_err(or_else)?),
        }
    }
    match given.next() {
        None => Ok(fault),
        Some(more) => Err((kind.words().count(), format!("`{more}` is too much"))),
    }
}

fn parse_fate(word: &str) -> Result<LeaderFate, String> {
    match word {
        "stays" => Ok(LeaderFate::Stays),
        "moves" => Ok(LeaderFate::Moves),
        _ => Err(format!("leader {word}: `stays` or `moves` was expected")),
    }
}

fn parse_target(word: &str) -> Result<Target, String> {
    match word {
        "leader" => return Ok(Target::Leader),
        "standby" => return Ok(Target::Standby),
        "synchronous" => return Ok(Target::Synchronous),
        _ => {}
    }
    let number = word.strip_prefix('n').and_then(|n| n.parse::<usize>().ok());
    match number {
        Some(n) if (1..=MAX_NODES).contains(&n) => Ok(Target::Node(n - 1)),
        Some(_) | None => Err(format!(
            "`{word}` is no node: write n1 to n{MAX_NODES}, leader, standby or synchronous"
        )),
    }
}

fn parse_time(word: &str) -> Result<Time, String> {
    let ms = parse_signed(word)?;
    u64::try_from(ms)
        .map(|ms| ms * MS)
        .map_err(|_| format!("`{word}` must not be negative"))
}

/// `12.5s` or `40ms`, in milliseconds.
fn parse_signed(word: &str) -> Result<i64, String> {
    let wrong = || format!("`{word}` is no time: write 12.5s or 40ms");
    let most = i64::try_from(Time::MAX / MS / 4).unwrap_or(i64::MAX);
    let ms = match word.strip_suffix("ms") {
        Some(number) => number.parse::<i64>().map_err(|_| wrong())?,
        None => {
            let number = word.strip_suffix('s').ok_or_else(wrong)?;
            let (negative, number) = match number.strip_prefix('-') {
                Some(rest) => (true, rest),
                None => (false, number),
            };
            let (whole, part) = number.split_once('.').unwrap_or((number, "0"));
            let digits = |t: &str| !t.is_empty() && t.bytes().all(|b| b.is_ascii_digit());
            if !digits(whole) || !digits(part) || part.len() > 3 {
                return Err(wrong());
            }
            let whole: i64 = whole.parse().map_err(|_| wrong())?;
            let part: i64 = format!("{part:0<3}").parse().map_err(|_| wrong())?;
            let ms = whole
                .checked_mul(1000)
                .and_then(|w| w.checked_add(part))
                .ok_or_else(wrong)?;
            if negative { -ms } else { ms }
        }
    };
    if ms.abs() > most { Err(wrong()) } else { Ok(ms) }
}

fn render_time(time: Time) -> String {
    render_signed(i64::try_from(time / MS).unwrap_or(i64::MAX))
}

fn render_signed(ms: i64) -> String {
    let (sign, ms) = (if ms < 0 { "-" } else { "" }, ms.abs());
    let part = format!("{:03}", ms % 1000);
    match part.trim_end_matches('0') {
        "" => format!("{sign}{}s", ms / 1000),
        part => format!("{sign}{}.{part}s", ms / 1000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drawn_plan_is_the_same_after_it_was_written_and_read() {
        for seed in 0..500 {
            let plan = Plan::draw(seed);
            let text = plan.to_string();
            assert_eq!(Plan::parse(&text).as_ref(), Ok(&plan), "{text}");
        }
    }

    #[test]
    fn a_wrong_line_is_told_with_its_number_and_what_was_expected() {
        let wrong = |text: &str| Plan::parse(text).expect_err("this must not be read").to_string();
        assert_eq!(wrong("ttl 30\nttt 3\n"), "line 2: there is no setting `ttt`");
        assert_eq!(wrong("ttl 30\nttl 20\n"), "line 2: `ttl` is set twice");
        assert_eq!(wrong("at 3s explode n1"), "line 1: there is no fault `explode n1`");
        assert_eq!(
            wrong("at 3s cut n1 off etcd"),
            "line 1: `cut n1 off etcd`: `from` was expected, not `off` (as in `cut NODE from etcd`)"
        );
        assert_eq!(
            wrong("at 3s stop agent x1 for 3s"),
            "line 1: `stop agent x1`: `x1` is no node: write n1 to n7, leader, standby or synchronous (as in `stop agent NODE`)"
        );
        assert_eq!(
            wrong("\nat 3s kill postgres n1 for 3s"),
            "line 2: `kill postgres NODE` happens once and takes no `for`"
        );
        assert_eq!(wrong("at 3 stop etcd"), "line 1: `3` is no time: write 12.5s or 40ms");
        assert_eq!(
            wrong("nodes 3\nat 3s stop agent n5"),
            "line 2: `at 3s stop agent n5` names a node that does not exist: nodes 3"
        );
    }

    #[test]
    fn no_two_kinds_share_a_form_or_a_name() {
        let all: Vec<_> = kinds().collect();
        for (i, a) in all.iter().enumerate() {
            for b in &all[i + 1..] {
                assert_ne!(a.form, b.form);
                assert_ne!(a.name, b.name);
            }
        }
    }
}
