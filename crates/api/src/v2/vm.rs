//! Changes of VMs, their definitions, and what they print.

use std::time::Duration;

use axum::{
    extract::{FromRequest as _, Request, State},
    http::{StatusCode, header},
};
use pvc_core::{model::DomainSpec, plan::placement::Selector};
use pvc_operate::vm::{self as command, Desired, Dump, Follower, Relocation, To, last_lines};
use schemars::JsonSchema;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use super::{Asked, Nothing, Outcome, Problem, asked_for, created, done, tagged, typed};
use crate::{api::Shared, reply::text, session::hex};

/// How long a call waits for a VM to be off before its keys are deleted.
const UNDEFINE_WITHIN: Duration = Duration::from_secs(30);

/// So many lines of a console unless others are asked for.
const LINES: usize = 200;

/// What marks this version of a definition: of a VM that was undefined and defined anew its key's version begins anew.
fn tag(dump: &Dump) -> String {
    let hash = Sha256::digest(dump.xml.as_bytes());
    format!("\"{}-{}\"", dump.version, hex(&hash[..8]))
}

/// A VM's definition, with its tag.
pub(crate) async fn definition(State(api): State<Shared>, Asked(ask): Asked) -> Outcome {
    let dump = command::dump(&api.cluster, ask.part("vm")).await?;
    let tag = tag(&dump);
    Ok(tagged(text(StatusCode::OK, "application/xml; charset=utf-8", dump.xml), &tag))
}

/// Replaces a definition, if it is still the one that `If-Match` names; `*` is any.
pub(crate) async fn set_definition(State(api): State<Shared>, request: Request) -> Outcome {
    let wanted =
        request.headers().get(header::IF_MATCH).map(|tag| tag.to_str().unwrap_or_default().to_owned());
    let Asked(ask) = Asked::from_request(request, &api).await?;
    let Some(wanted) = wanted else {
        let why = "If-Match is missing: send the ETag of the definition that the new one was made from, or *";
        return Err(Problem::new(StatusCode::PRECONDITION_REQUIRED, why));
    };
    let dump = command::dump(&api.cluster, ask.part("vm")).await?;
    if wanted != "*" && wanted != tag(&dump) {
        let why =
            "somebody else has changed the definition since it was read: read it again, and change that";
        return Err(Problem::new(StatusCode::PRECONDITION_FAILED, why));
    }
    let seen = (wanted != "*").then_some(dump.version);
    done(command::modify(&api.cluster, dump.uuid, ask.xml()?, seen).await?)
}

/// The end of a VM's serial console, every byte as the guest has printed it.
pub(crate) async fn log(State(api): State<Shared>, Asked(ask): Asked) -> Outcome {
    let lines = ask.given("lines").map_or(Ok(LINES), |text| typed("lines", text))?;
    let id = api.cluster.find_vm(ask.part("vm")).await?;
    let window = Follower::begin(&api.cluster, id).await?.window;
    Ok(text(StatusCode::OK, "text/plain; charset=utf-8", last_lines(&window, lines).to_owned()))
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

/// Undefines a VM. With `stop=true` it is powered off first; else only what is off is undefined.
pub(crate) async fn undefine(State(api): State<Shared>, Asked(ask): Asked) -> Outcome {
    let stop = ask.given("stop").map_or(Ok(false), |text| typed("stop", text))?;
    let id = api.cluster.find_vm(ask.part("vm")).await?;
    let (is_off, undefinition) = command::undefine(&api.cluster, id).await?;
    if !is_off && !stop {
        let why = format!("VM {} is not off: ask with stop=true to power it off first", undefinition.subject);
        return Err(Problem::new(StatusCode::CONFLICT, why));
    }
    done(undefinition.wait(&api.cluster, UNDEFINE_WITHIN, &|_| ()).await?)
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
    asked_for(command::set_state(&api.cluster, id, desired).await?.asked)
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

/// To another node, with a way back.
pub(crate) async fn migrate(State(api): State<Shared>, asked: Asked) -> Outcome {
    let to = asked.body()?;
    relocate(&api, &asked, Relocation::Migrate, to).await
}

/// The way back.
pub(crate) async fn unmigrate(State(api): State<Shared>, asked: Asked) -> Outcome {
    let Nothing {} = asked.body()?;
    relocate(&api, &asked, Relocation::Unmigrate, Where { node: None, selector: None, force: false }).await
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
    asked_for(command::relocate(&api.cluster, id, relocation, to).await?.asked)
}

fn selector(word: Option<&str>) -> Result<Selector, Problem> {
    word.map_or(Ok(Selector::default()), |word| typed("selector", word))
}
