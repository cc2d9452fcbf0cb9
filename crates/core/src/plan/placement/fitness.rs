//! Whether a node can take a VM, and if not, why. The only place that says so; who asks differs in what it minds, see [`Asker`].

use std::fmt;

use crate::{
    model::{ClusterView, DaemonState, DomainState, Entry, FenceStep, Node, NodeName},
    sabotage::{self, Bug},
};

/// Why a node cannot take a VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unfit {
    /// The asker excludes it: the VM is there, or shall leave it.
    Excluded,
    /// It could not start the VM.
    Refused,
    /// As many migrations go on as the asker allows.
    Busy,
    /// Its keys cannot be read.
    Unreadable,
    /// It has not been heard of for too long.
    Silent,
    /// It is being fenced.
    Fenced,
    /// Its daemon does not work.
    Daemon(DaemonState),
    /// It can start no VMs now, as it says, for this reason.
    Hypervisor(String),
    /// It takes no VMs now.
    Domains(DomainState),
    /// The VM has RBD disks, and the node does not manage storage.
    NoStorage,
    /// Its memory is spoken for.
    Memory {
        /// What is left of it, MiB.
        free_mib: u64,
        /// What the VM needs, MiB.
        needed_mib: u64,
    },
    /// There is no such node.
    Unknown,
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Excluded => f.write_str("is the one that it leaves"),
            Self::Refused => f.write_str("could not start it"),
            Self::Busy => f.write_str("takes in as many at once as it may"),
            Self::Unreadable => f.write_str("has keys that cannot be read"),
            Self::Silent => f.write_str("is silent"),
            Self::Fenced => f.write_str("is being fenced"),
            Self::Daemon(state) => write!(f, "has a daemon in state {state}"),
            Self::Hypervisor(why) => write!(f, "can start no VMs: {why}"),
            Self::Domains(state) => write!(f, "takes no VMs: it is in state {state}"),
            Self::NoStorage => {
                f.write_str("does not manage storage (enable_storage), and the VM has RBD disks")
            }
            Self::Memory { free_mib, needed_mib } => {
                write!(f, "has {free_mib} MiB of memory left, {needed_mib} MiB are needed")
            }
            Self::Unknown => f.write_str("is not in the cluster"),
        }
    }
}

/// Who asks about a node. The first reason that the asker minds is the answer; this table is `Asker::minds`:
///
/// | reason              | `Placement` | `Source` | `Return` | `Home` | `Departure` |
/// |---------------------|-------------|----------|----------|--------|-------------|
/// | being fenced        | minds       | minds    | –        | –      | minds       |
/// | daemon does not run | minds       | minds    | –        | minds  | minds       |
/// | silent              | minds       | – (1)    | –        | –      | –           |
/// | keys unreadable     | minds       | minds    | –        | minds  | –           |
/// | can start no VMs    | minds       | minds    | minds    | – (2)  | –           |
/// | `flush`, `flushed`  | minds       | minds    | –        | – (2)  | –           |
/// | `unflush`           | minds       | –        | –        | – (2)  | –           |
/// | no storage (3, 5)   | minds       | – (6)    | minds    | –      | –           |
/// | memory (3)          | minds       | – (4)    | minds    | –      | –           |
///
/// (1) The source asks whether the target's daemon has a session instead, at the moment of the hand-over.
/// (2) Comes after the others, see [`super::choose`].
/// (3) Counted by [`super::ClusterCapacity`], after all other reasons.
/// (4) Counted when the target was chosen, and reserved since.
/// (5) Of a VM with RBD disks; a node that has not said may manage it.
/// (6) The target says whether it could start the VM, and this is one of the things that it looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asker {
    /// Who chooses a node for a VM that is to run: recovery, flush, a daemon that cannot start it, `pvc vm migrate`.
    Placement,
    /// The daemon that is to send a VM to a target that was chosen before.
    Source,
    /// Who brings a VM back to the node that it came from: that node's unflush, `pvc vm migrate --force`.
    Return,
    /// Who says where a VM that is off belongs: `pvc vm define`, `pvc vm move`.
    Home,
    /// `pvc vm migrate`, of the node that the VM is to leave: whether anybody there could send it.
    Departure,
}

