//! The command line: the verbs and options of `patronictl`.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::output::Format;

const EXIT_CODES: &str = "Exit codes:
  0  done
  1  failed or refused; the reason is on standard error or in the line that begins with `Failed`
  2  wrong usage
  3  the outcome is unknown: the request was sent, and the operation may still be running";

/// Command line for a pgha or Patroni cluster.
#[derive(Parser, Debug)]
#[command(name = "pgha-ctl", after_help = EXIT_CODES, disable_help_subcommand = true)]
pub struct Cli {
    /// Configuration file, or directory of *.yml files [env: PATRONICTL_CONFIG_FILE=]
    /// [default: ~/.config/pgha/pgha-ctl.yaml, else ~/.config/patroni/patronictl.yaml]
    #[arg(short, long, value_name = "FILE", env = "PGHA_CTL_CONFIG_FILE")]
    pub config_file: Option<PathBuf>,
    /// etcd instead of the one in the configuration: [etcd3://]HOST[:PORT][/NAMESPACE]
    #[arg(short, long, alias = "dcs", value_name = "URL", env = "DCS_URL")]
    pub dcs_url: Option<String>,
    /// Accepted for scripts of patronictl: without https there are no certificates to check
    #[arg(short = 'k', long)]
    pub insecure: bool,
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// The verbs.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Show the members of clusters
    List(ListArgs),
    /// Show the members as a tree of who replicates from whom
    Topology(TopologyArgs),
    /// Hand the leadership over to a standby; needs a healthy leader
    Switchover(SwitchoverArgs),
    /// Promote a certain standby, also without a leader
    Failover(FailoverArgs),
    /// Restart PostgreSQL on members
    Restart(RestartArgs),
    /// Reload the configuration of members
    Reload(ReloadArgs),
    /// Build standbys anew from a base backup
    Reinit(ReinitArgs),
    /// Suspend automatic failover
    Pause(PauseArgs),
    /// Resume automatic failover
    Resume(PauseArgs),
    /// Show past failovers and switchovers
    History(HistoryArgs),
    /// Show the dynamic configuration
    ShowConfig(ClusterArgs),
    /// Change the dynamic configuration
    EditConfig(EditConfigArgs),
    /// Show the version of this program, and of members
    Version(VersionArgs),
}

/// A cluster that may be named.
#[derive(Args, Debug)]
pub struct ClusterArgs {
    /// Scope of the cluster [default: scope of the configuration]
    pub cluster: Option<String>,
}

/// Show again and again.
#[derive(Args, Debug)]
pub struct WatchArgs {
    /// Show again every 2 seconds
    #[arg(short = 'W')]
    pub every_two_seconds: bool,
    /// Show again every SECONDS
    #[arg(short = 'w', long, value_name = "SECONDS", value_parser = seconds)]
    pub watch: Option<f64>,
}

/// `list`.
#[derive(Args, Debug)]
pub struct ListArgs {
    /// Scopes of the clusters [default: scope of the configuration]
    pub clusters: Vec<String>,
    /// Show all columns, also empty ones
    #[arg(short, long)]
    pub extended: bool,
    /// Print the time first
    #[arg(short, long)]
    pub timestamp: bool,
    /// Output format
    #[arg(short, long, value_enum, default_value_t)]
    pub format: Format,
    /// Repetition
    #[command(flatten)]
    pub watch: WatchArgs,
}

/// `topology`.
#[derive(Args, Debug)]
pub struct TopologyArgs {
    /// Scopes of the clusters [default: scope of the configuration]
    pub clusters: Vec<String>,
    /// Repetition
    #[command(flatten)]
    pub watch: WatchArgs,
}

/// `switchover`.
#[derive(Args, Debug)]
pub struct SwitchoverArgs {
    /// Scope of the cluster [default: scope of the configuration]
    pub cluster: Option<String>,
    /// The current leader, as a check
    #[arg(long, alias = "primary", value_name = "MEMBER")]
    pub leader: Option<String>,
    /// The member to promote
    #[arg(long, value_name = "MEMBER")]
    pub candidate: Option<String>,
    /// When, in an unambiguous format (e.g. ISO 8601), or `now`
    #[arg(long, value_name = "TIME")]
    pub scheduled: Option<String>,
    /// Do not ask
    #[arg(long)]
    pub force: bool,
}

/// `failover`.
#[derive(Args, Debug)]
pub struct FailoverArgs {
    /// Scope of the cluster [default: scope of the configuration]
    pub cluster: Option<String>,
    /// The member to promote
    #[arg(long, value_name = "MEMBER")]
    pub candidate: Option<String>,
    /// Do not ask
    #[arg(long)]
    pub force: bool,
}

