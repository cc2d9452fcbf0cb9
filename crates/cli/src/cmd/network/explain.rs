//! `pvc network explain`: what nodes cannot do of a network, and what would do.

use pvc_operate::network::explain::{NetworkExplanation, Told};

use super::{kind, shown};
use crate::{
    cmd::explain::{self, Line},
    door::Door,
    failure::Failure,
    print::{
        Out,
        table::{Cell, Look},
    },
};

pub(super) async fn run(network: &str, door: &Door, out: &Out) -> Result<(), Failure> {
    let facts = door.explain_network(network).await?;
    if out.is_json() { out.json(&facts) } else { out.write(&people(&facts, out.colour())) }
}

fn people(facts: &NetworkExplanation, colour: bool) -> String {
    let network = &facts.network;
    let mut lines: Vec<Line> = vec![
        ("vni", network.vni.to_string().into()),
        ("description", Cell::from(&network.description)),
        ("type", kind(network)),
    ];
    lines.extend(network.problems.iter().map(|problem| ("broken key", Cell::new(problem, Look::Bad))));
    for Told { trouble, nodes } in &facts.troubles {
        lines
            .push((trouble.network.map_or("all networks", |_| "wrong"), Cell::new(&trouble.what, Look::Bad)));
        lines.push(("  on", shown(nodes).into()));
        lines.extend(trouble.todo.iter().map(|todo| ("  to do", Cell::from(todo))));
    }
    if !facts.cut_short.is_empty() {
        let words = format!("{}: the first troubles of many are shown", shown(&facts.cut_short));
        lines.push(("cut short", Cell::new(words, Look::Busy)));
    }
    explain::screen(&lines, &facts.conclusion, colour)
}
