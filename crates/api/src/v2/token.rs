//! Tokens of the state tree.

use axum::extract::State;
use pvc_core::model::token::{Role, given};
use pvc_operate::token as command;
use schemars::JsonSchema;
use serde::Deserialize;

use super::{Asked, Outcome, done, located, paged, typed};
use crate::{
    api::Shared,
    clock::now_unix_s,
    reply::{Said, json, json_with},
};

const NOT_READ: &str = "this service cannot read the tokens anew yet, and tries again until it can";

/// All tokens of the state tree that can be used.
pub(crate) async fn list(State(api): State<Shared>, Asked(ask): Asked) -> Outcome {
    let (tokens, problems) = command::list(api.seen()).await?;
    paged::list_with(&ask, tokens, &problems, |row| row.name.clone())
}

/// One of them.
pub(crate) async fn info(State(api): State<Shared>, Asked(ask): Asked) -> Outcome {
    Ok(json(&command::info(api.seen(), ask.part("token")).await?)?)
}

#[derive(JsonSchema, Deserialize)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "NewToken")]
pub(crate) struct New {
    name: String,
    role: Word,
    /// The names of the only VMs that it is good for; absent: it is limited to none.
    #[serde(default, deserialize_with = "given")]
    #[schemars(with = "Vec<String>")]
    vms: Option<Vec<String>>,
    /// From when on it is good for nothing, in seconds since 1970; absent: it goes on.
    #[serde(default, deserialize_with = "given")]
    #[schemars(with = "u64")]
    expires_unix_s: Option<u64>,
}

#[derive(JsonSchema, Deserialize, Clone, Copy)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub(crate) enum Word {
    Read,
    Operate,
    Admin,
}

impl From<Word> for Role {
    fn from(word: Word) -> Self {
        match word {
            Word::Read => Self::Read,
            Word::Operate => Self::Operate,
            Word::Admin => Self::Admin,
        }
    }
}

/// Adds a token, and answers it this once.
pub(crate) async fn add(State(api): State<Shared>, asked: Asked) -> Outcome {
    let New { name, role, vms, expires_unix_s } = asked.body()?;
    let vms = vms.map(|vms| vms.iter().map(|vm| typed("vms", vm)).collect::<Result<_, _>>()).transpose()?;
    let new = command::NewToken { name: typed("name", &name)?, role: role.into(), vms, expires_unix_s };
    let at = format!("/api/v2/tokens/{}", new.name);
    let mut added = command::add(&api.cluster, new, now_unix_s()).await?;
    if !api.gate.read_tokens(&*api.cluster.store).await {
        added.answer.notes.push(format!("{NOT_READ}: it lets nobody in until then"));
    }
    let mut response = json_with(axum::http::StatusCode::CREATED, &added);
    response.extensions_mut().insert(Said(added.answer.message));
    located(response, &at)
}

/// Removes a token: it is good for nothing when this is answered, or the answer says that it may be.
pub(crate) async fn remove(State(api): State<Shared>, Asked(ask): Asked) -> Outcome {
    let mut answer = command::remove(&api.cluster, ask.part("token")).await?;
    if !api.gate.read_tokens(&*api.cluster.store).await {
        answer.message = format!("token {} is removed", ask.part("token"));
        answer.notes.push(format!("{NOT_READ}: until then it may let somebody in"));
    }
    done(answer)
}
