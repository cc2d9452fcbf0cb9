//! Virtual machines.

use std::time::Duration;

use axum::{extract::State, http::StatusCode, response::Response};
use pvc_core::{
    model::{DomainDetails, DomainSpec, StorageCommand, Vm, VmState},
    plan::placement::Selector,
};
use pvc_operate::{
    Answer, Failure,
    vm::{self as command, Desired, Filter, Relocation, To, VmRow},
};
use serde::Serialize;
use serde_json::json;

use super::{exactly_or_nearly, no_such};
use crate::{
    api::Shared,
    ask::Ask,
    clock::now_unix_s,
    limit::Limit,
    reply::{Failed, Outcome, done, json, list as answer_list, message},
};

/// How long a call waits for a VM to be off before its keys are deleted.
const UNDEFINE_WITHIN: Duration = Duration::from_secs(30);

/// A VM, with the words of the old API.
#[derive(Serialize)]
struct Row {
    name: String,
    uuid: String,
    state: String,
    node: String,
    last_node: String,
    migrated: String,
    failed_reason: String,
    #[serde(flatten)]
    details: DomainDetails,
    xml: String,
}

impl From<VmRow> for Row {
    fn from(row: VmRow) -> Self {
        let vm = row.vm.as_ref();
        // What is broken is shown as far as it can be read, and says so where old clients show a reason.
        let reason = vm.map_or_else(|| row.problems.join("; "), |vm| vm.failed_reason.value.clone());
        Self {
            uuid: row.uuid.to_string(),
            state: row.state.map(|state| state.to_string()).unwrap_or_default(),
            node: row.node.map(|node| node.to_string()).unwrap_or_default(),
            last_node: row.last_node.unwrap_or_default(),
            migrated: row.migrated.unwrap_or_else(|| "no".to_owned()),
            failed_reason: reason,
            details: row.details.unwrap_or_default(),
            xml: row.xml.unwrap_or_default(),
            name: row.name,
        }
    }
}

async fn rows(api: &Shared, wants: &(dyn Fn(&str) -> bool + Sync)) -> Result<Vec<VmRow>, Failed> {
    let filter = Filter { node: None, state: None, wanted: Some(wants), long: true };
    Ok(command::list(&api.cluster, &filter, now_unix_s()).await?.vms)
}

/// All that are wanted. Of `node` and `state` one has to fit, as the old server had it.
pub(crate) async fn list(State(api): State<Shared>, ask: Ask) -> Outcome {
    let limit = Limit::parse(ask.given("limit"))?;
    let (node, state) = (ask.given("node"), ask.given("state"));
    if let Some(node) = node {
        api.cluster.nodes().await?.find(node)?;
    }
    if let Some(state) = state {
        state.parse::<VmState>().map_err(|error| Failed::Bad(error.to_string()))?;
    }
    let fits = |row: &Row| {
        let neither = node.is_none() && state.is_none();
        neither || node.is_some_and(|node| row.node == node) || state.is_some_and(|state| row.state == state)
    };
    let wants = |name: &str| limit.wants(name);
    let rows = rows(&api, &wants).await?.into_iter().map(Row::from).filter(fits).collect::<Vec<_>>();
    answer_list(&rows, "no VM fits")
}

/// One: by its name or UUID, or the beginning of either.
pub(crate) async fn item(State(api): State<Shared>, ask: Ask) -> Outcome {
    let wanted = ask.part("vm");
    let rows = rows(&api, &|text| text.starts_with(wanted)).await?;
    let names = |row: &VmRow| vec![row.name.clone(), row.uuid.to_string()];
    let found = exactly_or_nearly(rows, wanted, names, |name| name.starts_with(wanted));
    answer_list(&found.into_iter().map(Row::from).collect::<Vec<_>>(), "there is no such VM")
}

/// Defines one; it is off.
pub(crate) async fn define(State(api): State<Shared>, ask: Ask) -> Outcome {
    let spec = DomainSpec::parse(ask.xml()?)
        .map_err(|error| Failed::Bad(format!("the definition is refused: {error}")))?;
    let selector = selector(&ask)?;
    done(command::define(&api.cluster, &spec, ask.given("node"), selector).await?.1)
}

