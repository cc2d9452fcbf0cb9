//! The wire: who may be connected, for how long a request may be sent, answered and taken. Whoever is slow keeps nobody out: when all places
//! are taken, the connection that has waited longest without a request gives its place to the newest.

mod places;

use std::{convert::Infallible, io, net::SocketAddr, sync::Arc, time::Duration};

use axum::{Router, http::StatusCode, response::Response};
use hyper::{
    Request,
    body::Incoming,
    server::conn::http1,
    service::{Service as _, service_fn},
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;
use tracing::{debug, warn};

use self::places::Places;
use crate::{api::Api, connection::Connection, limits::Limits, reply::message, routes::router, tls::Tls, v2};

/// The most that hyper keeps of a request's head, bytes.
const HEAD_BYTES: usize = 32 * 1024;
const HEADERS: usize = 64;

const LATE: &str = "the cluster did not answer in time; what was asked may still happen";

/// A bound address, and how to speak there.
pub struct Server {
    listener: TcpListener,
    tls: Option<Tls>,
}

impl Server {
    /// Binds an address.
    pub async fn bind(address: SocketAddr, tls: Option<Tls>) -> io::Result<Self> {
        Ok(Self { listener: TcpListener::bind(address).await?, tls })
    }

    /// The address.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until it is dropped.
    pub async fn serve(self, api: Arc<Api>) -> Infallible {
        let fresh = async {
            match &self.tls {
                Some(tls) => tls.keep_fresh().await,
                None => std::future::pending().await,
            }
        };
        // The first who asks for a list need not wait for all to be read.
        api.seen();
        tokio::select! {
            never = self.accept(Arc::clone(&api)) => match never {},
            never = api.audit.write(&*api.cluster.store) => match never {},
            never = api.gate.keep(&*api.cluster.store) => match never {},
            never = fresh => match never {},
            never = api.metrics.keep_small() => match never {},
        }
    }

    async fn accept(&self, api: Arc<Api>) -> Infallible {
        let limits = api.limits;
        let router = router(api);
        let mut places = Places::new(limits.connections);
        loop {
            match self.listener.accept().await {
                Ok((stream, from)) => {
                    let router = TowerToHyperService::new(router.clone());
                    let tls = self.tls.as_ref().map(|tls| TlsAcceptor::from(tls.config()));
                    places.admit(|connection| serve(stream, from, tls, router, limits, connection));
                }
                Err(error) => {
                    // Out of descriptors, for example: it passes or it does not, but not at once.
                    warn!("cannot accept a connection: {error}");
                    sleep(Duration::from_millis(200)).await;
                }
            }
        }
    }
}

async fn serve(
    stream: TcpStream,
    from: SocketAddr,
    tls: Option<TlsAcceptor>,
    router: TowerToHyperService<Router>,
    limits: Limits,
    connection: Connection,
) {
    let socket = SockRef::from(&stream);
    let set =
        socket.set_tcp_user_timeout(Some(limits.taken_within)).and_then(|()| socket.set_tcp_nodelay(true));
    if let Err(error) = set {
        debug!("{from} goes away: {error}");
        return;
    }
    let Some(tls) = tls else { return speak(stream, from, router, limits, connection).await };
    match timeout(limits.head_within, tls.accept(stream)).await {
        Ok(Ok(stream)) => speak(stream, from, router, limits, connection).await,
        Ok(Err(error)) => debug!("{from} goes away: it does not speak TLS as we do: {error}"),
        Err(_) => debug!("{from} is cut off: it took too long to agree on TLS"),
    }
}

async fn speak(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    from: SocketAddr,
    router: TowerToHyperService<Router>,
    limits: Limits,
    connection: Connection,
) {
    let service = service_fn(async |mut request: Request<Incoming>| {
        request.extensions_mut().insert(from);
        request.extensions_mut().insert(connection.clone());
        Ok::<_, Infallible>(answer(&router, request, limits).await)
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head_within)
        .max_buf_size(HEAD_BYTES)
        .max_headers(HEADERS)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    tokio::select! {
        ended = served => if let Err(error) = ended { debug!("{from} goes away: {error}") },
        () = connection.overdue() => debug!("{from} is cut off: it does not take what was answered"),
    }
}

async fn answer(
    router: &TowerToHyperService<Router>,
    request: Request<Incoming>,
    limits: Limits,
) -> Response {
    let is_v2 = request.uri().path().starts_with("/api/v2");
    match timeout(limits.answer_within, router.call(request)).await {
        Ok(Ok(response)) => response,
        Ok(Err(never)) => match never {},
        Err(_) if is_v2 => v2::late(LATE),
        Err(_) => message(StatusCode::GATEWAY_TIMEOUT, LATE),
    }
}
