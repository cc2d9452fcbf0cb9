//! Changes of nodes.

use std::time::Duration;

use axum::{extract::State, http::StatusCode};
use pvc_core::command::node::Signature;
use pvc_operate::node::{self as command, Listen, Prepared};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::{Asked, Nothing, Outcome, Problem, asked_for, done, outcome::Told};
use crate::{
    api::Shared,
    clock::now_unix_s,
    reply::{self, Failed},
    session::hex,
};

/// Sends a node's VMs away.
pub(crate) async fn flush(State(api): State<Shared>, asked: Asked) -> Outcome {
    asked_for(command::flush(&api.cluster, node(&asked)?).await?)
}

/// Has a node take VMs, first those that were sent away from it.
pub(crate) async fn ready(State(api): State<Shared>, asked: Asked) -> Outcome {
    asked_for(command::ready(&api.cluster, node(&asked)?).await?)
}

/// Makes a coordinator primary.
pub(crate) async fn primary(State(api): State<Shared>, asked: Asked) -> Outcome {
    asked_for(command::primary(&api.cluster, node(&asked)?).await?)
}

/// Has the primary step down.
pub(crate) async fn secondary(State(api): State<Shared>, asked: Asked) -> Outcome {
    asked_for(command::secondary(&api.cluster, node(&asked)?).await?)
}

/// Has a node fenced, heard of or not.
pub(crate) async fn fence(State(api): State<Shared>, asked: Asked) -> Outcome {
    let prepared = command::fence(&api.cluster, node(&asked)?, signature(&asked)).await?;
    if api.is_trial {
        let mark = Confirmation::of(&prepared);
        return match mark.question {
            Some(_) => mark.ask(),
            None => nothing_to_ask(mark.otherwise, Told::from(prepared.carry_out(&api.cluster).await?)),
        };
    }
    Confirmation::of(&prepared).check(&asked)?;
    asked_for(prepared.carry_out(&api.cluster).await?)
}

/// Ends a fence that has proven nothing yet.
pub(crate) async fn cancel_fence(State(api): State<Shared>, Asked(ask): Asked) -> Outcome {
    done(command::cancel_fence(&api.cluster, ask.part("node")).await?)
}

/// How long it is listened whether the node lives.
#[derive(JsonSchema, Deserialize)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Word")]
pub(crate) struct Word {
    /// So many seconds, 1 to 45; 6 unless given.
    #[serde(default = "usual")]
    listen_s: u32,
}

/// With what else there is to do it has to be answered within a minute.
const LONGEST_S: u32 = 45;

fn usual() -> u32 {
    6
}

/// Takes somebody's word that a node is dead.
pub(crate) async fn confirm_dead(State(api): State<Shared>, asked: Asked) -> Outcome {
    let (name, listen) = (asked.0.part("node"), listen(&asked)?);
    let prepared = command::confirm_dead(&api.cluster, name, signature(&asked), listen).await?;
    if api.is_trial {
        let mark = Confirmation::of(&prepared);
        return match mark.question {
            Some(_) => mark.ask(),
            None => nothing_to_ask(mark.otherwise, Told::from(prepared.carry_out(&api.cluster).await?)),
        };
    }
    Confirmation::of(&prepared).check(&asked)?;
    asked_for(prepared.carry_out(&api.cluster).await?)
}

/// Takes somebody's word that the machine that had a node's name is gone for good.
pub(crate) async fn replace(State(api): State<Shared>, asked: Asked) -> Outcome {
    let (name, listen) = (asked.0.part("node"), listen(&asked)?);
    let prepared = command::replace(&api.cluster, name, signature(&asked), listen).await?;
    if api.is_trial {
        let mark = Confirmation::of(&prepared);
        return match mark.question {
            Some(_) => mark.ask(),
            None => nothing_to_ask(mark.otherwise, prepared.carry_out(&api.cluster).await?),
        };
    }
    Confirmation::of(&prepared).check(&asked)?;
    done(prepared.carry_out(&api.cluster).await?)
}

/// Removes a node for good.
pub(crate) async fn remove(State(api): State<Shared>, asked: Asked) -> Outcome {
    let prepared = command::remove(&api.cluster, asked.0.part("node"), listen(&asked)?).await?;
    if api.is_trial {
        let mark = Confirmation::of(&prepared);
        return match mark.question {
            Some(_) => mark.ask(),
            None => nothing_to_ask(mark.otherwise, prepared.carry_out(&api.cluster).await?),
        };
    }
    Confirmation::of(&prepared).check(&asked)?;
    done(prepared.carry_out(&api.cluster).await?)
}

fn node(asked: &Asked) -> Result<&str, Problem> {
    let Nothing {} = asked.body()?;
    Ok(asked.0.part("node"))
}

fn listen(asked: &Asked) -> Result<Listen<'static>, Problem> {
    let Word { listen_s } = asked.body()?;
    if !(1..=LONGEST_S).contains(&listen_s) {
        let why = format!(
            "listen_s: it is listened for 1 to {LONGEST_S} s: an answer takes no longer than a minute"
        );
        return Err(Failed::Bad(why).into());
    }
    Ok(Listen { at_least: Duration::from_secs(listen_s.into()), progress: &|_| () })
}

/// Who asks: for the record.
fn signature(asked: &Asked) -> Signature {
    Signature { by: asked.0.by(), at_unix_s: now_unix_s() }
}

/// What a trial asks, and what marks that.
struct Confirmation {
    question: Option<String>,
    otherwise: String,
    mark: String,
}

impl Confirmation {
    fn of<T>(prepared: &Prepared<T>) -> Self {
        let hash = Sha256::digest(prepared.bound().as_bytes());
        let mark = format!("\"{}\"", hex(&hash[..16]));
        Self { question: prepared.question.clone(), otherwise: prepared.otherwise.clone(), mark }
    }

    /// What a trial says: what to say yes to, with its mark, and what is the case if nobody does.
    fn ask(self) -> Outcome {
        let Self { question, otherwise, mark } = self;
        Ok(reply::json(&json!({ "message": otherwise, "question": question, "mark": mark }))?)
    }

    /// A yes is good for what was asked, and for nothing else.
    fn check(&self, asked: &Asked) -> Result<(), Problem> {
        match asked.0.only_for() {
            None | Some("*") => Ok(()),
            Some(mark) if mark == self.mark => Ok(()),
            Some(_) => {
                let why = format!(
                    "{}: it is not any more as it was when that was asked, so the yes does not count: ask again",
                    self.otherwise
                );
                Err(Problem::new(StatusCode::PRECONDITION_FAILED, why))
            }
        }
    }
}

/// What a trial says where nothing is to be done: what the change would answer.
fn nothing_to_ask(otherwise: String, answer: impl Serialize) -> Outcome {
    Ok(reply::json(&json!({ "message": otherwise, "question": null, "answer": answer }))?)
}
