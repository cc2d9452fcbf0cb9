//! What explanations of nodes and of VMs have alike. What their conclusions are drawn from is each one's own.

use pvc_core::model::{Entry, Explanation, Problem};

/// What somebody's daemon published, if anything.
pub(crate) type Said = Option<Result<Explanation, Problem>>;

/// The same apart: what it says, and why that cannot be read.
pub(crate) fn told(said: Said) -> (Option<Explanation>, Option<String>) {
    match said {
        Some(Ok(said)) => (Some(said), None),
        Some(Err(problem)) => (None, Some(problem.to_string())),
        None => (None, None),
    }
}

/// What cannot be read of an object.
pub(crate) fn problems<T>(entry: &Entry<T>) -> &[Problem] {
    match entry {
        Entry::Good(_) => &[],
        Entry::Bad(problems) => problems,
    }
}

/// The daemon's own word as a conclusion.
pub(crate) fn sentence(said: &Explanation) -> String {
    let error = said.error.as_ref().map(|e| format!(" The last attempt failed: {e}.")).unwrap_or_default();
    format!("{} is {}: {}.{error}", said.by, said.doing, said.because.trim_end_matches('.'))
}
