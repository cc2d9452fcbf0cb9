//! A VM's screen as a WebSocket: RFB both ways in binary frames, as noVNC speaks it, and nothing else. Why it has ended is in its close.
//!
//! RFB cannot be resumed: a screen whose guest has moved is closed with [`AGAIN`], and its client opens it again.

use std::sync::Arc;

use axum::{
    Extension,
    extract::{State, ws::close_code},
};
use pvc_console::screen::{Screen, ScreenEnd, Screens, Seen};
use pvc_operate::Cluster;

use super::{
    Asked, Outcome, Problem,
    socket::{self, Client, FRAME, Said, Upgrade},
    typed,
};
use crate::{
    api::Shared,
    clock::now_unix_s,
    talk::{Kind, Talk},
    who::Who,
};

/// The code of a close after which the screen can be opened again, at once: the guest has moved, as a rule.
const AGAIN: u16 = 4001;

/// What clients of old say that they speak.
const PROTOCOL: &str = "binary";

/// Opens the screen, and then the WebSocket: what stands in the way is an ordinary answer.
pub(crate) async fn screen(
    State(api): State<Shared>,
    Extension(who): Extension<Who>,
    Extension(talk): Extension<Arc<Talk>>,
    upgrade: Upgrade,
    Asked(ask): Asked,
) -> Outcome {
    let upgrade = socket::bounded(upgrade)?.protocols([PROTOCOL]);
    let inside = ask.given("inside").map_or(Ok(false), |text| typed("inside", text))?;
    let screen = match open(&api, ask.part("vm")).await {
        Ok(screen) => screen,
        Err(problem) if inside => return Ok(socket::refuse_inside(upgrade, &api, &who, talk, problem)),
        Err(problem) => return Err(problem),
    };
    talk.begins(Kind::Screen, &screen.line());
    Ok(upgrade.on_upgrade(move |socket| async move {
        let mut client = Client::new(socket, api.limits.taken_within);
        let why = tokio::select! {
            why = carry(&mut client, screen) => Ok(why),
            end = socket::has_to_end(&api, &who, &talk) => Err(end),
        };
        let why = match why {
            Ok(why) => why,
            Err((code, why)) => {
                client.close(code, why).await;
                why.to_owned()
            }
        };
        talk.ends(&why);
        client.farewell().await;
    }))
}

async fn open(api: &Shared, vm: &str) -> Result<Screen, Problem> {
    let vm = api.cluster.find_vm(vm).await?;
    let cluster = Arc::new(Cluster::new(Arc::clone(&api.cluster.store), api.cluster.place.as_str()));
    let screens = match &api.screens {
        Some(screens) => screens.clone(),
        None => Screens::of(socket::nodes(api).await?),
    };
    Ok(screens.open(cluster, vm, now_unix_s).await?)
}

/// Until one side ends it; why.
async fn carry(client: &mut Client, mut screen: Screen) -> String {
    let mut pings = Client::pings().await;
    let mut bytes = vec![0; FRAME];
    loop {
        let is_there = tokio::select! {
            biased;
            said = client.next() => match said {
                Said::Bytes(bytes) => {
                    if !screen.write(&bytes, client.patience).await {
                        return over(client, screen.end().await).await;
                    }
                    true
                }
                Said::Lives => true,
                Said::Over(why) => return why.to_owned(),
                Said::Gone => false,
            },
            seen = screen.next(&mut bytes) => match seen {
                Seen::Bytes(count) => client.print(bytes.get(..count).unwrap_or_default()).await,
                Seen::Ended(end) => return over(client, end).await,
            },
            _ = pings.tick() => client.ping().await,
        };
        if !is_there {
            return "the client is gone".to_owned();
        }
    }
}

async fn over(client: &mut Client, end: ScreenEnd) -> String {
    let code = if matches!(end, ScreenEnd::Off(_)) { close_code::NORMAL } else { AGAIN };
    client.close(code, end.line()).await;
    end.line().to_owned()
}
