//! Gives a VM another definition. What it is called is said by its key and stays; what executes goes on as it was started, and the new definition counts
//! from the next start.

use super::{Accepted, Refusal, desired::being_deleted, fill_in};
use crate::model::{DomainError, DomainSpec, Vm, VmChange, VmKey, VmSet, VmState};

/// Replaces the definition `before` of a VM by `xml`. `seen`: the version of the definition that the new one was made from, if whoever asks knows it.
pub fn modify(vm: &Vm, before: &str, xml: &str, seen: Option<i32>) -> Result<Accepted, Refusal> {
    let what = || format!("VM {} was not changed", vm.name);
    if vm.state.value == VmState::Delete || vm.is_half_deleted() {
        return Err(being_deleted(what()));
    }
    if seen.is_some() && seen != vm.xml_version {
        let why = "somebody else has changed its definition since it was read";
        return Err(Refusal::refused(what(), why, "read it again, and change that"));
    }
    let spec = DomainSpec::parse_as(xml, vm.id, &vm.name).and_then(DomainSpec::with_its_passwords).map_err(
        |DomainError { what: why, line, todo }| {
            Refusal::refused(what(), format!("the definition is refused: {why} (line {line})"), todo)
        },
    )?;
    let (xml, filled_in) = fill_in(&spec);
    if xml == before {
        return Ok(Accepted::already(format!("VM {} is defined so already", vm.name)));
    }
    let executes = !vm.claim.value.is_empty();
    // Whoever executes it has the disks of the old definition open, too: they are known to the fence until it is defined anew while it is off.
    // The list goes stale when old clients change the definition alone, so both count.
    let listed =
        vm.rbd_images.clone().into_iter().chain(
            DomainSpec::parse_as(before, vm.id, &vm.name).map(|old| old.rbd_images).unwrap_or_default(),
        );
    let mut images = spec.rbd_images.clone();
    for image in listed.filter(|_| executes) {
        if !images.contains(&image) {
            images.push(image);
        }
    }
    let mut set = vec![VmSet::Xml(xml)];
    if images != vm.rbd_images {
        set.push(VmSet::RbdImages(images));
    }
    let change = VmChange::update(vm, &[VmKey::Xml, VmKey::State, VmKey::Claim], set);
    let note = "it executes: the new definition counts from its next start".to_owned();
    Ok(Accepted::write(change, executes.then_some(note).into_iter().chain(filled_in)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::testing;

    fn xml(name: &str, number: u8, disk: &str) -> String {
        let id = testing::id(number);
        format!(
            "<domain type='kvm'><name>{name}</name><uuid>{id}</uuid><memory unit='MiB'>64</memory><vcpu>1</vcpu><features/>\
             <devices><emulator>/usr/bin/qemu-system-x86_64</emulator><console type='pty'/><disk type='network'><source protocol='rbd' name='{disk}'/></disk></devices></domain>"
        )
    }

    fn set(accepted: Accepted) -> Vec<VmSet> {
        let Some(VmChange::Update { set, expect, .. }) = accepted.change else { return Vec::new() };
        assert_eq!(expect, [(VmKey::Xml, Some(0)), (VmKey::State, Some(7)), (VmKey::Claim, Some(7))]);
        set
    }

    #[test]
    fn a_definition_is_replaced_and_what_executes_keeps_its_disks_known() {
        let with = |claim| Vm { rbd_images: vec!["vms/a".into()], ..testing::vm(VmState::Start, claim) };
        let new = xml("web1", 1, "vms/b");
        let off = set(modify(&with(""), "", &new, None).unwrap());
        assert_eq!(off, [VmSet::Xml(new.clone()), VmSet::RbdImages(vec!["vms/b".into()])]);
        let runs = modify(&with("hv1"), "", &new, Some(0)).unwrap();
        assert_eq!(runs.notes.len(), 1);
        assert_eq!(set(runs)[1], VmSet::RbdImages(vec!["vms/b".into(), "vms/a".into()]));
        // An old client has changed the definition, and not the list.
        let stale = modify(&with("hv1"), &xml("web1", 1, "vms/c"), &new, None).unwrap();
        let all = ["vms/b", "vms/a", "vms/c"].map(str::to_owned);
        assert_eq!(set(stale)[1], VmSet::RbdImages(all.into()));
    }

    #[test]
    fn its_name_stays_and_what_is_so_already_is_not_written() {
        let vm = testing::vm(VmState::Stop, "");
        let [VmSet::Xml(written), _] = &set(modify(&vm, "", &xml("other", 1, "vms/a"), None).unwrap())[..]
        else {
            panic!("a definition and its disks")
        };
        assert_eq!(*written, xml("web1", 1, "vms/a"));
        assert_eq!(modify(&vm, written, &xml("other", 1, "vms/a"), None).unwrap().change, None);
    }

    #[test]
    fn another_vms_definition_a_newer_one_and_a_vm_that_goes_are_left_alone() {
        let vm = testing::vm(VmState::Stop, "");
        for (vm, xml, seen) in [
            (vm.clone(), xml("web1", 2, "vms/a"), None),
            (vm.clone(), "<domain/>".to_owned(), None),
            (vm.clone(), xml("web1", 1, "vms/a"), Some(3)),
            (testing::vm(VmState::Delete, ""), xml("web1", 1, "vms/a"), None),
        ] {
            let refusal = modify(&vm, "", &xml, seen).unwrap_err();
            assert_eq!(refusal.what, "VM web1 was not changed");
        }
    }
}
