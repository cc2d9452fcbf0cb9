//! `pvc vm define`.

use std::{
    io::{self, Read as _},
    path::Path,
};

use pvc_core::{
    command::vm::{Define, define as decide},
    model::DomainSpec,
    plan::placement::Selector,
};
use pvc_store::{CommitError, schema::vm};

use crate::{
    connect::{self, Connection},
    failure::Failure,
    print::Out,
};

/// More than any definition may have; a larger file is not read to its end.
const MOST: u64 = 2 * 1024 * 1024;

pub(super) async fn define(
    cluster: &Connection,
    out: &Out,
    file: &Path,
    target: Option<&str>,
    selector: Option<Selector>,
) -> Result<(), Failure> {
    let xml = text_of(file)
        .map_err(|cause| Failure::Machine { doing: format!("read {}", file.display()), cause })?;
    let spec =
        DomainSpec::parse(&xml).map_err(|cause| Failure::Definition { file: file.to_owned(), cause })?;
    let selector = connect::selector(selector);
    let request = Define { spec: &spec, target, selector };
    let (roster, view) = (cluster.roster().await?, cluster.view().await?);
    let rooms = cluster.rooms(&view).await?;
    let (node, accepted) = decide(request, &roster, view.all_nodes(), &rooms.rooms)?;
    if let Some(change) = &accepted.change {
        match vm::apply(&*cluster.store, change).await {
            // Somebody defined it between our look and our write: say so in the words of the refusal.
            Err(CommitError::Conflict { .. }) => {
                let roster = cluster.roster().await?;
                decide(request, &roster, view.all_nodes(), &rooms.rooms)?;
                return Err(Failure::Failed(format!(
                    "VM {} was not defined: the state tree changed; try again",
                    spec.name
                )));
            }
            done => drop(done?),
        }
    }
    out.message(&format!("VM {} ({}) is defined on {node}", spec.name, spec.id), &accepted.notes)
}

fn text_of(file: &Path) -> io::Result<String> {
    let mut bytes = Vec::new();
    if file == Path::new("-") {
        io::stdin().lock().take(MOST).read_to_end(&mut bytes)?;
    } else {
        std::fs::File::open(file)?.take(MOST).read_to_end(&mut bytes)?;
    }
    String::from_utf8(bytes).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e.utf8_error()))
}
