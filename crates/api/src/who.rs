//! Somebody who may, by a token.

use std::{borrow::Cow, collections::BTreeSet, sync::Arc};

use pvc_config::Role;
use pvc_core::model::{VmName, without_passwords};

use crate::session::Hash;

/// What is said instead of what might have been meant, which would name others, to who is limited to VMs.
pub(crate) const NO_NAMES: &str = "there is no VM, or nothing else, of a name that was sent; to this token, which is good for some VMs only, no other names are told";

/// Somebody who may.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Who {
    /// The description of the token.
    pub(crate) name: String,
    pub(crate) role: Role,
    /// What the token is known by; of anybody, nothing.
    pub(crate) token: Hash,
    /// The only VMs that it is good for; `None`: it is limited to none.
    pub(crate) vms: Option<Arc<BTreeSet<VmName>>>,
}

impl Who {
    /// Whether it may know the passwords of guests' displays: who may open these.
    pub(crate) fn may_know_passwords(&self) -> bool {
        self.role >= Role::Operate
    }

    /// A definition as it may be seen; `None`: that it cannot be seen, since it cannot be read, and may have a password in it.
    pub(crate) fn definition<'a>(&self, xml: &'a str) -> Option<Cow<'a, str>> {
        if self.may_know_passwords() { Some(xml.into()) } else { without_passwords(xml) }
    }

    /// Whether the token is good for a VM of that name.
    pub(crate) fn may_see(&self, vm: &str) -> bool {
        self.vms.as_ref().is_none_or(|vms| vms.iter().any(|name| name.as_str() == vm))
    }
}

/// A token, and what is known of who has it.
pub(crate) struct Known {
    pub(crate) who: Who,
    /// From when on it is good for nothing.
    pub(crate) expires_unix_s: Option<u64>,
}
