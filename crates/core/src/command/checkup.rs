//! What a node found when it looked at what it depends on: its configuration, its services, the other nodes, as it reaches them.

use serde::{Deserialize, Serialize};

use super::status::{Finding, Level};
use crate::model::NodeName;

/// The outcome of a look, on one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkup {
    /// The node that looked.
    pub node: NodeName,
    /// What is as it should be.
    pub fine: Vec<String>,
    /// What is not, and what was not looked at.
    pub findings: Vec<Finding>,
}

impl Checkup {
    /// Nothing has been looked at yet.
    pub fn new(node: NodeName) -> Self {
        Self { node, fine: Vec::new(), findings: Vec::new() }
    }

    /// Something is as it should be.
    pub fn fine(&mut self, what: impl Into<String>) {
        self.fine.push(what.into());
    }

    /// Something does not work; `todo` is the command that says more, or mends it.
    pub fn wrong(&mut self, what: impl Into<String>, todo: impl Into<String>) {
        self.findings.push(Finding { level: Level::Wrong, what: what.into(), todo: Some(todo.into()) });
    }

    /// Something works, and should be known.
    pub fn notice(&mut self, what: impl Into<String>, todo: impl Into<String>) {
        self.findings.push(Finding { level: Level::Notice, what: what.into(), todo: Some(todo.into()) });
    }

    /// One look among several that were made at the same time.
    pub fn add(&mut self, other: Self) {
        self.fine.extend(other.fine);
        self.findings.extend(other.findings);
    }
}
