//! Changes of VMs.

use axum::{
    extract::{FromRequest as _, Request, State},
    http::{StatusCode, header},
};
use pvc_operate::vm::{self as command, Desired, Dump};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use super::{Asked, Outcome, Problem, accepted, done, tagged};
use crate::{api::Shared, reply::text, session::hex};

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

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    state: Word,
}

#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "lowercase")]
enum Word {
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
    accepted(command::set_state(&api.cluster, id, desired).await?.asked.answer)
}
