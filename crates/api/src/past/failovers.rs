//! The course of each fence, as the views of the cluster showed it.

use std::{
    collections::{BTreeSet, VecDeque},
    time::Duration,
};

use pvc_core::model::{ClusterView, DaemonState, Fence, FenceStep, NodeName, Vm, VmId};
use serde::Serialize;

/// So many are kept …
const MOST: usize = 20;
/// … with so many steps each: the first ones and the last.
const MOST_STEPS: usize = 50;

/// One fence.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Failover {
    /// Who is fenced.
    node: NodeName,
    /// Whether the service saw it begin; another one did if not.
    from_the_beginning: bool,
    /// Whether the fence is over.
    over: bool,
    /// In the order of their times.
    steps: Vec<Step>,
    /// Whether it was proven dead.
    #[serde(skip)]
    was_proven: bool,
    /// Which VMs it had, as long as it is told what becomes of them.
    #[serde(skip)]
    had: BTreeSet<VmId>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct Step {
    /// When the service saw it, ms since 1970 by its clock.
    at_unix_ms: u64,
    what: String,
}

#[derive(Default)]
pub(super) struct Failovers {
    /// The newest last.
    all: VecDeque<Failover>,
    /// Whether a view was seen before.
    has_seen: bool,
}

impl Failovers {
    pub(super) fn newest_first(&self) -> Vec<Failover> {
        self.all.iter().rev().cloned().collect()
    }

    /// Takes note of a view. `silence`: how long ago a node's last keepalive was heard.
    pub(super) fn see(
        &mut self,
        now: u64,
        view: &ClusterView,
        silence: impl Fn(&NodeName) -> Option<Duration>,
    ) {
        let good = view.fences.values().filter_map(|entry| entry.good());
        for fence in good {
            let known = self.all.iter().any(|failover| failover.is_of(&fence.node));
            if !known {
                self.begin(now, view, fence, silence(&fence.node));
            }
            let under_way = self.all.iter_mut().find(|failover| failover.is_of(&fence.node));
            if let Some(failover) = under_way {
                failover.goes_on(now, fence, view);
            }
        }
        for failover in self.all.iter_mut().filter(|failover| !view.fences.contains_key(&failover.node)) {
            failover.ends(now, view);
        }
        self.has_seen = true;
    }

    fn begin(&mut self, now: u64, view: &ClusterView, fence: &Fence, silence: Option<Duration>) {
        let was_there = |vm: &&Vm| vm.node.value == fence.node || vm.claim.value.names(&fence.node);
        // Who comes later sees which have left it.
        let has_left = |vm: &&Vm| !self.has_seen && vm.last_node.value.as_ref() == Some(&fence.node);
        let had = view.good_vms().filter(|vm| was_there(vm) || has_left(vm)).map(|vm| vm.id).collect();
        let mut begun = Failover {
            node: fence.node.clone(),
            from_the_beginning: self.has_seen,
            over: false,
            was_proven: false,
            steps: Vec::new(),
            had,
        };
        if let Some(silence) = silence.filter(|_| self.has_seen) {
            let ago = u64::try_from(silence.as_millis()).unwrap_or(u64::MAX);
            begun.says(now.saturating_sub(ago), "its last keepalive was heard".to_owned());
        }
        self.all.push_back(begun);
        if self.all.len() > MOST {
            self.all.pop_front();
        }
    }
}

impl Failover {
    fn is_of(&self, node: &NodeName) -> bool {
        !self.over && self.node == *node
    }

    fn goes_on(&mut self, now: u64, fence: &Fence, view: &ClusterView) {
        let is_proven = fence.job.step.proof().is_some();
        if self.was_proven && !is_proven {
            self.says(
                now,
                "its death is to be proven again: VMs of it had waited, and it may be on".to_owned(),
            );
        }
        self.says(now, words(fence));
        self.was_proven |= is_proven;
        match &view.primary_node.value {
            Some(primary) if *primary == self.node => self.says(now, "it was primary".to_owned()),
            Some(primary) if self.has("it was primary") => self.says(now, format!("{primary} is primary")),
            _ => {}
        }
        if is_proven {
            self.says_who_runs(now, view);
        }
    }

    fn says_who_runs(&mut self, now: u64, view: &ClusterView) {
        let (moved, running) = self.moved(view);
        if moved > 0 {
            self.says(now, format!("{running} of {moved} VMs that have new homes run"));
        }
        // What becomes of them later is no part of this.
        if self.over && running == moved {
            self.had.clear();
        }
    }

    /// How many of its VMs have another node, and how many of them are said to run there.
    fn moved(&self, view: &ClusterView) -> (usize, usize) {
        let moved = |vm: &&Vm| vm.node.value != self.node && vm.last_node.value.as_ref() == Some(&self.node);
        let moved: Vec<&Vm> = self.had.iter().filter_map(|id| view.vm(*id)).filter(moved).collect();
        let runs =
            |vm: &&&Vm| view.node(&vm.node.value).is_some_and(|node| node.report.running.contains(&vm.id));
        (moved.len(), moved.iter().filter(runs).count())
    }