/// Which members.
#[derive(Args, Debug)]
pub struct MemberArgs {
    /// Scope of the cluster [default: scope of the configuration]
    pub cluster: Option<String>,
    /// Members [default: all of the role]
    pub members: Vec<String>,
}

/// `restart`.
#[derive(Args, Debug)]
pub struct RestartArgs {
    /// Which members
    #[command(flatten)]
    pub on: MemberArgs,
    /// Only members with this role
    #[arg(short, long, value_enum, default_value_t)]
    pub role: RoleFilter,
    /// Only one of them, at random
    #[arg(long)]
    pub any: bool,
    /// When, in an unambiguous format (e.g. ISO 8601), or `now`
    #[arg(long, value_name = "TIME")]
    pub scheduled: Option<String>,
    /// Only where PostgreSQL is older than this (e.g. 9.5.2)
    #[arg(long, value_name = "VERSION")]
    pub pg_version: Option<String>,
    /// Only where a restart is pending
    #[arg(long)]
    pub pending: bool,
    /// Fail, and fail over if necessary, when the restart takes longer (seconds, or with a unit)
    #[arg(long, value_name = "TIME")]
    pub timeout: Option<String>,
    /// Do not ask
    #[arg(long)]
    pub force: bool,
}

/// `reload`.
#[derive(Args, Debug)]
pub struct ReloadArgs {
    /// Which members
    #[command(flatten)]
    pub on: MemberArgs,
    /// Only members with this role
    #[arg(short, long, value_enum, default_value_t)]
    pub role: RoleFilter,
    /// Do not ask
    #[arg(long)]
    pub force: bool,
}

/// `reinit`.
#[derive(Args, Debug)]
pub struct ReinitArgs {
    /// Which members
    #[command(flatten)]
    pub on: MemberArgs,
    /// Do not ask, and cancel what the member is doing
    #[arg(long)]
    pub force: bool,
    /// Take the base backup from the leader
    #[arg(long)]
    pub from_leader: bool,
    /// Wait until it is done
    #[arg(long)]
    pub wait: bool,
}

/// `pause` and `resume`.
#[derive(Args, Debug)]
pub struct PauseArgs {
    /// Scope of the cluster [default: scope of the configuration]
    pub cluster: Option<String>,
    /// Wait until all members know
    #[arg(long)]
    pub wait: bool,
}

/// `history`.
#[derive(Args, Debug)]
pub struct HistoryArgs {
    /// Scope of the cluster [default: scope of the configuration]
    pub cluster: Option<String>,
    /// Output format
    #[arg(short, long, value_enum, default_value_t)]
    pub format: Format,
}

/// `edit-config`.
#[derive(Args, Debug)]
pub struct EditConfigArgs {
    /// Scope of the cluster [default: scope of the configuration]
    pub cluster: Option<String>,
    /// Do not show the changes
    #[arg(short, long)]
    pub quiet: bool,
    /// Set a value, e.g. ttl=30; null removes it. May be repeated
    #[arg(short, long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Set a parameter of PostgreSQL, e.g. max_connections=200. May be repeated
    #[arg(short, long = "pg", value_name = "NAME=VALUE")]
    pub pg: Vec<String>,
    /// Merge the YAML of a file (- for standard input) into the configuration
    #[arg(long, value_name = "FILE")]
    pub apply: Option<PathBuf>,
    /// Replace the configuration by the YAML of a file (- for standard input)
    #[arg(long, value_name = "FILE")]
    pub replace: Option<PathBuf>,
    /// Do not ask
    #[arg(long)]
    pub force: bool,
}

/// `version`.
#[derive(Args, Debug)]
pub struct VersionArgs {
    /// Scope of the cluster whose members are asked
    pub cluster: Option<String>,
    /// Members [default: all]
    pub members: Vec<String>,
}

/// Members by role.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub enum RoleFilter {
    /// Holds the leader key.
    Leader,
    /// Leader of a normal cluster.
    Primary,
    /// Leader of a standby cluster.
    StandbyLeader,
    /// Every member but the leader.
    Replica,
    /// The same.
    Standby,
    /// All.
    #[default]
    Any,
}

impl RoleFilter {
    /// The word of the option.
    pub fn word(self) -> &'static str {
        match self {
            RoleFilter::Leader => "leader",
            RoleFilter::Primary => "primary",
            RoleFilter::StandbyLeader => "standby-leader",
            RoleFilter::Replica => "replica",
            RoleFilter::Standby => "standby",
            RoleFilter::Any => "any",
        }
    }
}

/// A pause between two screens: positive, and short enough to be meant.
fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if seconds.is_finite() && (0.1..=86_400.0).contains(&seconds) => Ok(seconds),
        Ok(_) | Err(_) => Err("a number of seconds from 0.1 to 86400 is expected".to_owned()),
    }
}
