//! Changes of VMs, their definitions, and what they print.

use std::time::Duration;

use axum::{Extension, extract::State, http::StatusCode};
use pvc_core::{model::DomainSpec, plan::placement::Selector};
use pvc_operate::vm::{self as command, Desired, Dump, Follower, Power, Relocation, To, last_lines};
use schemars::JsonSchema;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use super::{Asked, Outcome, Problem, asked_for, asked_of_vm, created, done, located_content, tagged, typed};
use crate::{
    api::Shared,
    reply::{json, text},
    session::hex,
    who::Who,
};

/// How long a call waits for a VM to be off before its keys are deleted.
const UNDEFINE_WITHIN: Duration = Duration::from_secs(30);

/// So many lines of a console unless others are asked for.
const LINES: usize = 200;

/// What marks this version of a definition: of a VM that was undefined and defined anew its key's version begins anew.
fn tag(version: i32, xml: &str) -> String {
    let hash = Sha256::digest(xml.as_bytes());
    format!("\"{version}-{}\"", hex(&hash[..8]))
}

/// A VM's definition as it may be seen, with the tag of that: a tag of all of it would tell who has guessed a password that it is right.
pub(crate) async fn definition(
    State(api): State<Shared>,
    Extension(who): Extension<Who>,
    Asked(ask): Asked,
) -> Outcome {
    let Dump { uuid, xml, version } = command::dump(api.seen(), ask.part("vm")).await?;
    let Some(xml) = who.definition(&xml) else {
        let why =
            "the definition cannot be read, and may have a password in it: it is shown to the role operate";
        return Err(Problem::new(StatusCode::FORBIDDEN, why));
    };
    let (tag, at) = (tag(version, &xml), format!("/api/v2/vms/{uuid}/definition"));
    let shown = text(StatusCode::OK, "application/xml; charset=utf-8", xml.into_owned());
    located_content(tagged(shown, &tag), &at)
}

/// Replaces a definition, if it is still the one that `If-Match` names; `*` is any.
pub(crate) async fn set_definition(State(api): State<Shared>, Asked(ask): Asked) -> Outcome {
    let Some(wanted) = ask.only_for() else {
        let why = "If-Match is missing: send the ETag of the definition that the new one was made from, or *";
        return Err(Problem::new(StatusCode::PRECONDITION_REQUIRED, why));
    };
    let dump = command::dump(&api.cluster, ask.part("vm")).await?;
    let seen = match wanted {
        "*" => None,
        tag if tag == self::tag(dump.version, &dump.xml) => Some(dump.version),
        // No version is this.
        _ => Some(-1),
    };
    let written = command::modify(&api.cluster, dump.uuid, ask.xml()?, seen).await;
    done(written.map_err(|failure| {
        let problem = Problem::from(failure);
        if seen == Some(-1) { problem.with_status(StatusCode::PRECONDITION_FAILED) } else { problem }
    })?)
}

/// The end of a VM's serial console, every byte as the guest has printed it.
pub(crate) async fn log(State(api): State<Shared>, Asked(ask): Asked) -> Outcome {
    let lines = ask.given("lines").map_or(Ok(LINES), |text| typed("lines", text))?;
    let id = api.seen().find_vm(ask.part("vm")).await?;
    let window = Follower::begin(api.seen(), id).await?.window;
    let log = text(StatusCode::OK, "text/plain; charset=utf-8", last_lines(&window, lines).to_owned());
    located_content(log, &format!("/api/v2/vms/{id}/log"))
}

#[derive(JsonSchema, Deserialize)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "NewVm")]
pub(crate) struct New {
    /// The definition.
    xml: String,
    /// The node that it belongs to; absent, one is chosen …
    node: Option<String>,
    /// … by this.
    selector: Option<String>,
}

/// Defines a VM; it is off.
pub(crate) async fn define(State(api): State<Shared>, asked: Asked) -> Outcome {
    let new: New = asked.body()?;
    let spec = DomainSpec::parse(&new.xml).map_err(|error| {
        Problem::new(StatusCode::UNPROCESSABLE_ENTITY, format!("the definition is refused: {error}"))
    })?;
    let selector = selector(new.selector.as_deref())?;
    let (_, answer) = command::define(&api.cluster, &spec, new.node.as_deref(), selector).await?;
    created(answer, &format!("/api/v2/vms/{}", spec.id))
}

