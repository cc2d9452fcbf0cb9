//! `pvc node flush|ready|primary|secondary`: writes the wish, then, if asked to, waits until it is seen to be so.

use pvc_core::{
    command::{
        Accepted, Refusal, Roster,
        node::{self as command, NodeChange},
    },
    model::{ClusterView, DomainState, FlushProgress, Node, NodeName, RouterState},
};
use pvc_store::{
    CommitError, Transaction,
    schema::{flush, node, primary as holder, root},
};

use crate::{
    args::{Follow, Handover},
    connect::Connection,
    failure::Failure,
    print::Out,
    wait::{self, Look, Waited},
};

/// How often a wish is decided anew because the keys moved meanwhile.
const ATTEMPTS: usize = 5;

/// Which wish about a node's VMs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Flush,
    Ready,
}

impl Kind {
    fn wished(self) -> &'static str {
        match self {
            Self::Flush => "is to be flushed",
            Self::Ready => "is to take VMs",
        }
    }

    fn done(self) -> &'static str {
        match self {
            Self::Flush => "is flushed",
            Self::Ready => "takes VMs",
        }
    }
}

pub(super) async fn domain_state(
    cluster: &Connection,
    out: &Out,
    kind: Kind,
    args: &Follow,
) -> Result<(), Failure> {
    let decide = |view: &ClusterView| match kind {
        Kind::Flush => command::flush(view, &args.node),
        Kind::Ready => command::ready(view, &args.node),
    };
    let (_, accepted) = write(cluster, decide).await?;
    let name = &args.node;
    if !args.wait {
        return out.message(&format!("{name} {}", kind.wished()), &accepted.notes);
    }
    for note in &accepted.notes {
        out.aside(&format!("{name}: {note}"));
    }
    let node: NodeName =
        name.parse().map_err(|e: pvc_core::model::NameError| Failure::Usage(e.to_string()))?;
    let paths = [node::domain_state_path(&node), flush::path(&node), node::explain_path(&node)];
    let mut last = FlushProgress::default();
    let look = async || {
        if let Some(Ok(progress)) = flush::read(&*cluster.store, &node).await? {
            last = progress;
        }
        let said = node::read_explanation(&*cluster.store, &node).await?.and_then(Result::ok);
        judge(kind, &read(cluster, &node).await?, &last, said.map(|e| format!("{}: {}", e.doing, e.because)))
    };
    let ended = wait::until(&*cluster.store, &paths, args.within, out, look).await?;
    match ended {
        Waited::Done(()) => {
            let notes = stuck(&last, &cluster.roster().await?);
            out.message(&format!("{name} {}", kind.done()), &notes)
        }
        Waited::TimedOut(waiting) => Err(Failure::Failed(format!(
            "{name} {}, but that is not done after {} s: {waiting}. It goes on; `pvc node explain {name}` says more",
            kind.wished(),
            args.within.as_secs()
        ))),
        Waited::Interrupted(waiting) => Err(Failure::Interrupted(format!(
            "{name} {} all the same ({waiting}); `pvc node {}` calls it off",
            kind.wished(),
            if kind == Kind::Flush { "ready" } else { "flush" }
        ))),
    }
}

/// Whether it is done, cannot be done any more, or not yet.
fn judge(
    kind: Kind,
    node: &Node,
    progress: &FlushProgress,
    said: Option<String>,
) -> Result<Look<()>, Failure> {
    let state = node.domain_state.value;
    let (going_on, done) = match kind {
        Kind::Flush => (DomainState::Flush, DomainState::Flushed),
        Kind::Ready => (DomainState::Unflush, DomainState::Ready),
    };
    if state == done {
        return Ok(Look::Done(()));
    }
    if state != going_on {
        let what = format!("{}: somebody else has wished {state} meanwhile, which counts", node.name);
        return Err(Failure::Failed(what));
    }
    let moved = progress.total.saturating_sub(progress.left);
    let how_far = match progress.total {
        0 => format!("waiting for {}", node.name),
        total => format!("{moved} of {total} VMs have moved, {} are moving", progress.moving),
    };
    Ok(Look::NotYet(match (said, progress.stuck.len()) {
        (Some(said), _) if progress.total == 0 => said,
        (_, 0) => how_far,
        (_, n) => format!("{how_far}, {n} cannot"),
    }))
}

/// What became of the VMs that did not move as wished.
fn stuck(progress: &FlushProgress, roster: &Roster) -> Vec<String> {
    let name = |id: &str| id.parse().ok().and_then(|id| roster.name(id)).unwrap_or(id).to_owned();
    progress.stuck.iter().map(|stuck| format!("VM {}: {}", name(&stuck.vm), stuck.reason)).collect()
}

async fn read(cluster: &Connection, name: &NodeName) -> Result<Node, Failure> {
    match node::read(&*cluster.store, name).await? {
        Some(node) => Ok(node),
        // Gone: this says what there is.
        None => Ok(cluster.nodes().await?.find(name.as_str())?.clone()),
    }
}

