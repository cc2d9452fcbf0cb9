//! libvirt: a real libvirtd with real QEMU. (Its built-in test driver cannot start a domain paused, which every start does.)

use std::sync::Arc;

use pvc_host::{
    hypervisor::{
        Event, Hypervisor, HypervisorError,
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
        what_is_prepared_executes_nothing_until_it_is_resumed,
        what_executes_is_noted_and_what_does_not_is_left_as_it_is,
        what_is_not_kept_has_nothing_to_be_removed,
    );
}

/// It says so without starting anything.
#[tokio::test(flavor = "multi_thread")]
async fn what_this_machine_or_its_qemu_lacks_is_told_before_a_start() {
    let libvirtd = LibvirtdProcess::start().unwrap();
    let hypervisor = connect(&libvirtd.uri(), Deadlines::default()).await;
    let id = "22222222-0000-4000-8000-0000000000aa".parse().unwrap();
    let good = pvc_core::model::DomainSpec::parse(&tiny_guest(id, "could")).unwrap();
    hypervisor.could_start(&good).await.unwrap();
    let with = |what: &str, instead: &str| {
        let xml = good.xml.replacen(what, instead, 1);
        assert_ne!(xml, good.xml, "{what}");
        pvc_core::model::DomainSpec::parse(&xml).unwrap()
    };
    let bridge = "<interface type='bridge'><source bridge='pvc-none0'/></interface></devices>";
    for (spec, says) in [
        (with("</devices>", bridge), "there is no network device pvc-none0"),
        (
            with(
                "</devices>",
                "<disk type='file'><source file='/none/a'/><target dev='vda'/></disk></devices>",
            ),
            "there is no /none/a",
        ),
        (with("machine='pc'", "machine='pc-i440fx-99.9'"), "pc-i440fx-99.9"),
    ] {
        let told = hypervisor.could_start(&spec).await;
        let refused = matches!(&told, Err(HypervisorError::Refused(why)) if why.contains(says));
        assert!(refused, "{says}: {told:?}");
    }
    assert!(hypervisor.active().await.unwrap().is_empty());
}
