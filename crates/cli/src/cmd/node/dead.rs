//! `pvc node fence|confirm-dead`: has a node put out of the cluster, or ends that again. Both end with its VMs started elsewhere, so both spell the
//! consequences out and want a yes, and neither touches the node itself: a coordinator does.

use std::time::Duration;

use pvc_core::{
    command::node::{self as command, Life, Signature, step_words},
    model::{ClusterView, DaemonState, Entry, Node, NodeName},
};
use pvc_store::schema::{fence as record, node, owner};

use super::wish::write;
use crate::{
    args::Death,
    cmd::confirm::{self, Otherwise},
    connect::Connection,
    failure::Failure,
    print::Out,
    read::now_unix_s,
    wait::{self, Look, Waited},
};

/// Names in a question before they become a number.
const NAMED: usize = 5;

pub(super) async fn fence(cluster: &Connection, out: &Out, args: &Death) -> Result<(), Failure> {
    let name = &args.follow.node;
    let (view, node) = look_up(cluster, name).await?;
    let life = life(cluster, &node.name).await?;
    // What would be refused is not asked.
    let first = command::fence(&view, name, &life, signature())?;
    let question = format!(
        "The power of {name} is cut now, be it well or not (its daemon is in state {}). {}",
        node.daemon_state.value,
        consequence(&view, &node.name, "end at once and are started on other nodes")
    );
    if first.change.is_some() && !args.yes && !confirm::ask(&question, Otherwise::Refuse)? {
        return Err(Failure::Failed(format!("{name} is not fenced: not confirmed")));
    }
    let (_, accepted) = write(cluster, |view| command::fence(view, name, &life, signature())).await?;
    follow(cluster, out, args, &node.name, "is to be fenced", &accepted.notes).await
}

/// Nobody is asked: what is called off can be asked for again.
pub(super) async fn cancel(cluster: &Connection, out: &Out, name: &str) -> Result<(), Failure> {
    let (_, accepted) = write(cluster, |view| command::cancel_fence(view, name)).await?;
    let done = if accepted.change.is_some() { "the fence is ended" } else { "nothing was done" };
    out.message(&format!("{name}: {done}"), &accepted.notes)
}

pub(super) async fn confirm(
    cluster: &Connection,
    out: &Out,
    args: &Death,
    listen: Duration,
) -> Result<(), Failure> {
    let name = &args.follow.node;
    let (view, node) = look_up(cluster, name).await?;
    let mut life = life(cluster, &node.name).await?;
    let first = command::confirm_dead(&view, name, &life, signature())?;
    if first.change.is_some() {
        life.heard = heard(cluster, out, &node, listen).await?;
        command::confirm_dead(&view, name, &life, signature())?;
        let question = format!(
            "Your word is taken for the proof that {name} executes nothing. {} If it still runs, they run twice and destroy \
             their disks. Is its power off for certain?",
            consequence(&view, &node.name, "are started on other nodes")
        );
        if !args.yes && !confirm::ask(&question, Otherwise::Refuse)? {
            return Err(Failure::Failed(format!("{name} was not taken for dead: not confirmed")));
        }
    }
    let decide = |view: &ClusterView| command::confirm_dead(view, name, &life, signature());
    let (_, accepted) = write(cluster, decide).await?;
    follow(cluster, out, args, &node.name, "is taken for dead", &accepted.notes).await
}

async fn look_up(cluster: &Connection, name: &str) -> Result<(ClusterView, Node), Failure> {
    let view = cluster.view().await?;
    let node = pvc_core::command::find::node_in(&view, name)?.clone();
    Ok((view, node))
}

/// What is known of a node's life, but whether its keepalives arrive: that takes listening.
pub(super) async fn life(cluster: &Connection, name: &NodeName) -> Result<Life, Failure> {
    let store = &*cluster.store;
    let held = owner::read(store, name).await?;
    let instance = held.map(|held| held.by.map_or_else(|| "unknown".to_owned(), |owner| owner.instance));
    let has_bmc = !node::read_ipmi(store, name).await?.hostname.is_empty();
    Ok(Life { instance, heard: false, has_bmc })
}

