//! The safety oracles, looked at after every event. Names are those of the invariants in `docs/ARCHITECTURE.md`.

use pgha_core::effect::FenceOrder;
use pgha_core::units::Revision;

use crate::world::{BASE, World};

impl World {
    /// Looks at all oracles. A violation is recorded once per text.
    pub fn check(&mut self) {
        let broken = [
            self.s1_one_valid_writer(),
            self.s2_self_fencing(),
            self.s11_truthful_endpoints(),
            self.s16_books_match(),
        ];
        for text in broken.into_iter().flatten() {
            if !self.violations.contains(&text) {
                self.violations.push(text);
            }
        }
    }

    /// S1: at no instant are two nodes writable while holding, each by its own books, an unexpired deadline.
    fn s1_one_valid_writer(&self) -> Option<String> {
        let valid: Vec<String> = (0..self.nodes.len())
            .filter(|i| {
                let node = &self.nodes[*i];
                let unexpired = matches!(node.fence, Some(FenceOrder::Until(at)) if self.boot(*i) < at);
                node.pg.is_writable() && unexpired
            })
            .map(|i| self.nodes[i].name.to_string())
            .collect();
        (valid.len() > 1).then(|| format!("S1: {} accept writes with unexpired deadlines", valid.join(" and ")))
    }

    /// S2: whoever is writable is within its deadline, whatever became of its agent.
    fn s2_self_fencing(&self) -> Option<String> {
        (0..self.nodes.len()).find_map(|i| {
            let node = &self.nodes[i];
            let fenced = match node.fence {
                Some(FenceOrder::Until(at)) => self.boot(i) <= at,
                Some(FenceOrder::Paused) => true,
                Some(FenceOrder::StandbyOnly) | None => false,
            };
            (node.pg.is_writable() && !fenced).then(|| format!("S2: {} is writable under {:?}", node.name, node.fence))
        })
    }

    /// S3: a promotion begins only with a proof, of the very key that etcd has, made before the facts were read.
    pub(crate) fn check_promotion(&mut self, i: usize) {
        let broken = {
            let node = &self.nodes[i];
            let Some(view) = node.agent.as_ref().map(|a| a.view()) else {
                return;
            };
            let proof = view.memory.proof;
            let read = view.cluster().map(|c| c.revision);
            match (proof, read) {
                (Some(proof), Some(read)) => {
                    let written = self
                        .etcd
                        .log
                        .get(&proof.revision.0)
                        .is_some_and(|keys| keys.iter().any(|k| k.ends_with("/status")));
                    let ordered = read >= proof.revision && proof.deadline > self.boot(i);
                    (!written || !ordered).then(|| format!("S3: {} promotes without a good proof", node.name))
                }
                (None, _) | (_, None) => Some(format!("S3: {} promotes without proof or facts", node.name)),
            }
        };
        self.violations.extend(broken);
    }

    /// S11: the health check for the primary answers 200 on one node at most.
    fn s11_truthful_endpoints(&self) -> Option<String> {
        let answering: Vec<String> = (0..self.nodes.len())
            .filter(|i| {
                let node = &self.nodes[*i];
                let view = node.agent.as_ref().filter(|_| node.stopped.is_none()).map(|a| a.view());
                view.is_some_and(|v| v.answers_as_primary(self.boot(*i)))
            })
            .map(|i| self.nodes[i].name.to_string())
            .collect();
        (answering.len() > 1).then(|| format!("S11: {} answer as primary", answering.join(" and ")))
    }

    /// S16: what a node believes to have proven was written, whatever happened to the answers.
    fn s16_books_match(&self) -> Option<String> {
        let status = format!("{BASE}/status");
        self.nodes.iter().find_map(|node| {
            let proof = node.agent.as_ref()?.view().memory.proof?;
            let written = self
                .etcd
                .log
                .get(&proof.revision.0)
                .is_some_and(|keys| keys.contains(&status));
            (!written || proof.revision > Revision(self.etcd.revision())).then(|| {
                format!(
                    "S16: {} believes in a proof at revision {} that was never written",
                    node.name, proof.revision.0
                )
            })
        })
    }

    /// L1: after calm there is a leader whose PostgreSQL accepts writes, and L3: everybody runs or says why not.
    pub fn check_progress(&mut self) {
        let leader = self.read_cluster().leader_name().cloned();
        let writable: Vec<String> = self
            .nodes
            .iter()
            .filter(|n| n.pg.is_writable())
            .map(|n| n.name.to_string())
            .collect();
        match leader {
            Some(name) if writable == [name.to_string()] => {}
            other => self.violations.push(format!(
                "L1: after calm the leader key names {:?} and these accept writes: {writable:?}",
                other.map(|n| n.to_string())
            )),
        }
    }
}
