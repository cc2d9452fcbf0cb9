//! Why a guest that has a process executes nothing, where no daemon of the cluster has stopped it.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use super::{NameError, NodeName, VmName};

/// As libvirt tells it, and as the node's key `guests` says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Halt {
    /// Somebody has paused it, or libvirt gives no reason.
    Paused,
    /// A disk of it could not be read or written, and its definition says that it stops then.
    IoError,
    /// Its watchdog device has stopped it.
    Watchdog,
    /// It has crashed or panicked, and its definition says that its process stays.
    Crashed,
    /// It has put itself to sleep (suspended to memory).
    Asleep,
    /// libvirt saves, dumps or starts it: that ends by itself.
    Busy,
}

impl Halt {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Paused, Self::IoError, Self::Watchdog, Self::Crashed, Self::Asleep, Self::Busy];

    /// The word in the state tree and in figures.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Paused => "paused",
            Self::IoError => "io-error",
            Self::Watchdog => "watchdog",
            Self::Crashed => "crashed",
            Self::Asleep => "asleep",
            Self::Busy => "busy",
        }
    }

    /// What is the case: `it is paused`.
    pub fn what(self) -> &'static str {
        match self {
            Self::Paused => "it is paused",
            Self::IoError => "an I/O error of a disk has stopped it",
            Self::Watchdog => "its watchdog device has stopped it",
            Self::Crashed => "its guest has crashed",
            Self::Asleep => "its guest has put itself to sleep",
            Self::Busy => "libvirt saves, dumps or starts it",
        }
    }

    /// What is the case with a VM, or several, in a sentence that begins with their names.
    pub fn is_stopped(self, many: bool) -> &'static str {
        match (self, many) {
            (Self::Paused, false) => "is paused",
            (Self::Paused, true) => "are paused",
            (Self::IoError, false) => "is stopped by an I/O error",
            (Self::IoError, true) => "are stopped by I/O errors",
            (Self::Watchdog, false) => "is stopped by its watchdog device",
            (Self::Watchdog, true) => "are stopped by their watchdog devices",
            (Self::Crashed, false) => "has crashed",
            (Self::Crashed, true) => "have crashed",
            (Self::Asleep, false) => "sleeps",
            (Self::Asleep, true) => "sleep",
            (Self::Busy, false) => "is being saved, dumped or started by libvirt",
            (Self::Busy, true) => "are being saved, dumped or started by libvirt",
        }
    }

    /// What somebody can do about it on its node, if anything.
    pub fn way_out(self, vm: &VmName, node: &NodeName) -> String {
        match self {
            Self::Paused | Self::Watchdog => format!("`virsh resume {vm}` on {node} lets it go on"),
            Self::IoError => {
                format!(
                    "once its storage works again, `virsh resume {vm}` on {node} lets it go on and repeats what failed"
                )
            }
            Self::Asleep => format!("`virsh dompmwakeup {vm}` on {node} wakes it"),
            Self::Crashed => "it is powered off and started anew".to_owned(),
            Self::Busy => "that ends by itself".to_owned(),
        }
    }

    /// Whether its power button reaches nobody.
    pub fn is_deaf(self) -> bool {
        self != Self::Busy
    }
}

impl fmt::Display for Halt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Halt {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::ALL.into_iter().find(|halt| halt.as_str() == text).ok_or_else(|| NameError {
            what: "reason why a guest does not execute",
            found: text.to_owned(),
            allowed: "paused, io-error, watchdog, crashed, asleep or busy",
        })
    }
}