/// Whether a keepalive arrives while one listens, for as long as it takes a node that speaks seldom. Clocks are not asked: they differ.
pub(super) async fn heard(
    cluster: &Connection,
    out: &Out,
    seen: &Node,
    listen: Duration,
) -> Result<bool, Failure> {
    let listen = seen.keepalive_interval.map_or(listen, |interval| listen.max(interval * 5 / 4));
    let look = async || {
        let now = node::read(&*cluster.store, &seen.name).await?;
        let version = now.map(|node| node.keepalive_version);
        let moved = version.is_some_and(|version| version != seen.keepalive_version);
        Ok(if moved {
            Look::Done(())
        } else {
            Look::NotYet(format!("listening whether {} lives", seen.name))
        })
    };
    match wait::until(&*cluster.store, &[node::path(&seen.name)], listen, out, look).await? {
        Waited::Done(()) => Ok(true),
        Waited::TimedOut(_) => Ok(false),
        Waited::Interrupted(_) => Err(Failure::Interrupted("nothing was written".into())),
    }
}

fn consequence(view: &ClusterView, name: &NodeName, fate: &str) -> String {
    let mut vms: Vec<&str> =
        view.good_vms().filter(|vm| vm.claim.value.names(name)).map(|vm| vm.name.as_str()).collect();
    vms.sort_unstable();
    match vms.len() {
        0 => "It claims no VM.".to_owned(),
        n if n <= NAMED => format!("Its VMs ({}) {fate}.", vms.join(", ")),
        n => format!("Its {n} VMs ({} and {} more) {fate}.", vms[..NAMED].join(", "), n - NAMED),
    }
}

pub(super) fn signature() -> Signature {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = host.trim();
    let by = if host.is_empty() { "an operator".to_owned() } else { format!("an operator on {host}") };
    Signature { by, at_unix_s: now_unix_s() }
}

async fn follow(
    cluster: &Connection,
    out: &Out,
    args: &Death,
    name: &NodeName,
    wished: &str,
    notes: &[String],
) -> Result<(), Failure> {
    if !args.follow.wait {
        let more = [format!("`pvc node explain {name}` shows how it goes")];
        return out.message(&format!("{name} {wished}"), &[notes, &more].concat());
    }
    for note in notes {
        out.aside(&format!("{name}: {note}"));
    }
    let paths = [record::path(name), node::explain_path(name), node::path(name)];
    let look = async || {
        let said = node::read_explanation(&*cluster.store, name).await?.and_then(Result::ok);
        match record::read(&*cluster.store, name).await? {
            None => Ok(Look::Done(())),
            Some(Entry::Bad(problems)) => {
                let what: Vec<String> = problems.iter().map(ToString::to_string).collect();
                Err(Failure::Failed(what.join("; ")))
            }
            Some(Entry::Good(fence)) => {
                let words = step_words(&fence.job.step);
                Ok(Look::NotYet(match said {
                    Some(said) => format!("{words} ({})", said.because),
                    None if fence.fencer.is_none() => format!("{words}; waiting for a coordinator"),
                    None => words,
                }))
            }
        }
    };
    match wait::until(&*cluster.store, &paths, args.follow.within, out, look).await? {
        Waited::Done(()) => {
            let state = node::read(&*cluster.store, name).await?;
            match state.map(|node| node.daemon_state.value) {
                Some(DaemonState::Dead) => out.message(
                    &format!("{name} is out of the cluster, its VMs were seen running elsewhere"),
                    &[],
                ),
                Some(state) => {
                    out.message(&format!("the fence of {name} is over: its daemon is in state {state}"), &[])
                }
                None => out.message(&format!("{name} was removed from the cluster"), &[]),
            }
        }
        Waited::TimedOut(waiting) => Err(Failure::Failed(format!(
            "{name} {wished}, but that is not over after {} s: {waiting}. It goes on; `pvc node explain {name}` says more",
            args.follow.within.as_secs()
        ))),
        Waited::Interrupted(waiting) => Err(Failure::Interrupted(format!(
            "{name} {wished} all the same ({waiting}); `pvc node explain {name}` shows how it goes"
        ))),
    }
}
