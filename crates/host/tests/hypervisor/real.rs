//! libvirt: a real libvirtd with real QEMU. (Its built-in test driver cannot start a domain paused, which every start does.)

use std::sync::Arc;

use pvc_host::{
    hypervisor::{
        Event, Hypervisor,
        libvirt::{Deadlines, LibvirtHypervisor},
    },
    testing::{LibvirtdProcess, tiny_guest},
};

use crate::contract::{Bench, contract, event};

pub(crate) async fn connect(uri: &str, deadlines: Deadlines) -> Arc<LibvirtHypervisor> {
    // As `LibvirtdProcess` lays them out.
    let folder = uri.split_once("socket=").and_then(|(_, socket)| socket.strip_suffix("/run/libvirt-sock"));
    let logs = std::path::Path::new(folder.unwrap_or("/nowhere")).join("log/qemu");
    let hypervisor = LibvirtHypervisor::start_with(uri, "libvirt.so.0", &logs, deadlines).unwrap();
    event(&mut hypervisor.events(), |event| *event == Event::Connected).await;
    hypervisor
}

mod libvirtd {
    use super::*;

    async fn bench() -> Bench {
        let libvirtd = LibvirtdProcess::start().unwrap();
        let hypervisor = connect(&libvirtd.uri(), Deadlines::default()).await;
        Bench::new(hypervisor, tiny_guest, Some(libvirtd))
    }

    contract!(
        bench,
        a_vm_is_seen_from_its_start_to_its_power_off,
        already_so_is_success,
        a_name_that_another_vm_has_is_refused,
        a_definition_that_is_rubbish_is_refused_with_a_reason,
        every_subscriber_is_told_of_a_start_and_an_end,
        a_guest_that_ignores_its_power_button_goes_on,
        many_vms_start_and_end_at_once,
        a_suspended_guest_executes_nothing_until_it_is_resumed,
        what_is_not_kept_has_nothing_to_be_removed,
    );
}