impl Asker {
    fn minds(self, unfit: &Unfit) -> bool {
        match (self, unfit) {
            (Self::Placement, _) => true,
            (Self::Source, unfit) => !matches!(unfit, Unfit::Silent | Unfit::Domains(DomainState::Unflush)),
            (Self::Return, unfit) => matches!(unfit, Unfit::Hypervisor(_)),
            (Self::Home, unfit) => matches!(unfit, Unfit::Daemon(_) | Unfit::Unreadable),
            (Self::Departure, unfit) => matches!(unfit, Unfit::Daemon(_) | Unfit::Fenced),
        }
    }

    /// The first of a node's reasons that this asker minds.
    pub(super) fn first(self, reasons: &[Unfit]) -> Result<(), Unfit> {
        reasons.iter().find(|unfit| self.minds(unfit)).map_or(Ok(()), |unfit| Err(unfit.clone()))
    }
}

/// Whether a node can take a VM, but for its memory.
///
/// # Errors
/// Why not.
pub fn fit(view: &ClusterView, name: &NodeName, asker: Asker) -> Result<(), Unfit> {
    let node = view.node(name).ok_or(Unfit::Unknown)?;
    asker.first(&reasons(node, is_being_fenced(view, name), false))
}

/// Everything that speaks against a node, the gravest first.
pub(super) fn reasons(node: &Node, fenced: bool, silent: bool) -> Vec<Unfit> {
    let (daemon, domains) = (node.daemon_state.value, node.domain_state.value);
    let ignored = sabotage::commits(Bug::PlaceAtTheUnable);
    let cannot_start = node.report.cannot_start.as_ref().filter(|_| !ignored);
    let all = [
        fenced.then_some(Unfit::Fenced),
        (daemon != DaemonState::Run).then_some(Unfit::Daemon(daemon)),
        silent.then_some(Unfit::Silent),
        (!node.problems.is_empty()).then_some(Unfit::Unreadable),
        cannot_start.cloned().map(Unfit::Hypervisor),
        (domains != DomainState::Ready).then_some(Unfit::Domains(domains)),
    ];
    all.into_iter().flatten().collect()
}

/// From the moment it was declared dead until its VMs have new homes.
pub(super) fn is_being_fenced(view: &ClusterView, node: &NodeName) -> bool {
    view.fences.get(node).is_some_and(|entry| match entry {
        Entry::Good(fence) => !matches!(fence.job.step, FenceStep::Recovered { .. }),
        Entry::Bad(_) => true,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        command::testing::{name, node, view},
        model::Problem,
    };

    /// Which askers mind what is wrong with a node.
    fn minded(wrong: impl Fn(&mut Node)) -> Vec<Asker> {
        let mut b = node("b");
        wrong(&mut b);
        let view = view(&[b], &[]);
        let all = [Asker::Placement, Asker::Source, Asker::Return, Asker::Home, Asker::Departure];
        all.into_iter().filter(|asker| fit(&view, &name("b"), *asker).is_err()).collect()
    }

    #[test]
    fn each_asker_minds_what_the_table_says() {
        use Asker::{Departure, Home, Placement, Return, Source};
        assert_eq!(minded(|_| {}), []);
        for state in [DaemonState::Init, DaemonState::Shutdown, DaemonState::Stop, DaemonState::Dead] {
            assert_eq!(minded(|n| n.daemon_state.value = state), [Placement, Source, Home, Departure]);
        }
        for state in [DomainState::Flush, DomainState::Flushed] {
            assert_eq!(minded(|n| n.domain_state.value = state), [Placement, Source]);
        }
        assert_eq!(minded(|n| n.domain_state.value = DomainState::Unflush), [Placement]);
        let unable = |n: &mut Node| n.report.cannot_start = Some("no libvirt".into());
        assert_eq!(minded(unable), [Placement, Source, Return]);
        let problem = || Problem { key: "/nodes/b/memfree".into(), what: "no number".into() };
        assert_eq!(minded(|n| n.problems.push(problem())), [Placement, Source, Home]);
        let unknown = fit(&ClusterView::default(), &name("b"), Return);
        assert_eq!(unknown, Err(Unfit::Unknown), "whoever asks");
    }

    #[test]
    fn the_gravest_reason_is_told() {
        let mut b = node("b");
        b.report.cannot_start = Some("no libvirt".into());
        b.domain_state.value = DomainState::Flushed;
        let told =
            |b: &Node| fit(&view(std::slice::from_ref(b), &[]), &name("b"), Asker::Source).unwrap_err();
        assert_eq!(told(&b).to_string(), "can start no VMs: no libvirt");
        b.daemon_state.value = DaemonState::Stop;
        assert_eq!(told(&b).to_string(), "has a daemon in state stop");
    }
}
