//! `pvc vm info` and `pvc vm dump`: one VM, its keys and its definition.

use pvc_core::model::{DomainDetails, NodeName, VmState};
use pvc_operate::vm::VmInfo;

use super::list::{asked, desired_node};
use crate::{
    door::Door,
    failure::Failure,
    print::{
        Out,
        table::{Cell, Look, pairs},
    },
};

pub(super) async fn dump(door: &Door, out: &Out, reference: &str) -> Result<(), Failure> {
    let (mut dump, _) = door.dump(reference).await?;
    if out.is_json() {
        return out.json(&dump);
    }
    if !dump.xml.ends_with('\n') {
        dump.xml.push('\n');
    }
    out.verbatim(&dump.xml)
}

pub(super) async fn info(door: &Door, out: &Out, reference: &str, long: bool) -> Result<(), Failure> {
    let info = door.vm(reference).await?;
    if out.is_json() {
        return out.json(&info);
    }
    let mut lines = state_lines(&info);
    lines.extend(info.details.iter().flat_map(|details| definition_lines(details, long)));
    lines.extend(info.problem.iter().map(|problem| ("definition", Cell::new(problem, Look::Bad))));
    out.write(&pairs(&lines, out.colour()))
}

fn state_lines(info: &VmInfo) -> Vec<(&'static str, Cell)> {
    let runners = &info.runners;
    let claim = info.claim.iter().map(NodeName::as_str).collect::<Vec<_>>().join(" ");
    let look = if runners.halted.is_some() { Look::Bad } else { Look::Plain };
    let mut lines = vec![
        ("name", Cell::from(&info.name)),
        ("uuid", info.uuid.to_string().into()),
        ("asked", asked(info.state, &info.unreadable)),
        ("node", desired_node(&info.node, &info.unreadable)),
        ("runs on", Cell::new(runners.words(), look)),
        ("claimed by", if claim.is_empty() { "-".into() } else { claim.into() }),
        ("migrated", Cell::from(&info.migrated)),
    ];
    lines.extend(info.may_run_on.iter().map(|node| {
        let words = format!("{node}, which said so last (`pvc vm explain {}`)", info.name);
        ("may run on", Cell::new(words, Look::Bad))
    }));
    if !info.failed_reason.is_empty() {
        let word = if info.state == VmState::Failed { "failed because" } else { "last trouble" };
        lines.push((word, Cell::new(&info.failed_reason, Look::Bad)));
    }
    lines
}

fn definition_lines(details: &DomainDetails, long: bool) -> Vec<(&'static str, Cell)> {
    let unknown = || Cell::state("?");
    let mut lines = vec![
        ("description", Cell::from(&details.description)),
        ("memory", details.memory_mib.map_or_else(unknown, |m| format!("{m} MiB").into())),
        ("vCPUs", details.vcpus.map_or_else(unknown, |v| v.to_string().into())),
        ("topology (S/C/T)", Cell::from(&details.vcpu_topology)),
    ];
    if !long {
        lines.extend(details.networks.iter().map(|card| ("network", Cell::from(&card.source))));
        lines.extend(details.disks.iter().map(|disk| ("disk", Cell::from(&disk.name))));
        return lines;
    }
    lines.extend([
        ("type", Cell::from(&details.os_type)),
        ("architecture", Cell::from(&details.arch)),
        ("machine", Cell::from(&details.machine)),
        ("emulator", Cell::from(&details.emulator)),
        ("features", details.features.join(" ").into()),
        ("console", Cell::from(&details.console)),
        ("console log", details.console_log.as_deref().unwrap_or("none").into()),
    ]);
    lines.extend(details.networks.iter().map(|card| {
        ("network", format!("{} {} {} {}", card.kind, card.source, card.model, card.mac).into())
    }));
    lines.extend(
        details
            .disks
            .iter()
            .map(|disk| ("disk", format!("{} {} {} {}", disk.dev, disk.bus, disk.kind, disk.name).into())),
    );
    lines
        .extend(details.controllers.iter().map(|c| ("controller", format!("{} {}", c.kind, c.model).into())));
    lines
}
