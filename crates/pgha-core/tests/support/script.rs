//! Runs a file of scenarios. The text that comes out equals the file when everything is as expected.
//!
//! Blocks are separated by blank lines. A block begins with a comment that says the situation and why it matters, or
//! is `define NAME`, whose lines `like NAME` runs in later blocks without telling what came of them. Then: directives (facts), `decide`,
//! `check ...`, and for a driven node `on ...`, `run [to KIND]`, `show`, `kept` and `budgets`. What they give follows in lines
//! that begin with `>`.

use std::collections::{BTreeMap, BTreeSet};

use pgha_core::decide::decide;
use pgha_core::rule::Rule;

use super::checks;
use super::drive::Drive;
use super::line::Line;
use super::render;
use super::world::World;

/// What running a file gave.
pub struct Outcome {
    /// The file with the output as it is now.
    pub text: String,
    /// Rules that decided something.
    pub rules: BTreeSet<Rule>,
    /// Lines that could not be run, with file and line. The rest of their block is skipped.
    pub errors: Vec<String>,
}

/// State of the block being run.
struct Block {
    world: World,
    drive: Option<Drive>,
    explained: bool,
    broken: bool,
}

impl Block {
    fn new() -> Block {
        Block {
            world: World::new(),
            drive: None,
            explained: false,
            broken: false,
        }
    }
}

/// Runs one file.
pub fn run(name: &str, text: &str) -> Outcome {
    let mut defined: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut defining: Option<String> = None;
    let mut out = Outcome {
        text: String::new(),
        rules: BTreeSet::new(),
        errors: Vec::new(),
    };
    let mut block = Block::new();
    for (i, line) in text.lines().enumerate() {
        if line.starts_with('>') {
            continue;
        }
        out.text.push_str(line);
        out.text.push('\n');
        let line = line.trim();
        if line.is_empty() {
            block = Block::new();
            defining = None;
        } else if line.starts_with('#') {
            block.explained = true;
        } else if let Some(name) = line.strip_prefix("define ") {
            defining = Some(name.to_string());
            defined.insert(name.to_string(), Vec::new());
        } else if let Some(definition) = defining.as_ref().and_then(|d| defined.get_mut(d)) {
            definition.push(line.to_string());
        } else if !block.broken {
            let lines = block.run(line, &defined, &mut out.rules).unwrap_or_else(|error| {
                block.broken = true;
                out.errors.push(format!("{name}:{}: {error}", i + 1));
                vec![format!("ERROR {error}")]
            });
            for line in lines.iter().flat_map(|l| l.lines()) {
                out.text.push_str("> ");
                out.text.push_str(line);
                out.text.push('\n');
            }
        }
    }
    out
}

impl Block {
    fn run(
        &mut self,
        text: &str,
        defined: &BTreeMap<String, Vec<String>>,
        rules: &mut BTreeSet<Rule>,
    ) -> Result<Vec<String>, String> {
        if !self.explained {
            return Err("the block has no comment that says what it shows and why".into());
        }
        let (command, rest) = text.split_once(' ').unwrap_or((text, ""));
        match command {
            "like" => {
                let lines = defined.get(rest).ok_or_else(|| format!("`{rest}` was not defined"))?;
                for line in lines {
                    self.run(line, defined, rules)?;
                }
                Ok(Vec::new())
            }
            "decide" => Ok(self.decide(rules)),
            "check" => checks::run(&self.world, &mut Line::parse(rest)?),
            "on" | "run" | "show" | "kept" | "budgets" => self.drive(command, rest, rules),
            _ => {
                self.world.set(text)?;
                Ok(Vec::new())
            }
        }
    }

    fn decide(&mut self, rules: &mut BTreeSet<Rule>) -> Vec<String> {
        let view = self.world.view();
        let decision = decide(&view);
        rules.insert(decision.rule);
        vec![
            render::decision(&decision, view.now.mono),
            format!("because {}", decision.because),
        ]
    }

    fn drive(&mut self, command: &str, rest: &str, rules: &mut BTreeSet<Rule>) -> Result<Vec<String>, String> {
        let world = &mut self.world;
        let drive = self.drive.get_or_insert_with(|| Drive::new(world));
        let mut line = Line::parse(rest)?;
        let lines = match command {
            "on" => drive.on(world, &mut line)?,
            "run" => {
                let until = line.flag("to").then(|| line.needs("a kind of effect")).transpose()?;
                drive.run(world, until.as_deref())?
            }
            "show" => vec![drive.show(world)],
            "kept" => drive.kept(),
            _ => drive.budgets(),
        };
        line.done()?;
        rules.extend(drive.rules.iter().copied());
        let silent = lines.is_empty() && !matches!(rest.split(' ').next(), Some("expire"));
        Ok(if silent { vec!["(nothing)".into()] } else { lines })
    }
}
