//! Random walks of two nodes that make and remove OSDs: daemons die and come back, so do machines, the primary moves, operators ask and cancel. In the end one node is
//! gone for good, or both serve: no task stays, and Ceph keeps no number of an OSD that never was.

use std::fmt::Write as _;

use fastrand::Rng;
use pvc_core::{
    command::task::{Cancelled, cancel},
    model::NodeName,
};
use pvc_host::machine::FakeMachine;
use pvc_store::{
    Store,
    mirror::{Mirror, Needs},
    schema::{node::set_daemon_state, task as tasks},
};

use super::*;
use crate::reconcile::network_world::name;

struct Node {
    cluster: Cluster,
    host: Arc<FakeOsds>,
    daemon: Option<(OsdTasks, StorageTasks)>,
    is_dead: bool,
}

struct Walk {
    base: NetworkWorld,
    ceph: Arc<FakeCeph>,
    nodes: Vec<Node>,
    rng: Rng,
    told: String,
}

impl Walk {
    async fn new(seed: u64) -> Self {
        let base = NetworkWorld::new().await;
        let ceph = FakeCeph::new();
        for id in 0..3 {
            ceph.has_osd(OsdId(id), "store", 8);
        }
        ceph.keeps_copies(3);
        let mut nodes = Vec::new();
        for me in ["hv1", "hv2"] {
            let store: Arc<dyn Store> = base.tree.client();
            let needs = Needs { me: Some(name(me)), ..Needs::default() };
            let mirror = Mirror::start_on(Arc::clone(&store), &needs);
            let cluster = Cluster::new(name(me), store, mirror, Arc::new(FakeMachine::default()));
            let host = FakeOsds::new(Arc::clone(&ceph), me);
            for device in [DEVICE, "/dev/sdc"] {
                host.has_device(device, ObservedDevice { size: 4 << 30, ..ObservedDevice::default() });
            }
            nodes.push(Node { cluster, host, daemon: None, is_dead: false });
        }
        let mut walk = Self { base, ceph, nodes, rng: Rng::with_seed(seed), told: String::new() };
        for at in 0..2 {
            walk.begins(at);
        }
        walk.base.primary("hv1").await;
        walk
    }

    fn called(&self, at: usize) -> NodeName {
        self.nodes[at].cluster.me.clone()
    }

    fn begins(&mut self, at: usize) {
        let (ceph, node) = (Arc::clone(&self.ceph), &mut self.nodes[at]);
        let tasks = OsdTasks::start(node.cluster.clone(), ceph.clone(), node.host.clone());
        node.daemon = Some((tasks, StorageTasks::start(node.cluster.clone(), ceph)));
    }

    /// Its machine loses power, and is fenced; or boots again.
    async fn dies(&mut self, at: usize, is_dead: bool) {
        let me = self.called(at);
        self.nodes[at].is_dead = is_dead;
        if is_dead {
            self.nodes[at].daemon = None;
        }
        for id in (3..8).map(OsdId) {
            let own = self.nodes[at].host.local(id).await.unwrap();
            let known = self.ceph.osd(id);
            let is_its = known.as_ref().is_some_and(|osd| osd.host.as_deref() == Some(me.as_str()));
            let is_same = own
                .as_ref()
                .zip(known.as_ref())
                .is_some_and(|(own, osd)| own.uuid.as_ref() == Some(&osd.uuid));
            if is_dead && is_its {
                self.ceph.hears_osd(id, None);
            } else if !is_dead && is_same && own.is_some_and(|own| own.runs) {
                self.ceph.hears_osd(id, Some(me.as_str()));
            }
        }
        let state = if is_dead { DaemonState::Dead } else { DaemonState::Run };
        self.base.store.commit(set_daemon_state(&me, state)).await.unwrap();
        if !is_dead {
            self.begins(at);
        }
    }

