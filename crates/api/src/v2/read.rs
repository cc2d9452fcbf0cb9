//! What there is, as `pvc --format json` prints it.

use axum::{Extension, extract::State, http::StatusCode};
use pvc_core::{model::VmState, plan::placement::Selector};
use pvc_operate::{
    audit, network, node, status as screen,
    vm::{self, Vms},
};

use super::{
    Asked, Outcome,
    paged::{self, Page},
    typed,
};
use crate::{
    api::Shared,
    clock::now_unix_s,
    limit::Limit,
    metrics::{Now, TEXT},
    reply::{JsonList, json, text},
    vms as lists,
    who::Who,
};

/// The most VMs that wait, each of which may be looked up.
const MOST_WAITS: usize = 1000;

/// The cluster on one screen.
pub(crate) async fn status(State(api): State<Shared>) -> Outcome {
    Ok(json(&screen::status(api.seen(), now_unix_s()).await?)?)
}

/// Whether maintenance is on.
pub(crate) async fn maintenance(State(api): State<Shared>) -> Outcome {
    Ok(json(&api.seen().maintenance().await?)?)
}

/// All nodes whose names match `limit`.
pub(crate) async fn nodes(State(api): State<Shared>, Asked(ask): Asked) -> Outcome {
    let limit = Limit::parse(ask.given("limit"))?;
    let list = node::list(api.seen(), now_unix_s(), |name| limit.wants(name)).await?;
    if paged::is_whole(&ask)? {
        return Ok(json(&list)?);
    }
    paged::list(&ask, list.nodes, |row| row.name().to_owned())
}

/// One node.
pub(crate) async fn node(State(api): State<Shared>, Asked(ask): Asked) -> Outcome {
    Ok(json(&node::info(api.seen(), ask.part("node")).await?)?)
}

/// Why a node is in the state it is in.
pub(crate) async fn node_explanation(State(api): State<Shared>, Asked(ask): Asked) -> Outcome {
    Ok(json(&node::explain(api.seen(), ask.part("node"), now_unix_s()).await?)?)
}

/// Figures of the cluster and of this service, for Prometheus.
pub(crate) async fn metrics(State(api): State<Shared>) -> Outcome {
    let nodes = node::list(api.seen(), now_unix_s(), |_| true).await?;
    let vms = api.catalogue().all().await?;
    let in_state = |state: &VmState| {
        vms.all().iter().filter_map(vm::Row::vm).filter(|vm| vm.state.value == *state).count()
    };
    let now = Now {
        nodes: &nodes,
        vms: &VmState::ALL.map(|state| (state, in_state(&state))),
        places: [
            ("read", api.reads.taken()),
            ("change", api.changes.taken()),
            ("listen", api.listeners.taken()),
            ("console", api.talks.taken()),
        ],
    };
    Ok(text(StatusCode::OK, TEXT, api.metrics.render(&now)))
}

/// Figures of some hours.
pub(crate) async fn history(State(api): State<Shared>) -> Outcome {
    Ok(json(&api.past.history())?)
}

/// The course of the last fences.
pub(crate) async fn failovers(State(api): State<Shared>) -> Outcome {
    Ok(json(&api.past.failovers())?)
}

/// Which nodes are fenced.
pub(crate) async fn fences(State(api): State<Shared>) -> Outcome {
    Ok(json(&node::fences(api.seen()).await?)?)
}

/// All VMs whose names or UUIDs match `limit`, of one `node` and in one `state` if these are given.
pub(crate) async fn vms(
    State(api): State<Shared>,
    Extension(who): Extension<Who>,
    Asked(ask): Asked,
) -> Outcome {
    let limit = Limit::parse(ask.given("limit"))?;
    let wants = |name: &str| limit.wants(name);
    let state = ask.given("state").map(str::parse).transpose();
    let state = state.map_err(|e: pvc_core::model::NameError| crate::reply::Failed::Bad(e.to_string()))?;
    // Without a limit what is no VM's key is shown, too.
    let wanted: Option<&(dyn Fn(&str) -> bool + Sync)> = ask.flag("limit").then_some(&wants);
    let filter = vm::Filter { node: ask.given("node"), state, wanted, long: true };
    let page = Page::<String>::of(&ask)?;
    let vms = api.catalogue().all().await?;
    let is_wanted = vms.matching(&filter)?;
    // Of those that are in no tree the name is empty. Whoever writes another mark begins behind what it would name.
    let (name, id) = page.after().map_or(("", None), |after| match after.rsplit_once('/') {
        Some((name, id)) => (name, id.parse().ok()),
        None => (after.as_str(), None),
    });
    let all: &[vm::Row] = if page.after().is_some() { vms.after(name, id) } else { vms.all() };
    let rows: Box<dyn Iterator<Item = &vm::Row> + Send> = match who.vms.as_deref() {
        None => Box::new(all.iter()),
        Some(names) => Box::new(
            names
                .iter()
                .flat_map(|own| vms.named(own.as_str()))
                .filter(|row| page.after().is_none() || (row.name(), Some(row.id)) > (name, id)),
        ),
    };
    let wanted = rows.filter(|row| is_wanted(row)).cloned();
    let (rows, next) = page.take(wanted, |row| format!("{}/{}", row.name(), row.id));
    Ok(paged::linked(lists::answer(vms.clone(), rows, None, write).await?, &ask, next))
}

