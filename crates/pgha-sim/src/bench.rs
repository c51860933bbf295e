//! Servers without agents: what statements about PostgreSQL are held against. Whoever writes a test here plays agent,
//! operator and client.

use pgha_core::effect::Tend;
use pgha_core::event::OpId;
use pgha_core::job::{Job, StartRole, StopMode, Upstream};

use crate::plan::Plan;
use crate::postgres::{Data, Point, Server, SimPostgres};
use crate::settings::SimSettings;
use crate::world::{MS, SEC, World};

/// How long a job may take here.
const LIMIT: u64 = 120 * SEC;

/// A world of servers alone.
pub struct Bench {
    /// The world: its faults are at hand.
    pub world: World,
    jobs: u64,
}

impl Bench {
    /// Empty machines.
    pub fn new(nodes: usize) -> Bench {
        Bench::with(SimSettings {
            nodes,
            ..SimSettings::default()
        })
    }

    fn with(settings: SimSettings) -> Bench {
        let nodes = settings.nodes;
        let plan = Plan {
            seed: 1,
            settings: SimSettings {
                commit_every_ms: 0,
                ..settings
            },
            faults: Vec::new(),
            leader: None,
        };
        let mut world = World::new(plan, false);
        for i in 0..nodes {
            world.nodes[i].held_down = 1;
            world.kill_agent(i);
            world.nodes[i].fence = Some(pgha_core::effect::FenceOrder::Paused);
        }
        Bench { world, jobs: 0 }
    }

    /// A running primary on node 0 and standbys of it on all others.
    pub fn cluster(nodes: usize) -> Bench {
        Bench::new(nodes).set_up()
    }

    /// The same with a WAL archive.
    pub fn cluster_with_archive(nodes: usize) -> Bench {
        let settings = SimSettings {
            nodes,
            archive: true,
            ..SimSettings::default()
        };
        Bench::with(settings).set_up()
    }

    fn set_up(mut self) -> Bench {
        let nodes = self.world.nodes.len();
        let bench = &mut self;
        bench.run(0, Job::Bootstrap);
        bench.start_primary(0);
        for i in 1..nodes {
            let source = bench.upstream(0);
            bench.run(i, Job::Clone { source });
            bench.start_standby(i, 0);
        }
        bench.pass(2_000);
        self
    }

    /// Time passes.
    pub fn pass(&mut self, ms: u64) {
        let until = self.world.now + ms * MS;
        while self.world.step(until).is_some() {}
        self.world.now = until;
    }

    /// Runs a job to its end.
    pub fn run(&mut self, i: usize, job: Job) {
        self.begin(i, job);
        let until = self.world.now + LIMIT;
        while self.world.nodes[i].job.is_some() && self.world.step(until).is_some() {}
    }

    /// Begins a job.
    pub fn begin(&mut self, i: usize, job: Job) {
        self.jobs += 1;
        self.world.start_job(i, OpId(self.jobs), job);
    }

    /// Starts a server as primary.
    pub fn start_primary(&mut self, i: usize) {
        let (role, timeout) = (StartRole::Primary, std::time::Duration::from_secs(60));
        self.run(i, Job::Start { role, timeout });
    }

    /// Starts a server as a standby of another one.
    pub fn start_standby(&mut self, i: usize, of: usize) {
        let upstream = Some(self.upstream(of));
        let (role, timeout) = (StartRole::Standby { upstream }, std::time::Duration::from_secs(60));
        self.run(i, Job::Start { role, timeout });
    }

    /// Stops a server with a shutdown checkpoint.
    pub fn stop(&mut self, i: usize) {
        let (mode, checkpoint_first) = (StopMode::Fast, false);
        self.run(i, Job::Stop { mode, checkpoint_first });
    }

    /// The way to a node, without a slot.
    pub fn upstream(&self, of: usize) -> Upstream {
        let name = self.world.nodes[of].name.clone();
        Upstream {
            conn_url: format!("postgres://{name}:5432/postgres"),
            name,
            slot: None,
        }
    }

    /// A client begins a commit. Returns where its record ends.
    pub fn commit(&mut self, i: usize) -> Point {
        self.world.commit_begins(i, 100);
        self.data(i).end()
    }

    /// Clients write so many bytes.
    pub fn write(&mut self, i: usize, bytes: u64) {
        self.world.commit_begins(i, bytes);
        self.pass(100);
    }

    /// A checkpoint; WAL that nobody needs is removed.
    pub fn checkpoint(&mut self, i: usize) {
        self.begin_checkpoint(i, 10);
        self.pass(500);
    }

    /// Was a client told that this commit is done?
    pub fn is_acknowledged(&self, commit: Point) -> bool {
        self.world.clients.ledger.of(commit.branch).last >= commit.lsn
    }

    /// Writes synchronous_standby_names and reloads.
    pub fn set_sync_names(&mut self, i: usize, text: &str) {
        self.world.set_sync_names(i, text).expect("PostgreSQL understands it");
    }

    /// Creates a slot that reserves WAL.
    pub fn create_slot(&mut self, i: usize, name: &str) {
        let op = OpId(0);
        self.world.tend(i, 0, op, &[Tend::CreateSlot(name.into())]);
    }

    /// Somebody asks for a checkpoint, which takes so long.
    pub fn begin_checkpoint(&mut self, i: usize, ms: u64) {
        self.world.nodes[i].pg.trouble.checkpoint_takes = Some(ms * MS);
        self.world.begin_checkpoint(i, true);
    }

    /// kill -9 of the postmaster.
    pub fn kill(&mut self, i: usize) {
        self.world.crash_postgres(i);
    }

    /// The instance.
    pub fn pg(&self, i: usize) -> &SimPostgres {
        &self.world.nodes[i].pg
    }

    /// Its data directory, which must hold a cluster.
    pub fn data(&self, i: usize) -> &Data {
        self.pg(i).data().expect("there is a cluster on disk")
    }

    /// Is it a primary?
    pub fn is_primary(&self, i: usize) -> bool {
        self.pg(i).server == Server::Primary
    }
}
