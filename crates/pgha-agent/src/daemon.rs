//! The start of the daemon: what must hold before the first cycle, and how everything is put together.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use pgha_api::{AccessSettings, Api, ApiServer, ApiSettings, PeerClient, StatusBoard};
use pgha_core::known::KnownCluster;
use pgha_core::node::Node;
use pgha_dcs::etcd::{EtcdConfig, EtcdDcs};
use pgha_dcs::{Dcs, DcsError};
use pgha_postgres::{InstanceSpec, KEPT_CLUSTER, PgBin};
use pgha_wire::config::{Loaded, LocalConfig, ServerTokens, VerifyClient};
use pgha_wire::kept::parse_kept;
use pgha_wire::keys::base_path;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use crate::driver::backend::AgentBackend;
use crate::driver::guard::FenceGuard;
use crate::driver::local::{Local, rest_authentication};
use crate::driver::publish::{Tally, node_status};
use crate::driver::store::{Store, namesake};
use crate::driver::{Command, Driver, Ending, MAX_EVENTS, Parts};
use crate::state_dir::StateDir;
use crate::{clock, config_files, logging, memory};

/// Commands that may wait for the driver.
const MAX_COMMANDS: usize = 256;
/// Budget of one attempt to reach etcd at the start.
const START_BUDGET: Duration = Duration::from_secs(5);
/// Pause between attempts to reach etcd at the start.
const START_PAUSE: Duration = Duration::from_secs(2);
/// When everything that runs only at the start has run.
const SETTLED: Duration = Duration::from_secs(15);
/// How long a namesake may take to answer.
const NAMESAKE_LIMIT: Duration = Duration::from_secs(3);
/// The agent's runtime needs no deep stacks.
const STACK: usize = 512 * 1024;
/// Blocking calls (looking at the disk) at one time.
const BLOCKING_THREADS: usize = 8;

/// Why the daemon does not start.
#[derive(Debug)]
struct Refusal(String);

impl<E: std::error::Error> From<E> for Refusal {
    fn from(error: E) -> Refusal {
        let mut text = error.to_string();
        let mut source = error.source();
        while let Some(inner) = source {
            text.push_str(": ");
            text.push_str(&inner.to_string());
            source = inner.source();
        }
        Refusal(text)
    }
}

