//! Commands on VMs: define, start, stop, shutdown, restart, migrate, unmigrate, move, modify, undefine.
//!
//! Each command becomes one change that is decided from the keys it was read with; a newer desired state of somebody else is
//! never overwritten. None of them waits for the outcome: the daemon of the VM's node brings it about.

mod desired;
mod migrate;
mod modify;
#[cfg(test)]
mod tests;
mod undefine;

pub use desired::{restart, shutdown, start, stop, strained};
pub use migrate::{Migrate, Moved, Target, migrate, move_to, unmigrate};
pub use modify::modify;
pub use undefine::{Undefine, undefine};

use super::{Accepted, Refusal, Roster, find};
use crate::{
    model::{Completed, DaemonState, DomainSpec, Node, NodeName, VmChange, VmId},
    plan::placement::{self, ClusterCapacity, Selector, Size},
};

/// A request to define a VM.
#[derive(Debug, Clone, Copy)]
pub struct Define<'a> {
    /// The checked definition.
    pub spec: &'a DomainSpec,
    /// The node that shall run it; `None`: the selector chooses.
    pub target: Option<&'a str>,
    /// How a node is chosen.
    pub selector: Selector,
}

/// Defines a new VM; it is off afterwards, unless it runs somewhere already, not managed so far: that node adopts it. Answers also with the node that was chosen: one that could take it now, else, since
/// a new cluster's nodes all start flushed, the one that comes nearest to it.
pub fn define<'a>(
    request: Define<'_>,
    roster: &Roster,
    nodes: impl Iterator<Item = &'a Node> + Clone,
    capacity: &ClusterCapacity,
) -> Result<(NodeName, Accepted), Refusal> {
    let spec = request.spec;
    let what = || format!("VM {} was not defined", spec.name);
    if let Some(present) = roster.name(spec.id) {
        let why = format!("UUID {} belongs to VM {present}", spec.id);
        let todo = if present == spec.name.as_str() {
            "it is defined already; to change it, undefine it first (its disks stay) and define it again"
                .to_owned()
        } else {
            "give the new VM a UUID of its own, for instance from uuidgen".to_owned()
        };
        return Err(Refusal::refused(what(), why, todo));
    }
    if let Some((other, _)) = roster.iter().find(|(_, name)| *name == spec.name.as_str()) {
        let why = format!("VM {other} has this name");
        return Err(Refusal::refused(what(), why, "choose another name, or undefine the other VM"));
    }
    // Whoever names one of two such VMs means the other one.
    if spec.name.as_str().parse::<VmId>().is_ok_and(|id| id != spec.id) {
        let why = "its name has the form of a UUID, and is not its own".to_owned();
        return Err(Refusal::refused(what(), why, "choose another name"));
    }
    if let Some((other, _)) = roster.iter().find(|(_, name)| name.parse() == Ok(spec.id)) {
        let why = format!("VM {other} has its UUID for a name");
        return Err(Refusal::refused(what(), why, "give it another UUID, for instance from uuidgen"));
    }
    let target = request.target.map(|target| find::node(nodes.clone(), target)).transpose();
    let target = target.map_err(|r| Refusal { what: what(), why: r.what, ..r })?;
    let runs_on: Vec<&Node> = nodes.clone().filter(|node| node.report.running.contains(&spec.id)).collect();
    let runs_on = match runs_on[..] {
        [] => None,
        [node] => Some(node),
        [one, other, ..] => {
            let why = format!("it runs on {} and on {}", one.name, other.name);
            return Err(Refusal::refused(what(), why, "end it on one of them first, with virsh destroy"));
        }
    };
    if let (Some(runs_on), Some(target)) = (runs_on, target)
        && runs_on.name != target.name
    {
        let (here, there) = (&runs_on.name, &target.name);
        let todo = format!("define it on {here}, then migrate it to {there}");
        return Err(Refusal::refused(what(), format!("it runs on {here}"), todo));
    }
    let size = Size::from(spec);
    let room = || capacity.choose(spec.id, size, request.selector, |_| None).ok();
    let fit = || room().and_then(|name| nodes.clone().find(|node| node.name == name));
    let nearest = || placement::choose(nodes.clone(), request.selector);
    let chosen = runs_on.or(target).or_else(fit).or_else(nearest).ok_or_else(|| {
        Refusal::refused(what(), "no node's daemon runs", "start pvcd on a node, or name one with --target")
    })?;
    let warning = not_running(chosen).map(|trouble| format!("{trouble}; the VM cannot start before"));
    let memory = capacity.takes_back(&chosen.name, spec.id, size).err();
    let warning = warning.or_else(|| memory.map(|unfit| format!("{} {unfit}", chosen.name)));
    let adopted = runs_on.map(|node| format!("it runs on {} already, which adopts it as it is", node.name));
    let (xml, filled_in) = fill_in(spec);
    let notes = adopted.or(warning).into_iter().chain(filled_in).collect();
    let chosen = chosen.name.clone();
    let change = VmChange::Define {
        id: spec.id,
        name: spec.name.clone(),
        node: chosen.clone(),
        xml,
        rbd_images: spec.rbd_images.clone(),
    };
    Ok((chosen, Accepted { change: Some(change), notes }))
}

/// A definition as it is written, and what to say if it was not complete.
fn fill_in(spec: &DomainSpec) -> (String, Option<String>) {
    let unchanged = || Completed { xml: spec.xml.clone(), filled_in: Vec::new() };
    // A definition that was read can be read again.
    let Completed { xml, filled_in } = spec.completed().unwrap_or_else(|_| unchanged());
    let said = (!filled_in.is_empty())
        .then(|| format!("filled in, as older clients cannot do without: {}", filled_in.join(" ")));
    (xml, said)
}

/// What to say of a node that starts nothing now.
fn not_running(node: &Node) -> Option<String> {
    let name = &node.name;
    match node.daemon_state.value {
        DaemonState::Run => {
            node.report.cannot_start.as_ref().map(|why| format!("{name} can start no VMs now: {why}"))
        }
        DaemonState::Init => Some(format!("the daemon of {name} is starting")),
        DaemonState::Shutdown | DaemonState::Stop => {
            Some(format!("the daemon of {name} is stopped: start pvcd there"))
        }
        DaemonState::Dead => Some(format!("{name} is dead: bring it back")),
    }
}
