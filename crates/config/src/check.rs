//! From text to a report: the one way a `Config` comes into being. Pure; `files` adds what only the file system knows.

use std::path::PathBuf;

use crate::{
    config::Config,
    coordinators::Coordinator,
    diagnostic::{Diagnostic, Severity},
    kind, read, relations,
    settings::{DAEMON, Schema},
    tree::Tree,
    walk::{Found, Told, Walk},
};

/// What came of reading a `pvcd.yaml`.
pub type Report = Checked<Config>;

/// What came of reading a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked<C> {
    /// The configuration, unless there was an error.
    pub config: Option<C>,
    /// All that is wrong, in the order of the file.
    pub diagnostics: Vec<Diagnostic>,
}

impl<C> Checked<C> {
    /// How many diagnostics are of this severity.
    pub fn count(&self, severity: Severity) -> usize {
        self.diagnostics.iter().filter(|d| d.severity == severity).count()
    }
}

/// Checks a configuration's text; `file` is its name for the diagnostics. Reads nothing else.
pub fn check(text: &str, file: &str) -> Report {
    check_with(text, file, |_, _| {})
}

/// The same, with further checks of the directories before the diagnostics are put in order.
pub(crate) fn check_with(
    text: &str,
    file: &str,
    further: impl FnOnce(&mut Walk<'_>, &[Found<PathBuf>]),
) -> Report {
    check_file_of(DAEMON, text, file, |walk| read_all(walk, further))
}

/// The same of any file: `read` makes of it what the file is for.
pub(crate) fn check_file_of<C>(
    schema: Schema,
    text: &str,
    file: &str,
    read: impl FnOnce(&mut Walk<'_>) -> Result<C, Told>,
) -> Checked<C> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let tree = Tree::parse(text);
    let mut walk = Walk::new(schema, text, &tree, file);
    for fault in &tree.faults {
        walk.tell_fault(fault);
    }
    let config = if tree.is_cut_off() { Err(Told) } else { read(&mut walk) };
    let refused = walk.diagnostics.iter().any(|d| d.severity == Severity::Error);
    Checked { config: config.ok().filter(|_| !refused), diagnostics: walk.into_diagnostics() }
}

fn read_all(
    walk: &mut Walk<'_>,
    further: impl FnOnce(&mut Walk<'_>, &[Found<PathBuf>]),
) -> Result<Config, Told> {
    let draft = read::draft(walk)?;
    let directories: Vec<Found<PathBuf>> =
        draft.system.iter().flat_map(|system| system.directories.iter().flatten().cloned()).collect();
    further(walk, &directories);
    relations::settle(walk, draft)
}

/// The coordinators alone, for who needs no more than to find the cluster: works while the rest of the file is broken, or
/// belongs to something else. The error says what is wrong with the coordinators.
pub fn coordinators_of(text: &str, file: &str) -> Result<Vec<Coordinator>, Box<Diagnostic>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let tree = Tree::parse(text);
    let mut walk = Walk::new(DAEMON, text, &tree, file);
    let listed = read::root(&mut walk).and_then(|root| {
        let cluster = walk.section(&root, "cluster")?;
        walk.list(&cluster, "coordinators", "coordinator hosts")
    });
    let mut found: Vec<Coordinator> = Vec::new();
    for at in listed.unwrap_or_default().into_iter().take(read::MOST_COORDINATORS) {
        if let Ok(Some(coordinator)) = walk.value(at, &kind::coordinator())
            && !found.iter().any(|c| c.is_same_host(&coordinator.value))
        {
            found.push(coordinator.value);
        }
    }
    if !found.is_empty() {
        return Ok(found);
    }
    // Where the text is not YAML, that is the reason, not what it made of the rest.
    if tree.is_cut_off() {
        walk = Walk::new(DAEMON, text, &tree, file);
        tree.faults.iter().for_each(|fault| walk.tell_fault(fault));
    }
    let none = walk.whole_file(Severity::Error, "the file names no coordinators".to_owned());
    let first = walk.into_diagnostics().into_iter().find(|d| d.severity == Severity::Error);
    Err(Box::new(first.unwrap_or(none)))
}
