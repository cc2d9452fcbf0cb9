//! Virtual machines.

use std::{sync::LazyLock, time::Duration};

use axum::{Extension, extract::State, http::StatusCode, response::Response};
use pvc_core::{
    model::{DomainDetails, DomainSpec, StorageCommand, Vm, VmId, VmState},
    plan::placement::Selector,
};
use pvc_operate::{
    Answer, Failure,
    vm::{self as command, Desired, Relocation, Said, To, VmRow, Vms},
};
use serde::Serialize;
use serde_json::json;

use super::no_such;
use crate::{
    api::Shared,
    ask::Ask,
    limit::Limit,
    reply::{Failed, JsonList, Outcome, done, json, message},
    vms,
    who::Who,
};

/// How long a call waits for a VM to be off before its keys are deleted.
const UNDEFINE_WITHIN: Duration = Duration::from_secs(30);

/// A VM, with the words of the old API, without its definition and what is in that.
#[derive(Serialize)]
struct Row<'a> {
    name: &'a str,
    uuid: String,
    state: &'a str,
    node: &'a str,
    last_node: String,
    migrated: String,
    failed_reason: String,
}

impl<'a> Row<'a> {
    fn of(row: &'a command::Row, shown: VmRow) -> Self {
        let vm = row.vm();
        // What is broken is shown as far as it can be read, and says so where old clients show a reason.
        let reason = vm.map_or_else(|| shown.problems.join("; "), |vm| vm.failed_reason.value.clone());
        Self {
            name: row.name(),
            uuid: row.id.to_string(),
            state: vm.map_or("", |vm| vm.state.value.as_str()),
            node: vm.map_or("", |vm| vm.node.value.as_str()),
            last_node: shown.last_node.unwrap_or_default(),
            migrated: shown.migrated.unwrap_or_else(|| "no".to_owned()),
            failed_reason: reason,
        }
    }
}

/// What is shown of a definition that cannot be read: JSON without braces.
static NOTHING: LazyLock<String> = LazyLock::new(|| {
    let nothing = serde_json::to_string(&DomainDetails::default()).unwrap_or_default();
    nothing.trim_matches(['{', '}']).to_owned()
});

fn write(list: &mut JsonList, vms: &Vms, row: &command::Row, said: &Said) {
    list.push(&Row::of(row, vms.shown(row, said)), said.details.as_deref().unwrap_or(&NOTHING));
    list.add("xml", said.text.as_deref().unwrap_or("\"\""));
}

/// These, with their definitions.
async fn shown(who: Who, vms: Vms, rows: Vec<command::Row>, none: &str) -> Outcome {
    if rows.is_empty() {
        return Err(Failed::NotFound(none.to_owned()));
    }
    Ok(vms::answer(vms, rows, Some(who), write).await?)
}

/// All that are wanted. Of `node` and `state` one has to fit, as the old server had it.
pub(crate) async fn list(State(api): State<Shared>, Extension(who): Extension<Who>, ask: Ask) -> Outcome {
    let limit = Limit::parse(ask.given("limit"))?;
    let vms = api.catalogue().all().await?;
    let node = ask.given("node").map(|node| vms.node(node)).transpose()?;
    let state = ask.given("state").map(str::parse::<VmState>).transpose();
    let state = state.map_err(|error| Failed::Bad(error.to_string()))?;
    let fits = |row: &&command::Row| {
        let is = |vm: &Vm| {
            node.is_some_and(|node| vm.node.value == *node)
                || state.is_some_and(|state| vm.state.value == state)
        };
        let neither = node.is_none() && state.is_none();
        (neither || row.vm().is_some_and(is)) && (limit.wants(row.name()) || limit.wants(&row.id.to_string()))
    };
    let rows = vms.all().iter().filter(fits).cloned().collect();
    shown(who, vms, rows, "no VM fits").await
}

/// One: by its name or UUID, or the beginning of either.
pub(crate) async fn item(State(api): State<Shared>, Extension(who): Extension<Who>, ask: Ask) -> Outcome {
    let wanted = ask.part("vm");
    let vms = api.catalogue().all().await?;
    let id: Option<VmId> = wanted.parse().ok();
    let is = |row: &&command::Row| row.name() == wanted || id == Some(row.id) && row.id.to_string() == wanted;
    let is_near =
        |row: &&command::Row| row.name().starts_with(wanted) || row.id.to_string().starts_with(wanted);
    let mut found: Vec<command::Row> = vms.all().iter().filter(is).cloned().collect();
    if found.is_empty() {
        found = vms.all().iter().filter(is_near).cloned().collect();
    }
    shown(who, vms, found, "there is no such VM").await
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
            return Err(Failed::Half(format!(
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
    let id = api.seen().find_vm(ask.part("vm")).await?;
    Ok(api.seen().vm(id).await?)
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