/// What there is to say beside the list of VMs.
pub(crate) async fn beside(State(api): State<Shared>) -> Outcome {
    Ok(json(&vm::beside(api.seen(), now_unix_s()).await?)?)
}

fn write(list: &mut JsonList, vms: &Vms, row: &vm::Row, said: &vm::Said) {
    list.push(&vms.shown(row, said), said.details.as_deref().unwrap_or_default());
}

/// One VM.
pub(crate) async fn vm(
    State(api): State<Shared>,
    Extension(who): Extension<Who>,
    Asked(ask): Asked,
) -> Outcome {
    let mut info = vm::info(api.seen(), ask.part("vm")).await?;
    info.xml = who.definition(&info.xml).unwrap_or_default().into_owned();
    Ok(json(&info)?)
}

/// Why a VM is in the state it is in.
pub(crate) async fn vm_explanation(State(api): State<Shared>, Asked(ask): Asked) -> Outcome {
    let selector = Selector::default();
    Ok(json(&vm::explain(api.seen(), ask.part("vm"), selector, now_unix_s()).await?)?)
}

/// All networks whose numbers or descriptions match `limit`.
pub(crate) async fn networks(State(api): State<Shared>, Asked(ask): Asked) -> Outcome {
    let limit = Limit::parse(ask.given("limit"))?;
    let wants = |name: &str| limit.wants(name);
    // Without a limit what is no network's key is told, too.
    let wanted: Option<&(dyn Fn(&str) -> bool + Sync)> = ask.flag("limit").then_some(&wants);
    let list = network::list(api.seen(), wanted).await?;
    if paged::is_whole(&ask)? {
        return Ok(json(&list)?);
    }
    paged::list(&ask, list.networks, |row| row.vni)
}

/// One network, with the guests in it.
pub(crate) async fn network(State(api): State<Shared>, Asked(ask): Asked) -> Outcome {
    Ok(json(&network::info(api.seen(), ask.part("network")).await?)?)
}

/// What nodes cannot do of a network.
pub(crate) async fn network_explanation(State(api): State<Shared>, Asked(ask): Asked) -> Outcome {
    Ok(json(&network::explain::explain(api.seen(), ask.part("network"), now_unix_s()).await?)?)
}

/// Who has which address in a network.
pub(crate) async fn leases(State(api): State<Shared>, Asked(ask): Asked) -> Outcome {
    Ok(json(&network::dhcp::list(api.seen(), ask.part("network"), now_unix_s()).await?)?)
}

/// The rules of a network's firewall, in their order.
pub(crate) async fn rules(State(api): State<Shared>, Asked(ask): Asked) -> Outcome {
    Ok(json(&network::acl::list(api.seen(), ask.part("network"), None).await?)?)
}

/// What who watches the cluster sees at once.
pub(crate) async fn top(State(api): State<Shared>, Asked(ask): Asked) -> Outcome {
    let most = ask.given("most").map_or(Ok(100), |text| typed("most", text))?;
    Ok(json(&pvc_operate::top::top(api.seen(), now_unix_s(), most.min(MOST_WAITS)).await?)?)
}

/// What carries frames between nodes.
pub(crate) async fn overlay(State(api): State<Shared>) -> Outcome {
    Ok(json(&network::overlay(api.seen()).await?)?)
}

/// Who has changed what over the API, the newest first.
pub(crate) async fn changes(State(api): State<Shared>, Asked(ask): Asked) -> Outcome {
    let most = ask.given("lines").map_or(Ok(100), |text| typed("lines", text))?;
    let (entries, problems) = audit::list(api.seen(), most).await?;
    paged::list_with(&ask, entries, &problems, |entry| entry.id)
}

/// Who asks, and what that is good for: a page does not offer what would be refused.
pub(crate) async fn session(Extension(who): Extension<Who>) -> Outcome {
    let mut session = serde_json::json!({ "name": who.name, "role": who.role.word() });
    if let Some(vms) = who.vms.as_deref() {
        session["vms"] = serde_json::json!(vms);
    }
    Ok(json(&session)?)
}
