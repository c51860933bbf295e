//! The agent as the REST API sees it. Called from the API's own thread; everything that waits does so on the agent's
//! runtime, where the connections live.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use pgha_api::{Backend, Expect, Later, PeerClient};
use pgha_core::cluster::ClusterView;
use pgha_core::commit::{Change, Commit, CommitOutcome, FailoverValue, Guard, Key, Purpose};
use pgha_core::peer::PeerView;
use pgha_core::request::{Answer, Request};
use pgha_core::units::{MemberName, Now, Revision};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};

use super::Command;
use super::local::Local;
use super::store::Store;
use crate::clock;

/// Time for one call to etcd on behalf of a REST request.
const DCS_BUDGET: Duration = Duration::from_secs(5);
/// Time for asking peers on behalf of a REST request.
const PEER_BUDGET: Duration = Duration::from_secs(2);

/// The connection between the API and the driver.
pub struct AgentBackend {
    /// The agent's runtime.
    pub runtime: Handle,
    /// etcd.
    pub store: Store,
    /// Configuration in force.
    pub local: Arc<ArcSwap<Local>>,
    /// Asks other members.
    pub peers: Arc<PeerClient>,
    /// To the driver.
    pub commands: mpsc::Sender<Command>,
}

impl AgentBackend {
    /// Runs `work` on the agent's runtime; `fallback` stands in when that has ended.
    fn on_agent<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static, fallback: T) -> Later<'_, T> {
        let task = self.runtime.spawn(work);
        Box::pin(async move { task.await.unwrap_or(fallback) })
    }

    fn commit(
        &self,
        purpose: Purpose,
        key: Key,
        expected: Option<Revision>,
        change: Change,
    ) -> Later<'_, CommitOutcome> {
        let guards = expected.map(|revision| match revision {
            Revision(0) => Guard::Absent(key),
            revision => Guard::Unchanged(key, revision),
        });
        let commit = Commit {
            purpose,
            guards: guards.into_iter().collect(),
            changes: vec![change],
        };
        let (store, local) = (self.store.clone(), self.local.load_full());
        self.on_agent(
            async move { store.commit(&local.identity, &commit, DCS_BUDGET).await },
            CommitOutcome::Refused,
        )
    }

    fn tell(&self, command: Command) {
        if let Err(error) = self.commands.try_send(command) {
            tracing::warn!(%error, "the driver takes no more commands");
        }
    }
}

impl Backend for AgentBackend {
    fn now(&self) -> Now {
        clock::now()
    }

    fn read_cluster(&self) -> Later<'_, Option<ClusterView>> {
        let store = self.store.clone();
        self.on_agent(async move { store.read(DCS_BUDGET).await.ok() }, None)
    }

    fn write_config(&self, text: String, expected: Option<Revision>) -> Later<'_, CommitOutcome> {
        self.commit(Purpose::StoreConfig, Key::Config, expected, Change::PutConfig(text))
    }

    fn write_failover(&self, value: Option<FailoverValue>, expected: Option<Revision>) -> Later<'_, CommitOutcome> {
        self.commit(
            Purpose::UpdateFailover,
            Key::Failover,
            expected,
            Change::PutFailover(value),
        )
    }

    fn request(&self, request: Request) -> Later<'_, Answer> {
        let (answer, waiting) = oneshot::channel();
        self.tell(Command::Request(request, answer));
        Box::pin(async move {
            waiting
                .await
                .unwrap_or_else(|_| Answer::Refused("the agent is stopping".to_owned()))
        })
    }

    fn ask_peers(&self, peers: Vec<(MemberName, String)>) -> Later<'_, BTreeMap<MemberName, PeerView>> {
        let client = Arc::clone(&self.peers);
        let scope = self.local.load().config.scope.clone();
        let work = async move {
            client
                .ask(&peers, &Expect { scope, system_id: None }, PEER_BUDGET)
                .await
        };
        self.on_agent(work, BTreeMap::new())
    }

    fn refresh(&self) -> Later<'_, ()> {
        let (done, waiting) = oneshot::channel();
        self.tell(Command::Refresh(done));
        Box::pin(async move {
            // An agent that is stopping publishes nothing newer.
            waiting.await.unwrap_or(());
        })
    }

    fn reload(&self) {
        self.tell(Command::Reload);
    }

    fn wake(&self) {
        self.tell(Command::Wake);
    }
}
