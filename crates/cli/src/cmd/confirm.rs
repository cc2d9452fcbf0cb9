//! Asks a person before something is done that cannot be taken back.

use std::io::{self, BufRead, IsTerminal};

use crate::{failure::Failure, print};

/// What no answer means, where nobody can be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Otherwise {
    /// A program that runs this command has decided already.
    Go,
    /// Whoever means it says so on the command line.
    Refuse,
}

/// Whether a person says yes.
pub(super) fn ask(question: &str, otherwise: Otherwise) -> Result<bool, Failure> {
    if !is_somebody_there() {
        return match otherwise {
            Otherwise::Go => Ok(true),
            Otherwise::Refuse => {
                Err(Failure::Usage(format!("{question} There is nobody to ask: add --yes if you mean it")))
            }
        };
    }
    let ask = || -> io::Result<bool> {
        print::ask(&format!("{question} [y/N]"))?;
        let mut answer = String::new();
        io::stdin().lock().read_line(&mut answer)?;
        Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
    };
    ask().map_err(|cause| Failure::Machine { doing: "ask for confirmation".into(), cause })
}

/// Tests have nobody, also where somebody watches them.
fn is_somebody_there() -> bool {
    !cfg!(test) && io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// Goes on only if a person says yes to the question, if there is one. `otherwise`: what is the case if nobody does.
pub(super) fn insist(question: Option<&str>, otherwise: &str, yes: bool) -> Result<(), Failure> {
    match question {
        Some(question) if !yes && !ask(question, Otherwise::Refuse)? => {
            Err(Failure::Unconfirmed(otherwise.to_owned()))
        }
        _ => Ok(()),
    }
}