    fn ends(&mut self, now: u64, view: &ClusterView) {
        // The node may be back before they are seen.
        if self.was_proven {
            self.says_who_runs(now, view);
        }
        let dead = view.node(&self.node).map(|node| node.daemon_state.value == DaemonState::Dead);
        if !self.over {
            self.over = true;
            let end = match (dead, self.was_proven) {
                (None, _) => "it was removed from the cluster",
                (Some(true), true) => "the fence is over: all VMs that have new homes run",
                (Some(true), false) => "the fence was called off",
                (Some(false), true) => "it is back",
                (Some(false), false) => "it lives: nothing was done to it",
            };
            self.says(now, end.to_owned());
        } else if dead == Some(false) && self.has("the fence is over: all VMs that have new homes run") {
            self.says(now, "it is back".to_owned());
        }
    }

    /// Once each.
    fn says(&mut self, at_unix_ms: u64, what: String) {
        if self.has(&what) {
            return;
        }
        if self.steps.len() >= MOST_STEPS {
            self.steps.remove(MOST_STEPS / 2);
        }
        self.steps.push(Step { at_unix_ms, what });
    }

    fn has(&self, what: &str) -> bool {
        self.steps.iter().any(|step| step.what == what)
    }
}

fn words(fence: &Fence) -> String {
    let by = &fence.job.by;
    match &fence.job.step {
        FenceStep::Shooting => match &fence.job.asked {
            Some(_) => format!("an operator asked for its fence, {by} cuts its power"),
            None => format!("{by} declares it dead and cuts its power"),
        },
        FenceStep::Failed { reason, .. } => format!("its power could not be cut: {reason}"),
        FenceStep::Proven { proof } => format!("it is dead: {proof}"),
        FenceStep::StorageFenced { .. } => "it is shut out of the storage".to_owned(),
        FenceStep::Recovered { .. } => "its VMs have their new homes".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, sync::Arc};

    use pvc_core::model::{DaemonMode, Entry, FenceJob, NodeReport, Proof, VmChange, VmSet};
    use pvc_store::{
        Store,
        memory::MemoryTree,
        schema,
        schema::node::{Ipmi, Registration},
    };

    use super::*;

    fn name(name: &str) -> NodeName {
        name.parse().unwrap()
    }

    fn view(step: Option<FenceStep>) -> ClusterView {
        let job = |step| FenceJob {
            step,
            instance: None,
            by: "b".into(),
            at_unix_s: 0,
            confirmed_dead: None,
            asked: None,
            keepalive_version: None,
            boot: None,
            freed: BTreeSet::new(),
            earlier: Vec::new(),
        };
        let fence = |step| Fence { node: name("x"), job: job(step), version: 0, fencer: None };
        let fences: BTreeMap<_, _> =
            step.map(|step| (name("x"), Entry::Good(fence(step)))).into_iter().collect();
        ClusterView { fences: Arc::new(fences), ..ClusterView::default() }
    }

    fn told(failovers: &Failovers) -> Vec<(u64, String)> {
        let newest = failovers.newest_first().remove(0);
        newest.steps.into_iter().map(|step| (step.at_unix_ms, step.what)).collect()
    }

    #[test]
    fn each_step_is_told_once_with_the_time_when_it_was_first_seen() {
        let mut failovers = Failovers::default();
        let silent = |_: &NodeName| Some(Duration::from_secs(30));
        let proof = Proof::PowerOff;
        failovers.see(1_000, &view(None), silent);
        failovers.see(40_000, &view(Some(FenceStep::Shooting)), silent);
        failovers.see(40_500, &view(Some(FenceStep::Shooting)), silent);
        failovers.see(41_000, &view(Some(FenceStep::Proven { proof })), silent);
        failovers.see(42_000, &view(None), silent);
        failovers.see(43_000, &view(None), silent);
        let expected = [
            (10_000, "its last keepalive was heard"),
            (40_000, "b declares it dead and cuts its power"),
            (41_000, "it is dead: its BMC reports power off"),
            (42_000, "it was removed from the cluster"),
        ];
        assert_eq!(told(&failovers), expected.map(|(at, what)| (at, what.to_owned())));
        let newest = &failovers.newest_first()[0];
        assert!(newest.over && newest.from_the_beginning);
    }

    #[test]
    fn the_next_fence_of_a_node_is_another_one_and_what_began_before_the_service_is_told_so() {
        let mut failovers = Failovers::default();
        let unheard = |_: &NodeName| None;
        failovers.see(1_000, &view(Some(FenceStep::Shooting)), unheard);
        failovers.see(2_000, &view(None), unheard);
        failovers.see(3_000, &view(Some(FenceStep::Shooting)), unheard);
        let all = failovers.newest_first();
        assert_eq!(
            all.iter().map(|one| (one.from_the_beginning, one.over)).collect::<Vec<_>>(),
            [(true, false), (false, true)]
        );
    }

    #[test]
    fn who_was_primary_is_told_and_who_is_then_and_the_dead_one_never() {
        let mut failovers = Failovers::default();
        let primary = |name: &str, step| {
            let mut view = view(Some(step));
            view.primary_node.value = Some(self::name(name));
            view
        };
        for (at, node) in [(1, "x"), (2, "x"), (3, "y")] {
            failovers.see(at, &primary(node, FenceStep::Shooting), |_| None);
        }
        let told: Vec<String> = told(&failovers).into_iter().map(|(_, what)| what).collect();
        assert_eq!(told, ["b declares it dead and cuts its power", "it was primary", "y is primary"]);
    }

    #[test]
    fn that_a_node_was_proven_dead_counts_however_many_steps_there_were() {
        let mut failovers = Failovers::default();
        let failed = |n: u32| FenceStep::Failed { reason: format!("reason {n}"), attempts: n };
        (0..30).for_each(|n| failovers.see(1, &view(Some(failed(n))), |_| None));
        failovers.see(2, &view(Some(FenceStep::Proven { proof: Proof::Operator })), |_| None);
        (30..90).for_each(|n| failovers.see(3, &view(Some(failed(n))), |_| None));
        assert!(failovers.all[0].was_proven, "{:?}", told(&failovers));
    }

    /// A VM that has moved from `x` to `y`, which says that it runs, or not yet.
    async fn moved(step: Option<FenceStep>, runs: bool) -> ClusterView {
        let id: VmId = "11111111-0000-4000-8000-000000000001".parse().unwrap();
        let store = MemoryTree::new().client();
        schema::root::init(&*store).await.unwrap();
        for name in [name("x"), name("y")] {
            let registration = Registration {
                name: name.clone(),
                mode: DaemonMode::Coordinator,
                static_data: "8 6.1.0 GNU/Linux x86_64".parse().unwrap(),
                boot: "boot".into(),
                keepalive_interval: Duration::from_secs(5),
                vtep: None,
                storage: false,
                ipmi: Ipmi::default(),
            };
            schema::node::register(&*store, &registration).await.unwrap();
            let running = if runs && name.as_str() == "y" { vec![id] } else { Vec::new() };
            let report = NodeReport { running, ..NodeReport::default() };
            store.commit(schema::node::report(&name, &report, None)).await.unwrap();
        }
        let vm_name = "web".parse().unwrap();
        let define =
            VmChange::Define { id, name: vm_name, node: name("y"), xml: String::new(), rbd_images: vec![] };
        schema::vm::apply(&*store, &define).await.unwrap();
        let from = vec![VmSet::LastNode(Some(name("x")))];
        schema::vm::apply(&*store, &VmChange::Update { id, expect: vec![], set: from }).await.unwrap();
        let mut view = view(step);
        for name in [name("x"), name("y")] {
            let node = schema::node::read(&*store, &name).await.unwrap().unwrap();
            Arc::make_mut(&mut view.nodes).insert(name, Arc::new(node));
        }
        let vm = schema::vm::read(&*store, id).await.unwrap().unwrap();
        Arc::make_mut(&mut view.vms).insert(id, Arc::new(vm));
        view
    }

    #[tokio::test]
    async fn a_node_that_is_back_before_its_vms_are_seen_elsewhere_does_not_hide_that() {
        let mut failovers = Failovers::default();
        let proven = FenceStep::Proven { proof: Proof::PowerOff };
        failovers.see(1, &moved(Some(proven), false).await, |_| None);
        failovers.see(2, &moved(None, false).await, |_| None);
        failovers.see(3, &moved(None, true).await, |_| None);
        failovers.see(4, &moved(None, false).await, |_| None);
        let told: Vec<String> = told(&failovers).into_iter().map(|(_, what)| what).collect();
        let expected = [
            "it is dead: its BMC reports power off",
            "0 of 1 VMs that have new homes run",
            "it is back",
            "1 of 1 VMs that have new homes run",
        ];
        assert_eq!(told, expected);
    }

    #[test]
    fn fences_and_their_steps_are_bounded() {
        let mut failovers = Failovers::default();
        for at in 0..100 {
            failovers.see(at, &view(Some(FenceStep::Shooting)), |_| None);
            failovers.see(at, &view(None), |_| None);
        }
        assert_eq!(failovers.newest_first().len(), MOST);
        for attempts in 0..200 {
            let reason = format!("reason {attempts}");
            failovers.see(200, &view(Some(FenceStep::Failed { reason, attempts })), |_| None);
        }
        let steps = told(&failovers);
        assert_eq!(steps.len(), MOST_STEPS);
        assert!(steps[0].1.contains("reason 0") && steps[MOST_STEPS - 1].1.contains("reason 199"));
    }
}
