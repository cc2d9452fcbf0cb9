//! Programs that are not the same everywhere: what cannot be migrated for it, and a daemon that was not started anew after an upgrade.

use pvc_core::{command::checkup::Checkup, model::NodeName};
use pvc_host::hypervisor::Versions;
use pvc_store::{Store, schema::owner};

/// This program's. The daemon that runs here may be an earlier one.
const OWN: &str = env!("CARGO_PKG_VERSION");

/// What may stand in the way of migrations between this node and that one. QEMU's streams are read by a QEMU of the same release or a later one; an
/// earlier one reads those of machine types and devices that it has, too.
pub(super) fn between(name: &NodeName, here: Versions, there: Versions, found: &mut Checkup) {
    // libvirt's word for "not known".
    if [here, there].iter().any(|its| its.qemu.0 == 0 || its.libvirt.0 == 0) {
        return;
    }
    let (ours, theirs) = (here.qemu, there.qemu);
    let upgrade = |node: &str| format!("{node}: apt install --only-upgrade qemu-system-x86");
    if ours.release() > theirs.release() {
        found.notice(
            format!(
                "{name} has QEMU {theirs}, this node {ours}: {name} may refuse VMs that were started here"
            ),
            upgrade(&format!("on {name}")),
        );
    } else if ours.release() < theirs.release() {
        found.notice(
            format!(
                "{name} has QEMU {theirs}, this node {ours}: this node may refuse VMs that were started there"
            ),
            upgrade("here"),
        );
    } else if here.libvirt.release() == there.libvirt.release() {
        found.fine(format!("libvirt and QEMU of {name} are of the same release as here"));
        return;
    }
    let (ours, theirs) = (here.libvirt, there.libvirt);
    if ours.release() != theirs.release() {
        found.notice(
            format!("{name} has libvirt {theirs}, this node {ours}: the older one may refuse what the newer one sends it"),
            "on the node with the older one: apt install --only-upgrade libvirt-daemon-system",
        );
    }
}

/// Whether the daemon that has that node's name is of this program's version. One of the 0.5 generation has no such record, and is not meant.
pub(super) async fn daemon(store: &dyn Store, name: &NodeName, is_here: bool, found: &mut Checkup) {
    // A tree that does not answer has been told of.
    let Ok(Some(held)) = owner::read(store, name).await else { return };
    let Some(by) = held.by else { return };
    let theirs = by.version.as_deref().unwrap_or("an older one, which does not say its version");
    if by.version.as_deref() == Some(OWN) {
        found.fine(format!("pvcd {OWN} on {name}"));
    } else if is_here {
        found.notice(
            format!("pvcd {OWN} is installed, and the one that runs is {theirs}"),
            "systemctl restart pvcd; guests run on meanwhile",
        );
    } else {
        found.notice(
            format!("pvcd of {name} is {theirs}, this node's is {OWN}"),
            "on the node with the older one: apt install --only-upgrade pvcd",
        );
    }
}
