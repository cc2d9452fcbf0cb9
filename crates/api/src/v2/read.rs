//! What there is, as `pvc --format json` prints it.

use axum::{Extension, extract::State};
use pvc_core::plan::placement::Selector;
use pvc_operate::{audit, network, node, status as screen, vm};

use super::{Asked, Outcome, typed};
use crate::{api::Shared, clock::now_unix_s, gate::Who, limit::Limit, reply::json};

/// The cluster on one screen.
pub(crate) async fn status(State(api): State<Shared>) -> Outcome {
    Ok(json(&screen::status(&api.cluster, now_unix_s()).await?)?)
}

/// Whether maintenance is on.
pub(crate) async fn maintenance(State(api): State<Shared>) -> Outcome {
    Ok(json(&api.cluster.maintenance().await?)?)
}

/// All nodes whose names match `limit`.
pub(crate) async fn nodes(State(api): State<Shared>, Asked(ask): Asked) -> Outcome {
    let limit = Limit::parse(ask.given("limit"))?;
    Ok(json(&node::list(&api.cluster, now_unix_s(), |name| limit.wants(name)).await?.nodes)?)
}

/// One node.
pub(crate) async fn node(State(api): State<Shared>, Asked(ask): Asked) -> Outcome {
    Ok(json(&node::info(&api.cluster, ask.part("node")).await?)?)
}

/// Why a node is in the state it is in.
pub(crate) async fn node_explanation(State(api): State<Shared>, Asked(ask): Asked) -> Outcome {
    Ok(json(&node::explain(&api.cluster, ask.part("node"), now_unix_s()).await?)?)
}

/// Which nodes are fenced.
pub(crate) async fn fences(State(api): State<Shared>) -> Outcome {
    Ok(json(&node::fences(&api.cluster).await?)?)
}

/// All VMs whose names or UUIDs match `limit`, of one `node` and in one `state` if these are given.
pub(crate) async fn vms(State(api): State<Shared>, Asked(ask): Asked) -> Outcome {
    let limit = Limit::parse(ask.given("limit"))?;
    let wants = |name: &str| limit.wants(name);
    let state = ask.given("state").map(str::parse).transpose();
    let state = state.map_err(|e: pvc_core::model::NameError| crate::reply::Failed::Bad(e.to_string()))?;
    // Without a limit what is no VM's key is shown, too.
    let wanted: Option<&(dyn Fn(&str) -> bool + Sync)> = ask.flag("limit").then_some(&wants);
    let filter = vm::Filter { node: ask.given("node"), state, wanted, long: true };
    Ok(json(&vm::list(&api.cluster, &filter, now_unix_s()).await?.vms)?)
}

/// One VM.
pub(crate) async fn vm(State(api): State<Shared>, Asked(ask): Asked) -> Outcome {
    Ok(json(&vm::info(&api.cluster, ask.part("vm")).await?)?)
}

/// Why a VM is in the state it is in.
pub(crate) async fn vm_explanation(State(api): State<Shared>, Asked(ask): Asked) -> Outcome {
    let selector = Selector::default();
    Ok(json(&vm::explain(&api.cluster, ask.part("vm"), selector, now_unix_s()).await?)?)
}

/// All networks whose numbers or descriptions match `limit`.
pub(crate) async fn networks(State(api): State<Shared>, Asked(ask): Asked) -> Outcome {
    let limit = Limit::parse(ask.given("limit"))?;
    let wants = |name: &str| limit.wants(name);
    Ok(json(&network::list(&api.cluster, Some(&wants)).await?.networks)?)
}

/// One network, with the guests in it.
pub(crate) async fn network(State(api): State<Shared>, Asked(ask): Asked) -> Outcome {
    Ok(json(&network::info(&api.cluster, ask.part("network")).await?)?)
}

/// What nodes cannot do of a network.
pub(crate) async fn network_explanation(State(api): State<Shared>, Asked(ask): Asked) -> Outcome {
    Ok(json(&network::explain::explain(&api.cluster, ask.part("network"), now_unix_s()).await?)?)
}

/// Who has which address in a network.
pub(crate) async fn leases(State(api): State<Shared>, Asked(ask): Asked) -> Outcome {
    Ok(json(&network::dhcp::list(&api.cluster, ask.part("network"), now_unix_s()).await?)?)
}

/// The rules of a network's firewall, in their order.
pub(crate) async fn rules(State(api): State<Shared>, Asked(ask): Asked) -> Outcome {
    Ok(json(&network::acl::list(&api.cluster, ask.part("network"), None).await?)?)
}

/// Who has changed what over the API, the newest first.
pub(crate) async fn changes(State(api): State<Shared>, Asked(ask): Asked) -> Outcome {
    let most = ask.given("lines").map_or(Ok(100), |text| typed("lines", text))?;
    Ok(json(&audit::list(&api.cluster, most).await?.0)?)
}

/// Who asks, and what that is good for: a page does not offer what would be refused.
pub(crate) async fn session(Extension(who): Extension<Who>) -> Outcome {
    Ok(json(&serde_json::json!({ "name": who.name, "role": who.role.word() }))?)
}
