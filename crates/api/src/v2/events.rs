//! What changes in the cluster, as server-sent events. An event says which object to look at again and nothing of it, as the mirror's own do, and `news` what has become of it, for people: a listener that
//! is slow hears later, of all that has changed since, and holds nobody up; what waits for it is one view of the cluster and not a queue.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    body::Body,
    extract::State,
    http::{HeaderValue, StatusCode, header},
    response::Response,
};
use futures_util::stream;
use pvc_core::model::ClusterView;
use tokio::{sync::watch, time::timeout};

use super::{Outcome, Problem};
use crate::api::Shared;

/// How often a listener hears something, so that it and whatever is between knows that the connection lives.
const ALIVE: Duration = Duration::from_secs(15);

/// Says `ready` when all that changes from then on will be told, then which object has changed or is gone.
pub(crate) async fn events(State(api): State<Shared>) -> Outcome {
    let mirror =
        api.mirror().ok_or_else(|| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "nothing is watched"))?;
    mirror.ready().await;
    let mut views = mirror.views();
    let seen = views.borrow_and_update().clone();
    let listener = Listener { api: Arc::clone(&api), views, seen };
    let ready = stream::once(async { Ok::<_, Infallible>("event: ready\ndata: {}\n\n".to_owned()) });
    let rest = stream::unfold(listener, async |mut listener| Some((Ok(listener.next().await?), listener)));
    let mut response = Response::new(Body::from_stream(stream::StreamExt::chain(ready, rest)));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

struct Listener {
    api: Shared,
    views: watch::Receiver<Arc<ClusterView>>,
    seen: Arc<ClusterView>,
}

impl Listener {
    /// The next that there is to say; `None`: the cluster is not watched any more.
    async fn next(&mut self) -> Option<String> {
        loop {
            match timeout(ALIVE, self.views.changed()).await {
                Err(_) => return Some(": alive\n\n".to_owned()),
                Ok(changed) => changed.ok()?,
            }
            let now = self.views.borrow_and_update().clone();
            let told = self.api.differences.between(&self.seen, &now);
            self.seen = now;
            if !told.is_empty() {
                return Some(told.as_ref().to_owned());
            }
        }
    }
}
