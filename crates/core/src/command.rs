//! What an operator asks for: request + view → the write to make, or a refusal that says what to do instead. `pvc-operate` carries it out.
//! Never writes by itself, never looks at a clock.

pub mod checkup;
pub mod cluster;
pub mod find;
pub mod forecast;
pub mod network;
pub mod news;
pub mod node;
pub mod status;
pub mod task;
#[cfg(test)]
pub(crate) mod testing;
pub mod token;
pub mod vm;

use std::fmt;

pub use find::Roster;

use crate::model::VmChange;

/// What stands in the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusalKind {
    /// The thing named does not exist.
    NotFound,
    /// It would be wrong now, or always.
    Refused,
}

/// A command that was not carried out: nothing was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// What stands in the way.
    pub kind: RefusalKind,
    /// What was not done: `VM web1 was not defined`.
    pub what: String,
    /// Why not.
    pub why: String,
    /// What to do instead.
    pub todo: String,
}

impl Refusal {
    fn refused(what: impl Into<String>, why: impl Into<String>, todo: impl Into<String>) -> Self {
        Self { kind: RefusalKind::Refused, what: what.into(), why: why.into(), todo: todo.into() }
    }

    fn not_found(what: impl Into<String>, why: impl Into<String>, todo: impl Into<String>) -> Self {
        Self { kind: RefusalKind::NotFound, what: what.into(), why: why.into(), todo: todo.into() }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; {}", self.what, self.why, self.todo)
    }
}

impl std::error::Error for Refusal {}

/// A command that is all right; `C` is what it writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted<C = VmChange> {
    /// What to write; `None`: it is already so.
    pub change: Option<C>,
    /// What the operator should know besides: `node2 is dead: the VM starts when it is back`.
    pub notes: Vec<String>,
}

impl<C> Accepted<C> {
    fn write(change: C, notes: impl IntoIterator<Item = String>) -> Self {
        Self { change: Some(change), notes: notes.into_iter().collect() }
    }

    fn already(note: impl Into<String>) -> Self {
        Self { change: None, notes: vec![note.into()] }
    }
}
