//! What `pvc node explain` and `pvc vm explain` show alike: keys that cannot be read, maintenance, the daemon's own word, and at the end
//! a conclusion.

use pvc_core::model::Explanation;

use crate::print::table::{Cell, Look, pairs, printable};

/// A word and what there is to say.
pub(super) type Line = (&'static str, Cell);

/// What cannot be read of an object.
pub(super) fn broken(problems: &[String]) -> impl Iterator<Item = Line> {
    problems.iter().map(|problem| ("broken key", Cell::new(problem, Look::Bad)))
}

/// Said only if it is on.
pub(super) fn maintenance(on: bool) -> Option<Line> {
    on.then(|| ("maintenance", Cell::new("on: nobody is fenced", Look::Busy)))
}

/// The daemon's own word.
pub(super) fn said(said: Option<&Explanation>) -> Vec<Line> {
    match said {
        Some(said) => {
            let mut lines = vec![
                ("daemon says", Cell::from(format!("{}: {}", said.by, said.doing))),
                ("because", Cell::from(&said.because)),
            ];
            lines.extend(said.error.iter().map(|error| ("last error", Cell::new(error, Look::Bad))));
            lines
        }
        None => vec![("daemon says", "nothing".into())],
    }
}

/// The whole screen.
pub(super) fn screen(lines: &[Line], conclusion: &str, colour: bool) -> String {
    pairs(lines, colour) + "\n" + &printable(conclusion) + "\n"
}
