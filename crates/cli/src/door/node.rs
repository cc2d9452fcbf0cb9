//! Nodes.

use std::time::Duration;

use hyper::header;
use pvc_core::command::node::Signature;
use pvc_operate::{
    Answer, Progress,
    node::{self, Listen, NodeExplanation, NodeInfo, NodeList},
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::json;

use super::{Call, Client, Door, Pending, now_unix_s, pending::Told, whole};
use crate::failure::Failure;

/// A command that is not carried out before somebody has said yes.
pub(crate) struct Prepared<'a, T> {
    /// What to say yes to; `None`: nothing will be written.
    pub(crate) question: Option<String>,
    /// What is the case if nobody does.
    pub(crate) otherwise: String,
    go: std::pin::Pin<Box<dyn Future<Output = Result<T, Failure>> + 'a>>,
}

impl<'a, T> Prepared<'a, T> {
    fn new(
        question: Option<String>,
        otherwise: String,
        go: impl Future<Output = Result<T, Failure>> + 'a,
    ) -> Self {
        Self { question, otherwise, go: Box::pin(go) }
    }

    /// Somebody has said yes.
    pub(crate) async fn carry_out(self) -> Result<T, Failure> {
        self.go.await
    }
}

/// What a trial says.
#[derive(Deserialize)]
struct Trial<A> {
    message: String,
    question: Option<String>,
    /// What marks the question: the change is made only if the same one would be asked then.
    mark: Option<String>,
    /// Where nothing is to be done: what the change would say.
    answer: Option<A>,
}

impl Door {
    /// The nodes whose names are `wanted`.
    pub(crate) async fn nodes(&self, wanted: impl Fn(&str) -> bool) -> Result<NodeList, Failure> {
        match self {
            Self::Direct(cluster) => Ok(node::list(cluster, now_unix_s(), wanted).await?),
            Self::Api(api) => {
                let mut list: NodeList = api.ask(whole(&["nodes"])).await?;
                list.nodes.retain(|row| wanted(row.name()));
                list.silent_s.retain(|name, _| wanted(name.as_str()));
                Ok(list)
            }
        }
    }

    pub(crate) async fn node(&self, name: &str) -> Result<NodeInfo, Failure> {
        match self {
            Self::Direct(cluster) => Ok(node::info(cluster, name).await?),
            Self::Api(api) => api.ask(Call::get(&["nodes", name])).await,
        }
    }

    pub(crate) async fn explain_node(&self, name: &str) -> Result<NodeExplanation, Failure> {
        match self {
            Self::Direct(cluster) => Ok(node::explain(cluster, name, now_unix_s()).await?),
            Self::Api(api) => api.ask(Call::get(&["nodes", name, "explanation"])).await,
        }
    }

    pub(crate) async fn flush(&self, name: &str) -> Result<Pending, Failure> {
        match self {
            Self::Direct(cluster) => Ok(node::flush(cluster, name).await?.into()),
            Self::Api(api) => api.pending(Call::post(&["nodes", name, "flush"])).await,
        }
    }

    pub(crate) async fn ready(&self, name: &str) -> Result<Pending, Failure> {
        match self {
            Self::Direct(cluster) => Ok(node::ready(cluster, name).await?.into()),
            Self::Api(api) => api.pending(Call::post(&["nodes", name, "ready"])).await,
        }
    }

    pub(crate) async fn primary(&self, name: &str) -> Result<Pending, Failure> {
        match self {
            Self::Direct(cluster) => Ok(node::primary(cluster, name).await?.into()),
            Self::Api(api) => api.pending(Call::post(&["nodes", name, "primary"])).await,
        }
    }

    pub(crate) async fn secondary(&self, name: &str) -> Result<Pending, Failure> {
        match self {
            Self::Direct(cluster) => Ok(node::secondary(cluster, name).await?.into()),
            Self::Api(api) => api.pending(Call::post(&["nodes", name, "secondary"])).await,
        }
    }

    pub(crate) async fn cancel_fence(&self, name: &str) -> Result<Answer, Failure> {
        match self {
            Self::Direct(cluster) => Ok(node::cancel_fence(cluster, name).await?),
            Self::Api(api) => api.ask(Call::delete(&["nodes", name, "fence"])).await,
        }
    }

