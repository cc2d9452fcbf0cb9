//! The locks that a VM has left behind.

use super::{
    Facts,
    Standing::{self, Done, Impossible, ShutOut},
    users,
};
use crate::{
    model::{
        VmId, VmName,
        ceph::{ClientAddress, ImageName},
    },
    plan::storage_fence::Request,
};

/// What is known of the VM.
#[derive(Debug, Default)]
pub struct Locks {
    /// Its name; `None`: there is no such VM.
    pub vm: Option<VmName>,
    /// Who may be executing it, by its claim or by what the nodes said last.
    pub may_execute_on: Option<String>,
    /// Who wrote for it before, and is not shut out yet.
    pub left: Request,
    /// Who is heard and has one of its images open.
    pub open: Vec<(ImageName, ClientAddress)>,
}

/// As before a start, and never of a VM that may be executing. `used_by` are the others that may be, and have one of its images.
pub(super) fn flush(id: VmId, facts: &Facts) -> Standing {
    let Locks { vm, may_execute_on, left, open } = &facts.locks;
    let Some(vm) = vm else { return Impossible(format!("there is no VM {id}")) };
    if let Some(node) = may_execute_on {
        return Impossible(format!(
            "VM {vm} may be executing on {node}: stop it first, or have that node fenced"
        ));
    }
    if let Some((image, client)) = open.iter().find(|(_, client)| left.recorded.contains(client)) {
        return Impossible(format!(
            "VM {vm} may be executing: client {client}, which is recorded as its own, has {image} open and answers Ceph"
        ));
    }
    if let Some(others) = users(facts) {
        return Impossible(format!("the images of VM {vm} may be in use by {others}"));
    }
    if !left.is_empty() {
        return ShutOut(left.clone());
    }
    match open.first() {
        Some((image, client)) => Impossible(format!(
            "client {client} has {image} open and answers Ceph: it is no VM's that pvcd knows; end it there"
        )),
        None => Done(Vec::new()),
    }
}
