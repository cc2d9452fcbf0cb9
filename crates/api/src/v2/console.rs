//! A VM's serial console as a WebSocket: what is printed and typed as binary frames, what happens to the console as lines in text frames.
//!
//! A client that reads slowly is told what it has missed; one that is silent for two pings is gone. Nothing waits here without a bound.

use std::sync::Arc;

use axum::{
    Extension,
    extract::{State, ws::close_code},
    http::StatusCode,
};
use pvc_console::{Event, Hold, Session, Wanted};
use pvc_operate::{Cluster, Failure};
use serde_json::json;

use super::{
    Asked, Outcome, Problem,
    socket::{self, Client, Said, Upgrade},
    typed,
};
use crate::{
    api::Shared,
    talk::{Kind, Talk},
    who::Who,
};

/// Opens the console, and then the WebSocket: what stands in the way is an ordinary answer. For who is told by [`Form::Events`] the WebSocket comes first, and it may take as
/// long as it likes until the console is open.
pub(crate) async fn console(
    State(api): State<Shared>,
    Extension(who): Extension<Who>,
    Extension(talk): Extension<Arc<Talk>>,
    upgrade: Upgrade,
    Asked(ask): Asked,
) -> Outcome {
    let upgrade = socket::bounded(upgrade)?;
    let switch = |name| ask.given(name).map_or(Ok(false), |text| typed(name, text));
    let (force, inside) = (switch("force")?, switch("inside")?);
    let (events, wait, again) = (switch("events")?, switch("wait")?, switch("again")?);
    if (wait || again) && !events {
        return Err(Problem::new(StatusCode::BAD_REQUEST, "wait and again are of events=true"));
    }
    if force && again {
        return Err(Problem::new(
            StatusCode::BAD_REQUEST,
            "of force and again one: who takes it back by force is taken it from",
        ));
    }
    if force {
        // It may have an effect although its client does not wait for it.
        talk.takes();
    }
    let hold = if force { Hold::Take } else { Hold::IfFree };
    let (form, opened) = if events {
        let session = begin(&api, ask.part("vm"), (hold, wait, again)).await?;
        (Form::Events, Ok((session, None)))
    } else {
        (Form::Lines, open(&api, ask.part("vm"), hold).await)
    };
    let (session, line) = match opened {
        Ok(opened) => opened,
        Err(problem) if inside => return Ok(socket::refuse_inside(upgrade, &api, &who, talk, problem)),
        Err(problem) => return Err(problem),
    };
    if let Some(line) = &line {
        talk.begins(Kind::Console, line);
    }
    Ok(upgrade.on_upgrade(move |socket| async move {
        let client = Client::new(socket, api.limits.taken_within);
        let mut teller = Teller { client, form, who: &who, talk: &talk, is_open: line.is_some() };
        let why = tokio::select! {
            why = carry(&mut teller, session, line) => Ok(why),
            end = socket::has_to_end(&api, &who, &talk) => Err(end),
        };
        let why = match why {
            Ok(why) => why,
            Err((code, why)) => {
                teller.say(why.to_owned()).await;
                teller.client.close(code, why).await;
                why.to_owned()
            }
        };
        talk.ends(&why);
        teller.client.farewell().await;
    }))
}

/// How a client is told what happens to its console.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// By lines for people.
    Lines,
    /// By objects for programs, of one value each: `opened`, `said` and `ended` are lines, `failed` is a problem.
    Events,
}

/// Tells a client what happens, and the audit what it is to know of it.
struct Teller<'a> {
    client: Client,
    form: Form,
    who: &'a Who,
    talk: &'a Talk,
    is_open: bool,
}

impl Teller<'_> {
    async fn opened(&mut self, line: String) -> bool {
        if !std::mem::replace(&mut self.is_open, true) {
            self.talk.begins(Kind::Console, &line);
        }
        self.line("opened", line).await
    }

    async fn say(&mut self, line: String) -> bool {
        self.line("said", line).await
    }

    async fn line(&mut self, event: &str, line: String) -> bool {
        let text = match self.form {
            Form::Lines => line,
            Form::Events => json!({ event: line }).to_string(),
        };
        self.client.say(text).await
    }

    /// It is over; the words for the audit.
    async fn ended(&mut self, end: Result<String, Failure>) -> String {
        let (code, words) = match end {
            Ok(line) => {
                self.line("ended", line.clone()).await;
                (close_code::NORMAL, line)
            }
            Err(failure) => {
                let (words, told) = Problem::from(failure).without_names(self.who).told();
                let text = match self.form {
                    Form::Lines => words.clone(),
                    Form::Events => json!({ "failed": told }).to_string(),
                };
                self.client.say(text).await;
                (close_code::ERROR, words)
            }
        };
        if !self.is_open {
            self.talk.is_refused(&words);
        }
        self.client.close(code, "the console has ended").await;
        words
    }
}

async fn begin(api: &Shared, vm: &str, (hold, wait, again): (Hold, bool, bool)) -> Result<Session, Problem> {
    let vm = api.cluster.find_vm(vm).await?;
    let cluster = Arc::new(Cluster::new(Arc::clone(&api.cluster.store), api.cluster.place.as_str()));
    let nodes = socket::nodes(api).await?;
    Ok(Session::begin(cluster, api.consoles()?, nodes, Wanted { vm, hold, wait, again }))
}

/// The console, and a line that says of whom and where.
async fn open(api: &Shared, vm: &str, hold: Hold) -> Result<(Session, Option<String>), Problem> {
    let mut session = begin(api, vm, (hold, false, false)).await?;
    match session.next().await {
        Event::Opened(line) => Ok((session, Some(line))),
        Event::Ended(Err(failure)) => Err(failure.into()),
        // Neither comes before it is open.
        Event::Ended(Ok(line)) | Event::Said(line) => Err(Problem::new(StatusCode::CONFLICT, line)),
        Event::Printed(_) => {
            Err(Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "printed before it was open"))
        }
    }
}

/// Until one side ends it; why. `opened`: it is open already.
async fn carry(teller: &mut Teller<'_>, mut session: Session, opened: Option<String>) -> String {
    let gone = || "the client is gone".to_owned();
    let mut pings = Client::pings().await;
    if let Some(line) = opened
        && !teller.opened(line).await
    {
        return gone();
    }
    loop {
        let is_there = tokio::select! {
            biased;
            said = teller.client.next() => match said {
                Said::Bytes(bytes) => {
                    session.write(&bytes) || teller.say("the guest does not take what is typed: this was not passed on".to_owned()).await
                }
                Said::Lives => true,
                Said::Over(why) => return why.to_owned(),
                Said::Gone => false,
            },
            event = session.next() => match event {
                Event::Printed(bytes) => teller.client.print(&bytes).await,
                Event::Opened(line) => teller.opened(line).await,
                Event::Said(line) => teller.say(line).await,
                Event::Ended(end) => return teller.ended(end).await,
            },
            _ = pings.tick() => teller.client.ping().await,
        };
        if !is_there {
            return gone();
        }
    }
}
