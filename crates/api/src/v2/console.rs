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
use pvc_operate::Cluster;

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

/// Opens the console, and then the WebSocket: what stands in the way is an ordinary answer.
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
    if force {
        // It may have an effect although its client does not wait for it.
        talk.takes();
    }
    let (session, line) = match open(&api, ask.part("vm"), force).await {
        Ok(opened) => opened,
        Err(problem) if inside => return Ok(socket::refuse_inside(upgrade, &api, &who, talk, problem)),
        Err(problem) => return Err(problem),
    };
    talk.begins(Kind::Console, &line);
    Ok(upgrade.on_upgrade(move |socket| async move {
        let mut client = Client::new(socket, api.limits.taken_within);
        let why = tokio::select! {
            why = carry(&mut client, session, line) => Ok(why),
            end = socket::has_to_end(&api, &who, &talk) => Err(end),
        };
        let why = match why {
            Ok(why) => why,
            Err((code, why)) => {
                client.say(why.to_owned()).await;
                client.close(code, why).await;
                why.to_owned()
            }
        };
        talk.ends(&why);
        client.farewell().await;
    }))
}

/// The console, and a line that says of whom and where.
async fn open(api: &Shared, vm: &str, force: bool) -> Result<(Session, String), Problem> {
    let vm = api.cluster.find_vm(vm).await?;
    let hold = if force { Hold::Take } else { Hold::IfFree };
    let cluster = Arc::new(Cluster::new(Arc::clone(&api.cluster.store), api.cluster.place.as_str()));
    let nodes = socket::nodes(api).await?;
    let mut session = Session::begin(cluster, api.consoles()?, nodes, Wanted { vm, hold, wait: false });
    match session.next().await {
        Event::Opened(line) => Ok((session, line)),
        Event::Ended(Err(failure)) => Err(failure.into()),
        // Neither comes before it is open.
        Event::Ended(Ok(line)) | Event::Said(line) => Err(Problem::new(StatusCode::CONFLICT, line)),
        Event::Printed(_) => {
            Err(Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "printed before it was open"))
        }
    }
}

/// Until one side ends it; why.
async fn carry(client: &mut Client, mut session: Session, opened: String) -> String {
    let gone = || "the client is gone".to_owned();
    let mut pings = Client::pings().await;
    if !client.say(opened).await {
        return gone();
    }
    loop {
        let is_there = tokio::select! {
            biased;
            said = client.next() => match said {
                Said::Bytes(bytes) => {
                    session.write(&bytes) || client.say("the guest does not take what is typed: this was not passed on".to_owned()).await
                }
                Said::Lives => true,
                Said::Over(why) => return why.to_owned(),
                Said::Gone => false,
            },
            event = session.next() => match event {
                Event::Printed(bytes) => client.print(&bytes).await,
                Event::Opened(line) | Event::Said(line) => client.say(line).await,
                Event::Ended(end) => {
                    let (code, line) = match end {
                        Ok(line) => (close_code::NORMAL, line),
                        Err(failure) => (close_code::ERROR, failure.to_string()),
                    };
                    client.say(line.clone()).await;
                    client.close(code, "the console has ended").await;
                    return line;
                }
            },
            _ = pings.tick() => client.ping().await,
        };
        if !is_there {
            return gone();
        }
    }
}
