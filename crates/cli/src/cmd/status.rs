//! `pvc status`: the cluster on one screen. What it says is `pvc_core::command::status`'s business.

use pvc_core::{
    command::status::{Count, Facts, Finding, Level, Status, Totals, survey},
    model::DomainSpec,
};
use pvc_store::schema::{bmc, primary};

use crate::{
    connect::Connection,
    failure::Failure,
    print::{
        Out,
        table::{Cell, Look, pairs, printable, words},
    },
    read::Nodes,
};

pub(super) async fn status(cluster: &Connection, out: &Out) -> Result<(), Failure> {
    let view = cluster.view().await?;
    let flushes = cluster.flushes(&view).await?;
    let silent_s = Nodes::of(&view).silent();
    let said = primary::read_explanation(&*cluster.store).await?.and_then(Result::ok);
    let definitions = cluster.definitions(view.good_vms().map(|vm| (vm.id, &vm.name))).await?;
    let reserve = cluster.ground(&view, &definitions).await?.reserve(&view);
    let lacks = |spec: &DomainSpec| spec.completed().is_ok_and(|completed| !completed.filled_in.is_empty());
    let bare =
        definitions.iter().filter(|(_, spec)| spec.as_ref().is_ok_and(lacks)).map(|(id, _)| *id).collect();
    let damaged = definitions.into_iter().filter_map(|(id, spec)| Some((id, spec.err()?))).collect();
    let bmcs = bmc::read_all(&*cluster.store, view.nodes.keys()).await?;
    let facts = Facts {
        view: &view,
        flushes: &flushes,
        silent_s: &silent_s,
        damaged: &damaged,
        bare: &bare,
        bmcs: &bmcs,
        reserve: &reserve,
        primary_says: said.as_ref(),
    };
    let status = survey(facts);
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

fn line(finding: &Finding, colour: bool) -> String {
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
