//! Answers `GET /metrics`, on loopback, for a few askers at once and each for a short time. Whoever asks slowly, or does not take the answer, keeps nobody
//! out: when all places are taken, the newest asker gets the oldest one's.

use std::{collections::VecDeque, convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{ALLOW, CONTENT_TYPE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use metrics_exporter_prometheus::PrometheusHandle;
use pvc_process::JoinSet;
use tokio::{
    net::{TcpListener, TcpStream},
    task::AbortHandle,
    time::{MissedTickBehavior, interval, sleep, timeout},
};
use tracing::{debug, info, warn};

use super::{Sources, gauges};

/// The version of the text format that is spoken.
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// So many are answered at once.
const AT_ONCE: usize = 8;

/// How long an asker may take to say what it wants …
const ASKED_WITHIN: Duration = Duration::from_secs(2);
/// … and until it has the answer. A connection is for one question, so none is idle.
const LIFE: Duration = Duration::from_secs(5);

/// How long an answer waits for the state tree.
const FRESH_WITHIN: Duration = Duration::from_secs(1);

/// The pause before an address that is in use is tried again.
const TRY_AGAIN: Duration = Duration::from_secs(2);

/// How often samples are put into their buckets if nobody asks.
const UPKEEP: Duration = Duration::from_mins(1);

pub(super) async fn serve(address: SocketAddr, handle: &PrometheusHandle, sources: &Arc<Sources>) {
    let listener = listen(address).await;
    info!("figures for Prometheus are told on http://{address}/metrics");
    let mut askers = Askers::default();
    let mut upkeep = interval(UPKEEP);
    upkeep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let connection = tokio::select! {
            biased;
            _ = upkeep.tick() => {
                handle.run_upkeep();
                continue;
            }
            connection = listener.accept() => connection,
        };
        let stream = match connection {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of descriptors, for example: it passes or it does not, but not at once.
                debug!(error = &error as &dyn std::error::Error, "cannot accept who asks for figures");
                sleep(Duration::from_secs(1)).await;
                continue;
            }
        };
        let (handle, sources) = (handle.clone(), Arc::clone(sources));
        askers.admit(async move { answer(stream, &handle, &sources).await });
    }
}

/// Who is being answered; none is any longer when this is dropped.
#[derive(Default)]
struct Askers {
    tasks: JoinSet<()>,
    /// The oldest first.
    order: VecDeque<AbortHandle>,
}

impl Askers {
    fn admit(&mut self, answering: impl Future<Output = ()> + Send + 'static) {
        while self.tasks.try_join_next().is_some() {}
        self.order.retain(|asker| !asker.is_finished());
        if self.order.len() >= AT_ONCE
            && let Some(oldest) = self.order.pop_front()
        {
            debug!("who asked for figures first, and has no answer yet, makes room for others");
            oldest.abort();
        }
        self.order.push_back(self.tasks.spawn(answering));
    }
}

async fn listen(address: SocketAddr) -> TcpListener {
    let mut said = false;
    loop {
        match TcpListener::bind(address).await {
            Ok(listener) => return listener,
            Err(error) => {
                if !said {
                    warn!(
                        error = &error as &dyn std::error::Error,
                        "cannot listen on {address} (system.configuration.metrics.listen): no figures for Prometheus until that is possible"
                    );
                    said = true;
                }
                sleep(TRY_AGAIN).await;
            }
        }
    }
}

async fn answer(stream: TcpStream, handle: &PrometheusHandle, sources: &Sources) {
    let service = service_fn(async |request| {
        // What this node's own keepalive said may not have been read yet; while the store is away, what was known last is shown.
        let _ = sources.mirror.figures(FRESH_WITHIN).await;
        Ok::<_, Infallible>(respond(&request, handle, sources))
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(ASKED_WITHIN)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    match timeout(LIFE, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!(error = &error as &dyn std::error::Error, "who asked for figures went away"),
        Err(_) => debug!("who asked for figures does not take them"),
    }
}

fn respond(
    request: &Request<Incoming>,
    handle: &PrometheusHandle,
    sources: &Sources,
) -> Response<Full<Bytes>> {
    let plain = |status, text: String| {
        let mut response = Response::new(Full::new(Bytes::from(text)));
        *response.status_mut() = status;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(TEXT));
        response
    };
    if request.uri().path() != "/metrics" {
        return plain(StatusCode::NOT_FOUND, "figures are at /metrics\n".to_owned());
    }
    if ![Method::GET, Method::HEAD].contains(request.method()) {
        let mut refused = plain(StatusCode::METHOD_NOT_ALLOWED, "only GET\n".to_owned());
        refused.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return refused;
    }
    gauges::look_up(sources);
    plain(StatusCode::OK, handle.render())
}
