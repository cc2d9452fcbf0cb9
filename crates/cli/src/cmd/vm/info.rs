//! `pvc vm info` and `pvc vm dump`: one VM, its keys and its definition.

use pvc_core::model::{DomainDetails, Halt, NodeName, Vm, VmState};
use serde::Serialize;

use super::{
    explain::said_last,
    list::{asked, migrated, wished_node},
};
use crate::{
    connect::Connection,
    failure::Failure,
    print::{
        Out,
        table::{Cell, Look, pairs},
    },
    read::{Nodes, Runners},
};

pub(super) async fn dump(cluster: &Connection, out: &Out, reference: &str) -> Result<(), Failure> {
    let id = cluster.find_vm(reference).await?;
    let xml = cluster.xml(id).await?;
    let mut xml = xml.ok_or_else(|| Failure::Failed(format!("VM {reference} has no definition")))?;
    if out.is_json() {
        return out.json(&serde_json::json!({ "uuid": id, "xml": xml }));
    }
    if !xml.ends_with('\n') {
        xml.push('\n');
    }
    out.verbatim(&xml)
}

pub(super) async fn info(
    cluster: &Connection,
    out: &Out,
    reference: &str,
    long: bool,
) -> Result<(), Failure> {
    let id = cluster.find_vm(reference).await?;
    let vm = cluster.vm(id).await?;
    let view = cluster.view().await?;
    let running = Nodes::of(&view).runners().remove(&id).unwrap_or_default().unanswered(&view, id, &vm.claim);
    let xml = cluster.xml(id).await?.unwrap_or_default();
    let details = DomainDetails::parse(&xml).map_err(|e| format!("the definition is unreadable: {e}"));
    if out.is_json() {
        return out.json(&json(&vm, &running, &details, &xml));
    }
    let unheard = said_last(&view, id, &vm.claim);
    let mut lines = state_lines(&vm, &running, &unheard);
    match &details {
        Ok(details) => lines.extend(definition_lines(details, long)),
        Err(problem) => lines.push(("definition", Cell::new(problem, Look::Bad))),
    }
    out.write(&pairs(&lines, out.colour()))
}

/// The API's `vm` object; `running_on` and `claim` are ours.
#[derive(Serialize)]
struct InfoJson<'a> {
    name: &'a str,
    uuid: String,
    state: &'a str,
    node: &'a str,
    last_node: &'a str,
    migrated: String,
    failed_reason: &'a str,
    running_on: Vec<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    not_executing: Option<Halt>,
    claim: Vec<&'a str>,
    #[serde(flatten)]
    details: Option<&'a DomainDetails>,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<&'a str>,
    xml: &'a str,
}

fn json<'a>(
    vm: &'a Vm,
    running: &'a Runners,
    details: &'a Result<DomainDetails, String>,
    xml: &'a str,
) -> InfoJson<'a> {
    InfoJson {
        name: vm.name.as_str(),
        uuid: vm.id.to_string(),
        state: vm.state.value.as_str(),
        node: vm.node.value.as_str(),
        last_node: vm.last_node.value.as_ref().map(NodeName::as_str).unwrap_or_default(),
        migrated: migrated(vm),
        failed_reason: &vm.failed_reason.value,
        running_on: running.now.iter().map(NodeName::as_str).collect(),
        not_executing: running.halted.as_ref().map(|(_, halt)| *halt),
        claim: vm.claim.value.iter().map(NodeName::as_str).collect(),
        details: details.as_ref().ok(),
        problem: details.as_ref().err().map(String::as_str),
        xml,
    }
}

fn state_lines(vm: &Vm, running: &Runners, unheard: &[NodeName]) -> Vec<(&'static str, Cell)> {
    let or_nobody = |text: String| if text.is_empty() { "-".to_owned() } else { text };
    let mut lines = vec![
        ("name", Cell::from(vm.name.as_str())),
        ("uuid", vm.id.to_string().into()),
        ("asked", asked(vm)),
        ("node", wished_node(vm)),
        (
            "runs on",
            Cell::new(running.words(), if running.halted.is_some() { Look::Bad } else { Look::Plain }),
        ),
        ("claimed by", or_nobody(vm.claim.value.to_string()).into()),
        ("migrated", migrated(vm).into()),
    ];
    lines.extend(unheard.iter().map(|node| {
        (
            "may run on",
            Cell::new(format!("{node}, which said so last (`pvc vm explain {}`)", vm.name), Look::Bad),
        )
    }));
    if !vm.failed_reason.value.is_empty() {
        let word = if vm.state.value == VmState::Failed { "failed because" } else { "last trouble" };
        lines.push((word, Cell::new(&vm.failed_reason.value, Look::Bad)));
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
