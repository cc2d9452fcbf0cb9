//! What `pvc node explain` and `pvc vm explain` show alike: keys that cannot be read, maintenance, the daemon's own word, and at the end
//! a conclusion.

use pvc_core::model::Problem;
use pvc_operate::explain::Said;

use crate::print::table::{Cell, Look, pairs, printable};

/// A word and what there is to say.
pub(super) type Line = (&'static str, Cell);

/// What cannot be read of an object, each under that word.
pub(super) fn broken<'p>(
    word: &'static str,
    problems: &'p [Problem],
) -> impl Iterator<Item = Line> + use<'p> {
    problems.iter().map(move |problem| (word, Cell::new(problem.to_string(), Look::Bad)))
}

/// Said only if it is on.
pub(super) fn maintenance(on: bool) -> Option<Line> {
    on.then(|| ("maintenance", Cell::new("on: nobody is fenced", Look::Busy)))
}

/// The daemon's own word.
pub(super) fn said(said: &Said) -> Vec<Line> {
    match said {
        Some(Ok(said)) => {
            let mut lines = vec![
                ("daemon says", Cell::from(format!("{}: {}", said.by, said.doing))),
                ("because", Cell::from(&said.because)),
            ];
            lines.extend(said.error.iter().map(|error| ("last error", Cell::new(error, Look::Bad))));
            lines
        }
        Some(Err(problem)) => vec![("daemon says", Cell::new(problem.to_string(), Look::Bad))],
        None => vec![("daemon says", "nothing".into())],
    }
}

/// The whole screen.
pub(super) fn screen(lines: &[Line], conclusion: &str, colour: bool) -> String {
    pairs(lines, colour) + "\n" + &printable(conclusion) + "\n"
}
