//! `pvc status`: the cluster on one screen. What it says is `pvc_core::command::status`'s business.

use crate::{
    door::Door,
    failure::Failure,
    print::{
        Out,
        table::{Cell, Look, pairs, printable, words},
    },
};
use pvc_core::command::status::{Count, Finding, Level, Status, Totals};

pub(super) async fn status(door: &Door, out: &Out) -> Result<(), Failure> {
    let status = door.status().await?;
    if out.is_json() { out.json(&status) } else { out.write(&people(&status, out.colour())) }
}

fn people(status: &Status, colour: bool) -> String {
    let wrong = status.findings.iter().filter(|f| f.level == Level::Wrong).count();
    let headline = match wrong {
        0 if status.findings.is_empty() => Cell::new("All is well.", Look::Good),
        0 => Cell::new("Nothing is wrong. To know:", Look::Good),
        1 => Cell::new("One thing is wrong:", Look::Bad),
        n => Cell::new(format!("{n} things are wrong:"), Look::Bad),
    };
    let mut text = words(&headline, colour) + "\n";
    for finding in &status.findings {
        text += &line(finding, colour);
    }
    text.push('\n');
    let totals = &status.totals;
    let maintenance =
        if status.maintenance { Cell::new("on", Look::Busy) } else { Cell::new("off", Look::Plain) };
    let primary =
        status.primary.as_ref().map_or_else(|| Cell::new("nobody", Look::Bad), |n| n.as_str().into());
    let memory = format!("{} of {} MiB allocated", totals.memory_allocated_mib, totals.memory_mib);
    text + &pairs(
        &[
            ("nodes", count(totals.nodes, &format!("work, {} take VMs", totals.nodes_ready))),
            ("coordinators", count(totals.coordinators, "work")),
            ("primary", primary),
            ("maintenance", maintenance),
            ("VMs", vms(totals)),
            ("memory", memory.into()),
            ("networks", totals.networks.to_string().into()),
        ],
        colour,
    )
}

/// The sums, as a line.
pub(super) fn plain_totals(totals: &Totals) -> String {
    let Totals { nodes, nodes_ready, memory_allocated_mib, memory_mib, .. } = totals;
    let Count { well, of } = nodes;
    format!(
        "{well} of {of} nodes work, {nodes_ready} take VMs; {memory_allocated_mib} of {memory_mib} MiB allocated"
    )
}

fn vms(totals: &Totals) -> Cell {
    let failed = match totals.vms_failed {
        0 => String::new(),
        1 => ", 1 has failed".to_owned(),
        n => format!(", {n} have failed"),
    };
    count(totals.vms, &format!("run as asked, {} are off as asked{failed}", totals.vms_off))
}

fn count(Count { well, of }: Count, words: &str) -> Cell {
    Cell::new(format!("{well} of {of} {words}"), if well < of { Look::Bad } else { Look::Plain })
}

/// One thing, as a line.
pub(super) fn line(finding: &Finding, colour: bool) -> String {
    let (mark, look) = match finding.level {
        Level::Wrong => ("!", Look::Bad),
        Level::Notice => ("-", Look::Busy),
    };
    let todo = finding.todo.as_ref().map(|todo| format!("  ({todo})")).unwrap_or_default();
    format!("  {} {}{}\n", words(&Cell::new(mark, look), colour), printable(&finding.what), printable(&todo))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_is_well_where_there_is_nothing_to_say() {
        let headline = |levels: &[Level]| {
            let found = |&level| Finding { level, what: "so".to_owned(), todo: None };
            let findings = levels.iter().map(found).collect();
            let status = Status { primary: None, maintenance: false, findings, totals: Totals::default() };
            people(&status, false).lines().next().map(str::to_owned)
        };
        let is = |text: &str| Some(text.to_owned());
        assert_eq!(headline(&[]), is("All is well."));
        assert_eq!(headline(&[Level::Notice]), is("Nothing is wrong. To know:"));
        assert_eq!(headline(&[Level::Wrong, Level::Notice]), is("One thing is wrong:"));
        assert_eq!(headline(&[Level::Wrong, Level::Wrong]), is("2 things are wrong:"));
    }
}