/// Gives one another definition; it counts from its next start.
pub(crate) async fn modify(State(api): State<Shared>, ask: Ask) -> Outcome {
    let id = api.cluster.find_vm(ask.part("vm")).await?;
    let changed = command::modify(&api.cluster, id, ask.xml()?, None).await?;
    if !ask.flag("restart") {
        return done(changed);
    }
    // What is off needs none: the new definition counts when it starts.
    let restarted = match command::set_state(&api.cluster, id, Desired::Restart).await {
        Ok(set) => set.asked.answer,
        Err(Failure::Refused(refusal)) => Answer { message: refusal.to_string(), notes: Vec::new() },
        Err(error) => {
            let why = Failed::from(error).with_causes();
            return Err(Failed::Bad(format!(
                "{}, but the restart was not asked for: {why}",
                changed.message
            )));
        }
    };
    let notes = changed.notes.into_iter().chain(restarted.notes).collect();
    done(Answer { message: format!("{}; {}", changed.message, restarted.message), notes })
}

/// Powers one off and undefines it.
pub(crate) async fn undefine(State(api): State<Shared>, ask: Ask) -> Outcome {
    if ask.flag("delete_disks") {
        let why = "disks cannot be removed by the API yet: nothing was done; undefine the VM without delete_disks, and \
                   remove its images with rbd";
        return Err(Failed::Bad(why.to_owned()));
    }
    let id = api.cluster.find_vm(ask.part("vm")).await?;
    let (_, asked) = command::undefine(&api.cluster, id).await?;
    done(asked.wait(&api.cluster, UNDEFINE_WITHIN, &|_| ()).await?)
}

async fn one(api: &Shared, ask: &Ask) -> Result<Vm, Failed> {
    let id = api.cluster.find_vm(ask.part("vm")).await?;
    Ok(api.cluster.vm(id).await?)
}

/// What is asked of it.
pub(crate) async fn state(State(api): State<Shared>, ask: Ask) -> Outcome {
    let vm = one(&api, &ask).await?;
    json(&json!({ "name": vm.name.to_string(), "state": vm.state.value.to_string() }))
}

/// Asks something of it.
pub(crate) async fn set_state(State(api): State<Shared>, ask: Ask) -> Outcome {
    let desired = match ask.required("state")? {
        "start" => Desired::Start,
        "shutdown" => Desired::Shutdown,
        "stop" => Desired::Stop,
        "restart" => Desired::Restart,
        other => return Err(no_such("state", other, "start, shutdown, stop or restart")),
    };
    let id = api.cluster.find_vm(ask.part("vm")).await?;
    done(command::set_state(&api.cluster, id, desired).await?.asked.answer)
}

/// Where it is.
pub(crate) async fn node(State(api): State<Shared>, ask: Ask) -> Outcome {
    let vm = one(&api, &ask).await?;
    let last_node = vm.last_node.value.as_ref().map(ToString::to_string).unwrap_or_default();
    json(&json!({ "name": vm.name.to_string(), "node": vm.node.value, "last_node": last_node }))
}

/// Gives it another node.
pub(crate) async fn relocate(State(api): State<Shared>, ask: Ask) -> Outcome {
    let relocation = match ask.required("action")? {
        "migrate" if ask.flag("permanent") => Relocation::Move,
        "migrate" => Relocation::Migrate,
        "unmigrate" => Relocation::Unmigrate,
        // The manual of the old server has it, the server had not.
        "move" => Relocation::Move,
        other => return Err(no_such("action", other, "migrate, unmigrate or move")),
    };
    let to = To { node: ask.given("node"), selector: selector(&ask)?, force: ask.flag("force") };
    let id = api.cluster.find_vm(ask.part("vm")).await?;
    done(command::relocate(&api.cluster, id, relocation, to).await?.asked.answer)
}

/// As the old server answers it.
pub(crate) async fn locks() -> Response {
    message(StatusCode::NOT_IMPLEMENTED, "locks are not shown")
}

/// Of one that is off.
pub(crate) async fn flush_locks(State(api): State<Shared>, ask: Ask) -> Outcome {
    let vm = api.cluster.find_vm(ask.part("vm")).await?;
    super::storage::change(&api, &ask, StorageCommand::FlushLocks { vm }).await
}

fn selector(ask: &Ask) -> Result<Selector, Failed> {
    let given = ask.given("selector").map(str::parse).transpose();
    Ok(given.map_err(|error: pvc_core::model::NameError| Failed::Bad(error.to_string()))?.unwrap_or_default())
}