/// What a start would take from the cluster, in words; nothing is refused for it.
pub(crate) async fn strain(State(api): State<Shared>, Asked(ask): Asked) -> Outcome {
    let vm = api.cluster.vm(api.cluster.find_vm(ask.part("vm")).await?).await?;
    Ok(json(&command::strained(&api.cluster, &vm).await)?)
}

/// Undefines a VM. With `stop=true` it is powered off first; else only what is off, or asked to be, is undefined.
pub(crate) async fn undefine(State(api): State<Shared>, Asked(ask): Asked) -> Outcome {
    let stop = ask.given("stop").map_or(Ok(false), |text| typed("stop", text))?;
    let id = api.cluster.find_vm(ask.part("vm")).await?;
    let within = ask.given("within").map_or(Ok(UNDEFINE_WITHIN.as_secs()), |text| typed("within", text))?;
    let within = UNDEFINE_WITHIN.min(Duration::from_secs(within));
    let (power, undefinition) = command::undefine(&api.cluster, id).await?;
    if power == Power::On && !stop {
        let why = format!("VM {} is not off: ask with stop=true to power it off first", undefinition.subject);
        return Err(Problem::new(StatusCode::CONFLICT, why));
    }
    if api.is_trial {
        // Nothing comes of what is not written.
        return asked_for(undefinition);
    }
    done(undefinition.wait(&api.cluster, within, &|_| ()).await?)
}

#[derive(JsonSchema, Deserialize)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "DesiredState")]
pub(crate) struct Wanted {
    state: Word,
}

#[derive(JsonSchema, Deserialize, Clone, Copy)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub(crate) enum Word {
    Start,
    Stop,
    Shutdown,
    Restart,
}

/// Asks that a VM runs, is off, or is restarted; does not wait for it.
pub(crate) async fn set_state(State(api): State<Shared>, asked: Asked) -> Outcome {
    let desired = match asked.body::<Wanted>()?.state {
        Word::Start => Desired::Start,
        Word::Stop => Desired::Stop,
        Word::Shutdown => Desired::Shutdown,
        Word::Restart => Desired::Restart,
    };
    let id = api.cluster.find_vm(asked.0.part("vm")).await?;
    asked_of_vm(command::set_state(&api.cluster, id, desired).await?.asked, &asked)
}

#[derive(JsonSchema, Deserialize)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Destination")]
pub(crate) struct Where {
    /// The other node; absent, one is chosen …
    node: Option<String>,
    /// … by this.
    selector: Option<String>,
    /// Also if the VM has been migrated already.
    #[serde(default)]
    force: bool,
}

#[derive(JsonSchema, Deserialize)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "WayBack")]
pub(crate) struct Back {
    /// Also to a node that is still taking its own VMs back.
    #[serde(default)]
    force: bool,
}

/// To another node, with a way back.
pub(crate) async fn migrate(State(api): State<Shared>, asked: Asked) -> Outcome {
    let to = asked.body()?;
    relocate(&api, &asked, Relocation::Migrate, to).await
}

/// The way back.
pub(crate) async fn unmigrate(State(api): State<Shared>, asked: Asked) -> Outcome {
    let Back { force } = asked.body()?;
    relocate(&api, &asked, Relocation::Unmigrate, Where { node: None, selector: None, force }).await
}

/// To another node, for good.
pub(crate) async fn move_to(State(api): State<Shared>, asked: Asked) -> Outcome {
    let to = asked.body()?;
    relocate(&api, &asked, Relocation::Move, to).await
}

async fn relocate(api: &Shared, asked: &Asked, relocation: Relocation, to: Where) -> Outcome {
    let selector = selector(to.selector.as_deref())?;
    let to = To { node: to.node.as_deref(), selector, force: to.force };
    let id = api.cluster.find_vm(asked.0.part("vm")).await?;
    asked_of_vm(command::relocate(&api.cluster, id, relocation, to).await?.asked, asked)
}

fn selector(word: Option<&str>) -> Result<Selector, Problem> {
    word.map_or(Ok(Selector::default()), |word| typed("selector", word))
}
