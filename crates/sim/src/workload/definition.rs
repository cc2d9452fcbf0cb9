//! Definitions of VMs, as operators write them: good ones, and what comes of an editor's slip.

use pvc_core::model::VmId;

use crate::{
    keys::card,
    options::{disks, vm_memory_mib},
    schedule::Definition,
};

/// The definition of a VM.
pub(super) fn xml(
    id: VmId,
    number: usize,
    (network, storage): (Option<usize>, bool),
    how: Definition,
) -> String {
    let mib = vm_memory_mib(number);
    let disk = |image: String| {
        format!("<disk type='network' device='disk'><source protocol='rbd' name='{image}'/></disk>")
    };
    let disks: String = disks(number, storage).into_iter().map(disk).collect();
    let card = network.map_or_else(String::new, |network| {
        let mac = card(number);
        format!("<interface type='bridge'><mac address='{mac}'/><source bridge='vmbr{network}'/></interface>")
    });
    let name = match how {
        Definition::Renamed => format!("renamed{number}"),
        _ => format!("vm{number}"),
    };
    let memory = match how {
        Definition::WithoutMemory => String::new(),
        _ => format!("<memory unit='MiB'>{mib}</memory>"),
    };
    let whole = format!(
        "<domain type='kvm'><name>{name}</name><uuid>{id}</uuid>{memory}<vcpu>2</vcpu><os><type>hvm</type></os>\
         <devices>{disks}{card}</devices></domain>"
    );
    match how {
        Definition::Truncated => whole[..whole.len() / 2].to_owned(),
        Definition::Empty => String::new(),
        Definition::Good | Definition::Renamed | Definition::WithoutMemory => whole,
    }
}
