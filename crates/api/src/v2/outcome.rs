//! Whether what was asked for is so: the answer to a change names the path that says it, and each look is an ordinary request. Whoever waits goes on at the next
//! primary when this one is none any more, for nothing of it is kept here.

use axum::extract::State;
use pvc_core::model::{NodeName, VmId};
use pvc_operate::{Asked as Pending, Goal, Look};
use serde::Serialize;
use serde_json::json;

use super::{Asked, Outcome, typed};
use crate::{api::Shared, reply};

/// What was asked for, for who follows it.
#[derive(Serialize)]
pub(super) struct Told {
    message: String,
    notes: Vec<String>,
    /// Who is to do it, or with whom.
    subject: String,
    /// What becomes of it when nobody waits, and where to look.
    more: String,
    /// How long it may take if all is well.
    patience_s: u64,
    /// What says whether it is so; absent: nothing is left to wait for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) follow: Option<String>,
}

impl From<Pending> for Told {
    fn from(asked: Pending) -> Self {
        Self {
            follow: asked.goal().map(|goal| path(&goal)),
            message: asked.answer.message,
            notes: asked.answer.notes,
            subject: asked.subject,
            more: asked.more,
            patience_s: asked.patience.as_secs(),
        }
    }
}

fn path(goal: &Goal) -> String {
    // Names of nodes and the words are letters, digits and hyphens.
    match goal {
        Goal::Vm(vm, desired) => format!("/api/v2/vms/{vm}/outcome?of={desired}"),
        Goal::Moved { vm, from, to } => format!("/api/v2/vms/{vm}/outcome?of=move&from={from}&to={to}"),
        Goal::Node(node, goal) => format!("/api/v2/nodes/{node}/outcome?of={goal}"),
        Goal::Task(task, goal) => format!("/api/v2/tasks/{task}/outcome?of={goal}"),
    }
}

/// The path to what is waited for of a VM, with its name in place of its UUID.
pub(super) fn by_name(path: &str, name: &str) -> String {
    let rest = path.find("/outcome").map_or(path, |at| &path[at..]);
    // A name of a VM has no character that stands for something else in a path.
    format!("/api/v2/vms/{name}{rest}")
}

/// Of a VM.
pub(crate) async fn of_vm(State(api): State<Shared>, Asked(ask): Asked) -> Outcome {
    let vm: VmId = match ask.part("vm").parse() {
        Ok(vm) => vm,
        Err(_) => api.cluster.find_vm(ask.part("vm")).await?,
    };
    let goal = match ask.required("of")? {
        "move" => Goal::Moved { vm, from: node(ask.required("from")?)?, to: node(ask.required("to")?)? },
        desired => Goal::Vm(vm, typed("of", desired)?),
    };
    look(&api, goal).await
}

/// Of a node.
pub(crate) async fn of_node(State(api): State<Shared>, Asked(ask): Asked) -> Outcome {
    look(&api, Goal::Node(node(ask.part("node"))?, typed("of", ask.required("of")?)?)).await
}

/// Of a task.
pub(crate) async fn of_task(State(api): State<Shared>, Asked(ask): Asked) -> Outcome {
    look(&api, Goal::Task(typed("task", ask.part("task"))?, typed("of", ask.required("of")?)?)).await
}

fn node(name: &str) -> Result<NodeName, super::Problem> {
    typed("node", name)
}

async fn look(api: &Shared, goal: Goal) -> Outcome {
    let seen = match pvc_operate::look(&api.cluster, goal).await? {
        Look::Done(answer) => json!({ "done": true, "message": answer.message, "notes": answer.notes }),
        Look::NotYet(waiting) => json!({ "done": false, "waiting": waiting }),
    };
    Ok(reply::json(&seen)?)
}
