//! Keeps a client connected: looks for a server, gives signs of life, and believes what follows from answers that come or do not.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use pvc_store::{Heard, Session};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, sleep, sleep_until},
};

use super::{
    Shared,
    line::{Ask, Carrier, Line, Reply, Request},
};
use crate::{
    parts::in_flight,
    physics::{
        ensemble::{Accepted, Refused},
        network::Number,
    },
};

const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Keeps a connection, for ever.
pub(super) async fn keep(shared: Arc<Shared>) {
    let mut epoch = 0;
    let mut servers: VecDeque<Number> = shared.place.ensemble.servers().into();
    let first = shared.place.node % servers.len().max(1);
    servers.rotate_left(first);
    loop {
        let (asked, accepted) = connect(&shared, &mut servers).await;
        shared.lock().granted = accepted.granted;
        if accepted.new_session {
            epoch += 1;
            shared.lock().heard = Heard::opened(asked);
            if epoch > 1 {
                shared.belief.send_replace(Session::Connecting);
            }
        }
        let (requests, queue) = mpsc::unbounded_channel();
        let (losing, lost) = watch::channel(false);
        let ended = accepted.ended.clone();
        let carrier = Carrier { place: shared.place.clone(), client: shared.client };
        let inner = Arc::clone(&shared.inner);
        shared.place.world.spawn(carrier.carry(accepted, queue, inner));
        {
            let mut state = shared.lock();
            if state.closed {
                return;
            }
            state.line = Some(Line { requests: requests.clone(), lost });
        }
        shared.belief.send_replace(Session::Healthy { epoch });
        serve(&shared, requests, ended).await;
        shared.lock().line = None;
        losing.send_replace(true);
        if shared.lock().closed {
            return;
        }
        shared.belief.send_replace(Session::Suspended { epoch });
        shared.inner.suspend();
    }
}

/// A connection with some server, sooner or later, and when it was asked for.
async fn connect(shared: &Shared, servers: &mut VecDeque<Number>) -> (Instant, Accepted) {
    let within = shared.lock().granted / 3;
    let mut pause = FIRST_PAUSE;
    loop {
        for _ in 0..servers.len() {
            servers.rotate_left(1);
            let Some(server) = servers.front().copied() else { break };
            let (ensemble, client) = (Arc::clone(&shared.place.ensemble), shared.client);
            let latency = ensemble.latency();
            let asked = Instant::now();
            let knock = async move {
                sleep(latency).await;
                match ensemble.accept(client, server) {
                    Err(Refused::Silence) => {
                        sleep(within).await;
                        None
                    }
                    Err(Refused::AtOnce) => None,
                    Ok(accepted) => Some(accepted),
                }
            };
            if let Some(accepted) = in_flight(&shared.place.world, knock).await {
                return (asked, accepted);
            }
        }
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Gives signs of life until the connection is lost, as this side learns of it.
async fn serve(shared: &Shared, requests: mpsc::UnboundedSender<Request>, mut ended: watch::Receiver<bool>) {
    let (mut said, mut heard) = (Instant::now(), Instant::now());
    let timeout = shared.lock().granted;
    let mut pong: Option<(Instant, oneshot::Receiver<Reply>)> = None;
    loop {
        heard = heard.max(shared.lock().answered.unwrap_or(heard));
        let (ping_at, lost_at) = (said + timeout * 2 / 5, heard + timeout * 2 / 3);
        tokio::select! {
            biased;
            answer = answered(&mut pong) => {
                pong = None;
                if let Some(pinged) = answer {
                    heard = Instant::now();
                    shared.lock().heard.answered(pinged);
                }
            }
            _ = ended.wait_for(|ended| *ended) => return,
            () = sleep_until(ping_at.min(lost_at)) => {
                heard = heard.max(shared.lock().answered.unwrap_or(heard));
                if Instant::now() >= heard + timeout * 2 / 3 {
                    return;
                }
                // Its process has ended, and its farewell was not heard.
                if shared.lock().closed {
                    return;
                }
                if Instant::now() >= ping_at {
                    let (reply, replied) = oneshot::channel();
                    said = Instant::now();
                    if requests.send(Request { sent: said, ask: Ask::Ping, reply }).is_err() {
                        return;
                    }
                    pong.get_or_insert((said, replied));
                }
            }
        }
    }
}

/// When what is answered now was sent; `None`: it never is.
async fn answered(pong: &mut Option<(Instant, oneshot::Receiver<Reply>)>) -> Option<Instant> {
    match pong {
        Some((pinged, replied)) => replied.await.ok().map(|_| *pinged),
        None => std::future::pending().await,
    }
}