/// Runs the daemon to its end.
pub fn run(path: Option<&Path>, loaded: Loaded) -> ExitCode {
    if let Err(error) = logging::start(&loaded.config.log) {
        eprintln!("{error}");
        return ExitCode::FAILURE;
    }
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .thread_stack_size(STACK)
        .max_blocking_threads(BLOCKING_THREADS)
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("cannot start the runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    let path = path.map(Path::to_path_buf);
    let ended = runtime.block_on(serve(path, loaded.config));
    runtime.shutdown_timeout(Duration::from_millis(200));
    match ended {
        Ok(ending) => ExitCode::from(ending.code),
        Err(Refusal(reason)) => {
            tracing::error!("{reason}");
            // The log thread has the line; give it the moment it needs to write it.
            std::thread::sleep(Duration::from_millis(50));
            ExitCode::FAILURE
        }
    }
}

async fn serve(path: Option<PathBuf>, config: LocalConfig) -> Result<Ending, Refusal> {
    let pg = &config.postgresql;
    if nix::unistd::geteuid().is_root() {
        return Err(Refusal(
            "pgha does not run as root, since PostgreSQL refuses root: start it as the owner of the data directory"
                .to_owned(),
        ));
    }
    refuse_tls(&config)?;
    let state_dir = Arc::new(StateDir::open(config.pgha.state_dir.as_deref(), &pg.data_dir)?);
    let _only_agent = state_dir.lock_agent()?;
    if state_dir.path().starts_with("/tmp") && !config.postgresql.data_dir.starts_with("/tmp") {
        tracing::warn!(
            state_dir = %state_dir.path().display(),
            "the marks of unfinished copies are kept where a reboot may clear them; set pgha.state_dir to a lasting place"
        );
    }
    let cached_config = read_cache(&config);
    let dynamic = cached_config
        .clone()
        .unwrap_or_else(|| config.bootstrap.dcs.to_string());
    let major = installed_major(&config, &dynamic, state_dir.path()).await?;
    let local = Local::new(config, &dynamic, state_dir.path(), major, None);

    let dcs = EtcdDcs::new(EtcdConfig::from_section(&local.config.etcd)?)?;
    let base = base_path(&local.config.namespace, &local.config.scope);
    let store = Store::new(Arc::new(dcs.clone()) as Arc<dyn Dcs>, base);
    let peers = Arc::new(PeerClient::new(Arc::new(clock::boot)));
    let (events, inbox) = mpsc::channel(MAX_EVENTS);
    let (commands, orders) = mpsc::channel(MAX_COMMANDS);
    listen_to_signals(commands.clone())?;

    // The fence first: whatever it guards must not wait for etcd.
    let (fence, found_fence) = if local.config.pgha.fence {
        FenceGuard::attach(Arc::clone(&state_dir), events.clone()).await?
    } else {
        tracing::warn!("pgha.fence is off: PostgreSQL is not stopped when this agent dies");
        (FenceGuard::Off, None)
    };
    wait_for_etcd(&dcs).await?;
    refuse_namesake(&store, &local).await?;

    let node = Node::new(
        clock::now(),
        local.node_spec(cached_config.clone(), read_kept(&local.config)),
    );
    let first = node_status(&node, &Tally::default(), None, clock::boot());
    let board = Arc::new(StatusBoard::new(first, None, clock::now()));
    let settings = api_settings(&local.config);
    let listen = local.config.restapi.listen.clone();
    let local = Arc::new(ArcSwap::from_pointee(local));
    let backend = AgentBackend {
        runtime: tokio::runtime::Handle::current(),
        store: store.clone(),
        local: Arc::clone(&local),
        peers: Arc::clone(&peers),
        commands,
    };
    let api = Api::new(Arc::clone(&board), Arc::new(backend), &settings)?;
    let configured = Arc::clone(&api);
    let server = ApiServer::start(&listen.host, listen.port, api.router(), Arc::new(clock::boot))?;

    let reread = move || -> Result<LocalConfig, String> {
        config_files::read(path.as_deref())
            .map(|l| l.config)
            .map_err(|lines| lines.join("; "))
    };
    let configure_api = move |config: &LocalConfig| {
        if let Err(error) = configured.configure(&api_settings(config)) {
            tracing::error!(%error, "the REST API's settings stay as they were");
        }
    };
    let driver = Driver::new(Parts {
        configure_api: Box::new(configure_api),
        store,
        local,
        fence: fence.clone(),
        found_fence,
        peers,
        board,
        events,
        inbox,
        commands: orders,
        reread: Box::new(reread),
        state_dir: state_dir.path().to_path_buf(),
        cached_config,
        node,
    })?;
    tokio::spawn(async {
        tokio::time::sleep(SETTLED).await;
        memory::give_back_start_up_pages();
    });
    let ending = driver.run().await?;
    if !ending.leave_running {
        fence.quit().await;
    }
    tokio::task::spawn_blocking(move || server.stop()).await?;
    tracing::info!(code = ending.code, "the agent ends");
    Ok(ending)
}

/// An API that was meant to be encrypted must not be served in clear text.
fn refuse_tls(config: &LocalConfig) -> Result<(), Refusal> {
    let r = &config.restapi;
    if r.certfile.is_some() || r.verify_client != VerifyClient::None {
        return Err(Refusal(
            "restapi.certfile and restapi.verify_client: TLS of the REST API is not supported yet by this version; \
             remove them to serve it in clear text, or put a proxy that does TLS in front of it"
                .to_owned(),
        ));
    }
    Ok(())
}

/// The dynamic configuration as it was cached in the data directory.
fn read_cache(config: &LocalConfig) -> Option<String> {
    let path = config.postgresql.data_dir.join("patroni.dynamic.json");
    let text = std::fs::read_to_string(&path).ok()?;
    match serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(&text) {
        Ok(_) => Some(text),
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "the cached dynamic configuration cannot be used");
            None
        }
    }
}