/// Decides and writes, anew if somebody else was faster.
pub(super) async fn write(
    cluster: &Connection,
    decide: impl Fn(&ClusterView) -> Result<Accepted<NodeChange>, Refusal>,
) -> Result<(ClusterView, Accepted<NodeChange>), Failure> {
    let mut attempt = 1;
    loop {
        let view = cluster.view().await?;
        let accepted = decide(&view)?;
        let Some(change) = &accepted.change else { return Ok((view, accepted)) };
        let Some(txn) = transaction(cluster, change).await? else {
            attempt += 1;
            continue;
        };
        match cluster.store.commit(txn).await {
            Ok(_) => return Ok((view, accepted)),
            Err(CommitError::Conflict { .. }) if attempt < ATTEMPTS => attempt += 1,
            Err(e) => return Err(e.into()),
        }
    }
}

/// What is to be written; `None`: it is not as it was any more.
async fn transaction(cluster: &Connection, change: &NodeChange) -> Result<Option<Transaction>, Failure> {
    use pvc_store::schema::fence;
    Ok(Some(match change {
        NodeChange::DomainState { node, state, version } => node::set_domain_state(node, *state, *version),
        NodeChange::Primary { seen, node } => holder::wish(seen, node.as_ref()),
        NodeChange::Fence { seen, job } => fence::ask(seen, job),
        NodeChange::ConfirmDead { seen, fence, job } => fence::confirm_dead(seen, fence.as_ref(), job),
        NodeChange::CancelFence { seen, fence: Some(fence) } => fence::cancel(fence, seen),
        NodeChange::CancelFence { seen, fence: None } => {
            let raw = fence::read_unreadable(&*cluster.store, &seen.name).await?;
            return Ok(raw.map(|raw| fence::cancel_unreadable(&raw, seen)));
        }
    }))
}

pub(super) async fn primary(cluster: &Connection, out: &Out, args: &Handover) -> Result<(), Failure> {
    let (_, accepted) = write(cluster, |view| command::primary(view, &args.node)).await?;
    let held = |view: &ClusterView| {
        let node = view.all_nodes().find(|node| node.name.as_str() == args.node);
        let is = |who: &Option<NodeName>| who.as_ref().is_some_and(|name| name.as_str() == args.node);
        let serves = node.is_some_and(|node| node.router_state.value == RouterState::Primary);
        if is(&view.primary_holder) && serves {
            return Ok(Look::Done(()));
        }
        if !is(&view.primary_node.value) {
            let who = view.primary_node.value.as_ref().map_or("nobody", NodeName::as_str);
            let what = format!("{}: somebody else has wished {who} to be primary meanwhile", args.node);
            return Err(Failure::Failed(what));
        }
        Ok(Look::NotYet(match &view.primary_holder {
            Some(holder) if holder.as_str() != args.node => format!("waiting for {holder} to step down"),
            Some(_) => format!("{} is taking over", args.node),
            None => format!("waiting for {}", args.node),
        }))
    };
    hand_over(cluster, out, args, &accepted, ("is to become primary", "is primary"), held).await
}

pub(super) async fn secondary(cluster: &Connection, out: &Out, args: &Handover) -> Result<(), Failure> {
    let (_, accepted) = write(cluster, |view| command::secondary(view, &args.node)).await?;
    let left = |view: &ClusterView| match &view.primary_holder {
        Some(holder) if holder.as_str() == args.node => {
            Ok(Look::NotYet(format!("waiting for {holder} to step down")))
        }
        Some(_) => Ok(Look::Done(())),
        None => Ok(Look::NotYet("waiting for another coordinator to take over".to_owned())),
    };
    hand_over(cluster, out, args, &accepted, ("is to step down", "is not primary"), left).await
}

async fn hand_over(
    cluster: &Connection,
    out: &Out,
    args: &Handover,
    accepted: &Accepted<NodeChange>,
    (wished, done): (&str, &str),
    judge: impl Fn(&ClusterView) -> Result<Look<()>, Failure>,
) -> Result<(), Failure> {
    let name = &args.node;
    if args.no_wait {
        return out.message(&format!("{name} {wished}"), &accepted.notes);
    }
    for note in &accepted.notes {
        out.aside(&format!("{name}: {note}"));
    }
    let paths = [root::PRIMARY_NODE.to_owned(), holder::HOLDER.to_owned(), node::ROOT.to_owned()];
    let look = async || judge(&cluster.view().await?);
    match wait::until(&*cluster.store, &paths, args.wait, out, look).await? {
        Waited::Done(()) => {
            let view = cluster.view().await?;
            let now = view.primary_holder.as_ref().filter(|holder| holder.as_str() != name);
            let notes: Vec<String> = now.map(|now| format!("{now} is primary now")).into_iter().collect();
            out.message(&format!("{name} {done}"), &notes)
        }
        Waited::TimedOut(waiting) => Err(Failure::Failed(format!(
            "{name} {wished}, but that is not so after {} s: {waiting}. The wish stands; `pvc node explain {name}` says more",
            args.wait.as_secs()
        ))),
        Waited::Interrupted(waiting) => {
            Err(Failure::Interrupted(format!("{name} {wished} all the same ({waiting})")))
        }
    }
}