    pub(crate) async fn fence<'a>(&'a self, name: &str) -> Result<Prepared<'a, Pending>, Failure> {
        match self {
            Self::Direct(cluster) => {
                let prepared = node::fence(cluster, name, signature()).await?;
                let (question, otherwise) = (prepared.question.clone(), prepared.otherwise.clone());
                let go = async { Ok(prepared.carry_out(cluster).await?.into()) };
                Ok(Prepared::new(question, otherwise, go))
            }
            Self::Api(api) => {
                let call = Call::post(&["nodes", name, "fence"]);
                let trial: Trial<Told> = api.trial(call.clone()).await?;
                api.prepared(call, trial)
            }
        }
    }

    pub(crate) async fn confirm_dead<'a>(
        &'a self,
        name: &str,
        listen: Duration,
        progress: Progress<'_>,
    ) -> Result<Prepared<'a, Pending>, Failure> {
        match self {
            Self::Direct(cluster) => {
                let listen = Listen { at_least: listen, progress };
                let prepared = node::confirm_dead(cluster, name, signature(), listen).await?;
                let (question, otherwise) = (prepared.question.clone(), prepared.otherwise.clone());
                let go = async { Ok(prepared.carry_out(cluster).await?.into()) };
                Ok(Prepared::new(question, otherwise, go))
            }
            Self::Api(api) => {
                let call = listening(Call::post(&["nodes", name, "confirm-dead"]), listen)?;
                let trial: Trial<Told> = api.heard(call.clone(), name, progress).await?;
                api.prepared(call, trial)
            }
        }
    }

    pub(crate) async fn replace<'a>(
        &'a self,
        name: &str,
        listen: Duration,
        progress: Progress<'_>,
    ) -> Result<Prepared<'a, Answer>, Failure> {
        match self {
            Self::Direct(cluster) => {
                let listen = Listen { at_least: listen, progress };
                let prepared = node::replace(cluster, name, signature(), listen).await?;
                let (question, otherwise) = (prepared.question.clone(), prepared.otherwise.clone());
                let go = async { Ok(prepared.carry_out(cluster).await?) };
                Ok(Prepared::new(question, otherwise, go))
            }
            Self::Api(api) => {
                let call = listening(Call::post(&["nodes", name, "replace"]), listen)?;
                let trial: Trial<Answer> = api.heard(call.clone(), name, progress).await?;
                api.prepared(call, trial)
            }
        }
    }

    pub(crate) async fn remove_node<'a>(
        &'a self,
        name: &str,
        listen: Duration,
        progress: Progress<'_>,
    ) -> Result<Prepared<'a, Answer>, Failure> {
        match self {
            Self::Direct(cluster) => {
                let prepared = node::remove(cluster, name, Listen { at_least: listen, progress }).await?;
                let (question, otherwise) = (prepared.question.clone(), prepared.otherwise.clone());
                let go = async { Ok(prepared.carry_out(cluster).await?) };
                Ok(Prepared::new(question, otherwise, go))
            }
            Self::Api(api) => {
                let call = listening(Call::delete(&["nodes", name]), listen)?;
                let trial: Trial<Answer> = api.heard(call.clone(), name, progress).await?;
                api.prepared(call, trial)
            }
        }
    }
}

impl Client {
    /// What would be done.
    async fn trial<A: DeserializeOwned>(&self, call: Call) -> Result<Trial<A>, Failure> {
        self.ask(call.query("dry_run", "true")).await
    }

    /// The same, which takes a while.
    async fn heard<A: DeserializeOwned>(
        &self,
        call: Call,
        name: &str,
        progress: Progress<'_>,
    ) -> Result<Trial<A>, Failure> {
        progress(&format!("listening whether {name} lives"));
        self.trial(call).await
    }

    /// The change that the yes to this trial is for, and no other. Where there is nothing to say yes to, nothing is sent.
    fn prepared<'a, A, T>(&'a self, call: Call, trial: Trial<A>) -> Result<Prepared<'a, T>, Failure>
    where
        A: DeserializeOwned + 'a,
        T: From<A> + 'a,
    {
        let Trial { message, question, mark, answer } = trial;
        let is_whole = if question.is_some() { mark.is_some() } else { answer.is_some() };
        if !is_whole {
            let why = "the API's answer does not say what a yes would be good for: is it an older one?";
            return Err(Failure::Rubbish(why.to_owned()));
        }
        let go = async move {
            match (answer, mark) {
                (Some(answer), _) => Ok(answer.into()),
                (None, mark) => {
                    let call = call.header(header::IF_MATCH, &mark.unwrap_or_default());
                    Ok(self.ask::<A>(call).await?.into())
                }
            }
        };
        Ok(Prepared::new(question, message, go))
    }
}

/// The longest that is listened over the API, seconds: an answer takes no longer than a minute.
const LONGEST_S: u64 = 45;

fn listening(call: Call, listen: Duration) -> Result<Call, Failure> {
    let listen_s = listen.as_secs();
    if listen_s > LONGEST_S {
        return Err(Failure::Usage(format!(
            "--listen {listen_s}: over the API it is listened for {LONGEST_S} s at most, since an answer takes no longer than a minute; run it on a node to listen longer"
        )));
    }
    Ok(call.json(&json!({ "listen_s": listen_s })))
}

/// Who asks: for the record. Over the API that is its token.
fn signature() -> Signature {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = host.trim();
    let by = if host.is_empty() { "an operator".to_owned() } else { format!("an operator on {host}") };
    Signature { by, at_unix_s: now_unix_s() }
}