    async fn all(&self) -> Vec<Task> {
        let (all, problems) = tasks::read_all(&*self.base.store).await.unwrap();
        assert!(problems.is_empty());
        all.into_iter().map(|seen| seen.task).collect()
    }

    /// As `pvc task cancel`.
    async fn cancels(&mut self) {
        let (all, _) = tasks::read_all(&*self.base.store).await.unwrap();
        let view = self.base.cluster.view();
        for seen in all.into_iter().filter(|seen| !seen.task.is_over()) {
            let _somebody_was_faster = match cancel(&seen.task, view.all_nodes()) {
                Ok(Cancelled::AtOnce) => tasks::cancel(&*self.base.store, &seen, "ann", 2).await,
                Ok(Cancelled::ByItsWorker) => tasks::ask_to_end(&*self.base.store, &seen, "ann", 2).await,
                Err(_) => continue,
            };
        }
    }

    async fn step(&mut self) {
        sleep(Duration::from_millis(self.rng.u64(0..20_000))).await;
        let (at, force) = (self.rng.usize(0..2), self.rng.bool());
        let (node, id) = (self.called(at), self.rng.u32(3..5));
        let what = self.rng.u8(0..8);
        let _written = writeln!(self.told, "{what} {node} {id} {force}");
        let ask = match what {
            0 => format!("osd_add {node},{DEVICE},1"),
            1 => format!("osd_add {node},/dev/sdc,1"),
            2 | 3 => format!("osd_remove {id}"),
            4 => return self.dies(at, !self.nodes[at].is_dead).await,
            5 => {
                self.nodes[at].daemon = None;
                sleep(Duration::from_millis(self.rng.u64(0..10_000))).await;
                if !self.nodes[at].is_dead {
                    self.begins(at);
                }
                return;
            }
            6 if !self.nodes[at].is_dead => return self.base.primary(node.as_str()).await,
            6 => return self.ceph.moves_data(OsdId(id), self.rng.u64(0..5)),
            _ => return self.cancels().await,
        };
        tasks::ask(&*self.base.store, &ask.parse().unwrap(), force, "root", 1).await.unwrap();
    }

    async fn ends(&mut self) {
        let is_gone = self.rng.bool();
        let _written = writeln!(self.told, "hv2 is gone: {is_gone}");
        for at in 0..2 {
            match (at, is_gone, self.nodes[at].is_dead) {
                (1, true, false) => self.dies(1, true).await,
                (1, true, true) => {}
                (_, _, true) => self.dies(at, false).await,
                (_, _, false) => self.begins(at),
            }
        }
        self.base.primary("hv1").await;
        if is_gone {
            others::is_gone(&self.base, "hv2").await;
        }
        for _ in 0..400 {
            (3..8).for_each(|id| self.ceph.moves_data(OsdId(id), 0));
            sleep(Duration::from_secs(10)).await;
            if self.all().await.iter().all(Task::is_over) {
                break;
            }
        }
        let (all, told) = (self.all().await, &self.told);
        let open: Vec<&Task> = all.iter().filter(|task| !task.is_over()).collect();
        assert!(open.is_empty(), "{told}{open:#?}");
        let known = self.ceph.osd_map().await.unwrap().all;
        let never: Vec<_> = known.iter().filter(|(_, osd)| !osd.was_up).collect();
        assert!(never.is_empty(), "{told}{never:#?}\n{all:#?}");
        for task in all.iter().filter(|task| matches!(task.state, TaskState::Done { .. })) {
            let (StorageCommand::OsdRemove { .. }, Some(own)) = (&task.command, &task.osd) else { continue };
            assert!(known.values().all(|osd| osd.uuid != own.uuid), "{told}{task:#?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn no_task_of_osds_outlives_its_node_whatever_happens_before() {
    for seed in 0..60 {
        let mut walk = Walk::new(seed).await;
        let _written = writeln!(walk.told, "seed {seed}");
        for _ in 0..15 {
            walk.step().await;
        }
        walk.ends().await;
    }
}