/// What an earlier life of this daemon kept of the cluster. Without it the daemon knows what etcd tells, as on a new node.
fn read_kept(config: &LocalConfig) -> Option<KnownCluster> {
    let path = config.postgresql.data_dir.join(KEPT_CLUSTER);
    let told = |error: &dyn std::fmt::Display| {
        tracing::warn!(path = %path.display(), %error, "the members of before are not known");
    };
    match std::fs::read_to_string(&path) {
        Ok(text) => parse_kept(&text).inspect_err(|error| told(error)).ok(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => {
            told(&error);
            None
        }
    }
}

async fn installed_major(config: &LocalConfig, dynamic: &str, state_dir: &Path) -> Result<u32, Refusal> {
    let probe = Local::new(config.clone(), dynamic, state_dir, 0, None);
    let spec: &InstanceSpec = probe.instance.spec();
    let version = PgBin::new(spec).version().await?;
    tracing::info!(%version, "PostgreSQL");
    if !(13..=18).contains(&version.major) {
        tracing::warn!(%version, "this version of PostgreSQL is not among those that pgha is tested with (13 to 18)");
    }
    Ok(version.major)
}

/// Waits until etcd answers: without it nothing may be decided. A refused login is final.
async fn wait_for_etcd(dcs: &EtcdDcs) -> Result<(), Refusal> {
    loop {
        match dcs.survey(START_BUDGET).await {
            Ok(()) => return Ok(()),
            Err(error @ DcsError::Denied { .. }) => return Err(error.into()),
            Err(error) => tracing::warn!(%error, "waiting on etcd"),
        }
        tokio::time::sleep(START_PAUSE).await;
    }
}

/// Two nodes of one name would take each other's keys for their own.
async fn refuse_namesake(store: &Store, local: &Local) -> Result<(), Refusal> {
    let view = loop {
        match store.read(START_BUDGET).await {
            Ok(view) => break view,
            Err(error) => tracing::warn!(%error, "Can not get cluster from dcs"),
        }
        tokio::time::sleep(START_PAUSE).await;
    };
    let name = &local.config.name;
    let Some(url) = namesake(&view, name) else {
        return Ok(());
    };
    if answers(url).await {
        return Err(Refusal(format!(
            "Can't start; there is already a node named '{name}' running (it answers at {url}). Give this node another name, or stop that one"
        )));
    }
    Ok(())
}

/// Any HTTP answer counts, whatever it says.
async fn answers(api_url: &str) -> bool {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let Some((host, port)) = pgha_core::conninfo::host_port(api_url) else {
        return false;
    };
    let ask = async {
        let mut stream = tokio::net::TcpStream::connect((host.as_str(), port)).await.ok()?;
        stream.write_all(b"GET /liveness HTTP/1.0\r\n\r\n").await.ok()?;
        let mut head = [0u8; 5];
        stream.read_exact(&mut head).await.ok()?;
        Some(&head == b"HTTP/")
    };
    matches!(tokio::time::timeout(NAMESAKE_LIMIT, ask).await, Ok(Some(true)))
}

fn listen_to_signals(commands: mpsc::Sender<Command>) -> Result<(), Refusal> {
    let mut term = signal(SignalKind::terminate())?;
    let mut int = signal(SignalKind::interrupt())?;
    let mut hup = signal(SignalKind::hangup())?;
    tokio::spawn(async move {
        loop {
            let command = tokio::select! {
                _ = term.recv() => Command::Terminate,
                _ = int.recv() => Command::Terminate,
                _ = hup.recv() => Command::Reload,
            };
            if commands.send(command).await.is_err() {
                return;
            }
        }
    });
    Ok(())
}

fn api_settings(config: &LocalConfig) -> ApiSettings {
    let r = &config.restapi;
    ApiSettings {
        access: AccessSettings {
            allowlist: r.allowlist.clone(),
            include_members: r.allowlist_include_members,
            authentication: rest_authentication(config),
        },
        server: match r.server_tokens {
            ServerTokens::ProductOnly => "pgha".to_owned(),
            ServerTokens::Minimal | ServerTokens::Original => format!("pgha/{}", env!("CARGO_PKG_VERSION")),
        },
        extra_headers: r
            .http_extra_headers
            .iter()
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect(),
    }
}
