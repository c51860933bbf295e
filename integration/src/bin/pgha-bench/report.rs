//! The report, in Markdown.

use std::fmt::Write;

use anyhow::{Context, Result};
use pgha_integration::agent::Agent;
use pgha_integration::programs;

use crate::measure::{Figures, Quantity, Timings};
use crate::scenarios::CONNECTIONS;

/// Renders all figures; the first with Patroni's own timings are compared with each other.
pub fn render(all: &[Figures], rounds: u8) -> Result<String> {
    let of = |agent: Agent, timings: Timings| all.iter().find(|f| f.agent == agent && f.timings == timings);
    let patroni = of(Agent::Patroni, Timings::PATRONI);
    let pgha = of(Agent::Pgha, Timings::PATRONI);
    let short = of(Agent::Pgha, Timings::SHORT);
    let mut text = String::from("# Benchmarks\n\nWritten by `just bench`. ");
    writeln!(
        text,
        "Both agents ran one after the other on this machine ({}), on the same YAML with three nodes and one etcd, and were \
         watched by the same client: it inserts a row every 5 ms over a connection straight to the primary, and goes to \
         another node only when its own refuses. Medians of {rounds} rounds, and in brackets the smallest and the largest.\n",
        machine()?
    )?;
    writeln!(
        text,
        "Replication is asynchronous but where a row says synchronous (`synchronous_mode: on`, one of two standbys). \"Killed\" is `SIGKILL`: the kernel still closes the dead"
    )?;
    writeln!(
        text,
        "node's connections, which a power cut would not do. REST is loaded over {CONNECTIONS} connections.\n"
    )?;
    table(&mut text, &[patroni, pgha, short])?;
    text.push_str(
        "\nMore than 1 in the last column means that pgha is better by that factor, with the same timings. An agent that is\n\
         killed alone leaves PostgreSQL to the fence with pgha, which stops it by the lease's deadline. With Patroni and\n\
         without a watchdog PostgreSQL runs on beside the new primary; what its clients write from then on is lost.\n",
    );
    Ok(text)
}

fn table(text: &mut String, columns: &[Option<&Figures>; 3]) -> Result<()> {
    let [patroni, pgha, short] = columns;
    write!(text, "| |")?;
    for figures in columns.iter().flatten() {
        let Timings {
            ttl,
            loop_wait,
            retry_timeout,
        } = figures.timings;
        write!(
            text,
            " {} {}<br>{ttl}/{loop_wait}/{retry_timeout} |",
            figures.agent, figures.version
        )?;
    }
    writeln!(text, " ratio |")?;
    writeln!(text, "|---|{}", "---:|".repeat(columns.iter().flatten().count() + 1))?;
    for quantity in Quantity::ALL {
        write!(text, "| {} |", quantity.title())?;
        for figures in [patroni, pgha, short].into_iter().flatten() {
            write!(text, " {} |", cell(figures, quantity))?;
        }
        writeln!(text, " {} |", ratio(*patroni, *pgha, quantity).unwrap_or_default())?;
    }
    writeln!(
        text,
        "\nThe second line of a column's head is ttl/loop_wait/retry_timeout in seconds."
    )?;
    Ok(())
}

fn cell(figures: &Figures, quantity: Quantity) -> String {
    let digits = quantity.digits();
    match (figures.median(quantity), figures.range(quantity)) {
        (Some(median), Some((least, most))) if least < most => {
            format!("{median:.digits$} ({least:.digits$}–{most:.digits$})")
        }
        (Some(median), _) => format!("{median:.digits$}"),
        (None, _) => String::new(),
    }
}

fn ratio(patroni: Option<&Figures>, pgha: Option<&Figures>, quantity: Quantity) -> Option<String> {
    if !quantity.has_ratio() {
        return None;
    }
    let (theirs, ours) = (patroni?.median(quantity)?, pgha?.median(quantity)?);
    let ratio = if quantity.more_is_better() {
        ours / theirs
    } else {
        theirs / ours
    };
    ratio.is_finite().then(|| format!("{ratio:.1}"))
}

fn machine() -> Result<String> {
    let cores = std::thread::available_parallelism().context("cannot count the cores")?;
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").context("cannot read the kernel's version")?;
    let postgres = std::process::Command::new(programs::postgres_bin()?.join("postgres"))
        .arg("--version")
        .output()?;
    let etcd = std::process::Command::new(programs::find("etcd")?)
        .arg("--version")
        .output()?;
    let first = |bytes: &[u8]| {
        String::from_utf8_lossy(bytes)
            .lines()
            .next()
            .unwrap_or_default()
            .trim()
            .to_owned()
    };
    let (postgres, etcd) = (first(&postgres.stdout), first(&etcd.stdout));
    Ok(format!("{cores} cores, Linux {}, {postgres}, {etcd}", kernel.trim()))
}
