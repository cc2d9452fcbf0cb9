//! Lists of VMs as answers. A long one is made piece by piece as it is taken: of ten thousand VMs with their definitions, which are 80 MB, a few are in
//! memory at once, and each who asks takes its own.

use std::sync::Arc;

use axum::{
    body::{Body, Bytes},
    response::Response,
};
use futures_util::{StreamExt as _, stream};
use pvc_operate::{
    Failure,
    vm::{AT_ONCE, Row, Said, Vms},
};
use tracing::warn;

use crate::{
    reply::{JsonList, json_body},
    who::Who,
};

/// How one is written.
pub(crate) type Write = fn(&mut JsonList, &Vms, &Row, &Said);

/// These VMs, with their definitions as far as `texts` are for somebody.
pub(crate) async fn answer(
    vms: Vms,
    rows: Vec<Row>,
    texts: Option<Who>,
    write: Write,
) -> Result<Response, Failure> {
    let list = List { vms, rows, texts, write };
    // What cannot be read now is said by a status.
    let first = list.piece(0).await?;
    if list.rows.len() <= AT_ONCE {
        return Ok(json_body(first));
    }
    let bytes = u64::try_from(first.len() * list.rows.len() / AT_ONCE).unwrap_or(u64::MAX);
    let (list, first) = (Arc::new(list), Bytes::from(first));
    let mut response = json_body(Body::empty());
    response.extensions_mut().insert(Pieces { list, first, bytes });
    Ok(response)
}

struct List {
    vms: Vms,
    rows: Vec<Row>,
    texts: Option<Who>,
    write: Write,
}

impl List {
    /// The piece that begins at that row, with the brackets of the list if it is the first or the last.
    async fn piece(&self, at: usize) -> Result<Vec<u8>, Failure> {
        let rest = self.rows.get(at..).unwrap_or_default();
        let (rows, is_last) = (&rest[..rest.len().min(AT_ONCE)], rest.len() <= AT_ONCE);
        let mut piece = JsonList::from_row(at);
        for (row, mut said) in rows.iter().zip(self.vms.definitions(rows, self.texts.is_some()).await?) {
            said.text = said.text.zip(self.texts.as_ref()).and_then(|(text, who)| shown(who, text));
            (self.write)(&mut piece, &self.vms, row, &said);
        }
        Ok(piece.end(is_last))
    }
}

/// A definition, which is a JSON text, as somebody may see it.
fn shown(who: &Who, text: Arc<str>) -> Option<Arc<str>> {
    if who.may_know_passwords() {
        return Some(text);
    }
    let xml: String = serde_json::from_str(&text).ok()?;
    Some(serde_json::to_string(&who.definition(&xml)?).ok()?.into())
}

/// Marks an answer whose body is not made yet.
#[derive(Clone)]
pub(crate) struct Pieces {
    list: Arc<List>,
    first: Bytes,
    /// What all of it has, about.
    pub(crate) bytes: u64,
}

impl Pieces {
    /// The body. It breaks off if the cluster cannot be read any more: who takes it sees that it has no end.
    pub(crate) fn body(self) -> Body {
        let Self { list, first, .. } = self;
        let first = stream::once(async move { Ok::<_, Failure>(first) });
        let rest = stream::unfold((list, AT_ONCE), async |(list, at)| {
            if at >= list.rows.len() {
                return None;
            }
            let piece = list.piece(at).await.map(Bytes::from);
            if let Err(error) = &piece {
                warn!("a list of {} VMs breaks off: {error}", list.rows.len());
            }
            // Nothing is read for what follows one that is missing: the body ends there.
            Some((piece, (list, at + AT_ONCE)))
        });
        Body::from_stream(first.chain(rest))
    }
}
