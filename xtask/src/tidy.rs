//! The rules of ARCHITECTURE.md that neither rustc nor clippy checks: which way crates import, that
//! modules import in no circle, what `core` may use, how
//! files begin and how long they are, that the manual's tests exist. Reads manifests, sources and the manual, changes nothing.

mod circles;
mod crates;
mod files;
mod manual;

use std::fmt;

use anyhow::{Result, bail};

use crate::run;

/// A broken rule: where, what, what to do.
#[derive(Debug, PartialEq, Eq)]
struct Finding {
    place: String,
    fault: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.fault)
    }
}

/// Checks every rule; an error if one is broken, after printing all that are.
pub(crate) fn run() -> Result<()> {
    let root = run::root();
    let mut findings = crates::check(&crates::read()?);
    findings.extend(circles::check(&root)?);
    findings.extend(files::check(&root)?);
    findings.extend(manual::check(&root)?);
    for finding in &findings {
        println!("{finding}");
    }
    if !findings.is_empty() {
        bail!("{} rules of ARCHITECTURE.md and CONTRIBUTING.md are broken", findings.len());
    }
    Ok(())
}
