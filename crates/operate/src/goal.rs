//! What is waited for, as one names it who is elsewhere: over the API each look is a request of its own, and it may be answered by another coordinator than the
//! one that took the command. So what is waited for says all that a look needs to know.

use std::{fmt, str::FromStr};

use pvc_core::model::{NameError, NodeName, VmId, task::TaskId};

/// What is waited for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Goal {
    /// A VM is as asked.
    Vm(VmId, Desired),
    /// A VM is on another node.
    Moved {
        /// Which.
        vm: VmId,
        /// Where it came from.
        from: NodeName,
        /// Where it is to be.
        to: NodeName,
    },
    /// A node is as asked.
    Node(NodeName, NodeGoal),
    /// A task is over.
    Task(TaskId, TaskGoal),
}

/// What is asked of a VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Desired {
    /// It runs.
    Start,
    /// It is off at once.
    Stop,
    /// Its guest is asked to shut down.
    Shutdown,
    /// The same, and it is started again.
    Restart,
}

/// What is waited for of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeGoal {
    /// It has sent its VMs away.
    Flush,
    /// It takes VMs.
    Ready,
    /// Its fence is over.
    Fence,
    /// It is primary.
    Primary,
    /// Another coordinator is.
    Secondary,
}

/// What is waited for of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TaskGoal {
    /// It is done.
    Done,
    /// It has ended before that.
    Cancel,
}

impl Desired {
    /// Each.
    pub const ALL: [Self; 4] = [Self::Start, Self::Stop, Self::Shutdown, Self::Restart];

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Shutdown => "shutdown",
            Self::Restart => "restart",
        }
    }
}

impl NodeGoal {
    /// Each.
    pub const ALL: [Self; 5] = [Self::Flush, Self::Ready, Self::Fence, Self::Primary, Self::Secondary];

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Flush => "flush",
            Self::Ready => "ready",
            Self::Fence => "fence",
            Self::Primary => "primary",
            Self::Secondary => "secondary",
        }
    }
}

impl TaskGoal {
    /// Each.
    pub const ALL: [Self; 2] = [Self::Done, Self::Cancel];

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Cancel => "cancel",
        }
    }
}

macro_rules! words {
    ($name:ident, $what:literal, $allowed:literal) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                let found = Self::ALL.into_iter().find(|goal| goal.as_str() == text);
                found.ok_or_else(|| NameError { what: $what, found: text.to_owned(), allowed: $allowed })
            }
        }
    };
}

words!(Desired, "desired state", "start, stop, shutdown or restart");
words!(NodeGoal, "outcome of a node", "flush, ready, fence, primary or secondary");
words!(TaskGoal, "outcome of a task", "done or cancel");
