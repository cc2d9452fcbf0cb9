//! Every source file says first why it exists; a long one says why it is long; what is simulated is not random; every decision is listed.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use super::Finding;

/// Beyond this many lines a file has a second subject, unless its header says why not.
const LONG: usize = 500;
/// How a header says so.
const EXCUSE: &str = "Long because";
/// What clippy does not see in comments; put together so that this file does not find itself.
const UNFINISHED: &[&str] = &[concat!("TO", "DO"), concat!("FIX", "ME"), concat!("unimplemented", "!(")];

/// What the simulator runs: the same seed must give the same run.
const SIMULATED: &[&str] =
    &["crates/node/src", "crates/store/src/mirror", "crates/store/src/lock", "crates/sim/src"];

/// Checks every source file and the list of decisions below `root`.
pub(super) fn check(root: &Path) -> Result<Vec<Finding>> {
    let mut paths = Vec::new();
    for folder in ["crates", "xtask"] {
        sources(&root.join(folder), &mut paths)?;
    }
    paths.sort();
    let mut findings = Vec::new();
    for path in paths {
        let place = path.strip_prefix(root).unwrap_or(&path).display().to_string();
        let is_tests = path.file_name().is_some_and(|name| name == "tests.rs");
        let text = read(&path)?;
        let mut faults = faults(&text, is_tests);
        if SIMULATED.iter().any(|folder| place.starts_with(folder)) {
            faults.extend(random_selects(&text));
        }
        findings.extend(faults.into_iter().map(|fault| Finding { place: place.clone(), fault }));
    }
    findings.extend(unlisted_decisions(&root.join("docs/decisions"))?);
    Ok(findings)
}

/// All Rust files below a folder.
pub(super) fn sources(folder: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("could not list {}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            sources(&path, found)?;
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
    Ok(())
}

/// `is_tests`: a module `x/tests.rs` exists for `x`, and need not say so.
fn faults(text: &str, is_tests: bool) -> Vec<String> {
    let mut faults = Vec::new();
    let header: Vec<&str> = text.lines().take_while(|line| line.starts_with("//!")).collect();
    if header.is_empty() && !is_tests {
        faults.push("does not open with //! and why it exists".to_owned());
    }
    let lines = text.lines().count();
    if lines > LONG && !header.iter().any(|line| line.contains(EXCUSE)) {
        faults.push(format!("{lines} lines: split it, or say \"{EXCUSE} ...\" in its header"));
    }
    for word in UNFINISHED {
        if let Some(line) = text.lines().position(|line| line.contains(word)) {
            faults.push(format!("line {}: {word} is unfinished work: finish it or open an issue", line + 1));
        }
    }
    faults
}

/// `select!` that begins with a branch of its own choice.
fn random_selects(text: &str) -> Vec<String> {
    let mut lines = text.lines().zip(1..).peekable();
    let mut faults = Vec::new();
    while let Some((line, number)) = lines.next() {
        let opens = line.trim_end().ends_with(concat!("select", "! {"));
        if opens && lines.peek().is_none_or(|(next, _)| next.trim() != "biased;") {
            faults.push(format!(
                "line {number}: the branches need an order (biased;): what stops first, then what is rare"
            ));
        }
    }
    faults
}

/// Decision pages that the folder's README does not link.
fn unlisted_decisions(folder: &Path) -> Result<Vec<Finding>> {
    let list = read(&folder.join("README.md"))?;
    let mut findings = Vec::new();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name.starts_with(|c: char| c.is_ascii_digit()) && !list.contains(&format!("({name})")) {
            let fault = format!("does not list {name}");
            findings.push(Finding { place: "docs/decisions/README.md".to_owned(), fault });
        }
    }
    Ok(findings)
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("could not read {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_says_first_why_it_exists() {
        assert_eq!(faults("//! Why.\n\nfn main() {}\n", false), [""; 0]);
        assert_eq!(faults("use super::*;\n", true), [""; 0]);
        assert_eq!(faults("fn main() {}\n", false), ["does not open with //! and why it exists"]);
    }

    #[test]
    fn a_long_file_says_why() {
        let body = "\nfn f() {}".repeat(LONG);
        assert_eq!(faults(&format!("//! Why.{body}"), false).len(), 1);
        assert_eq!(faults(&format!("//! Why.\n//! {EXCUSE} it is a table.{body}"), false), [""; 0]);
    }

    #[test]
    fn unfinished_work_is_found_with_its_line() {
        let found = faults(&format!("//! Why.\n// {}: later\n", UNFINISHED[0]), false);
        assert_eq!(found.len(), 1);
        assert!(found[0].starts_with("line 2: "), "{found:?}");
    }

    #[test]
    fn branches_have_an_order() {
        let select = concat!("    tokio::select", "! {\n");
        assert_eq!(
            random_selects(&format!("{select}        biased;\n        () = a => {{}}\n    }}\n")),
            [""; 0]
        );
        let found = random_selects(&format!("fn f() {{\n{select}        () = a => {{}}\n    }}\n}}\n"));
        assert_eq!(found.len(), 1);
        assert!(found[0].starts_with("line 2: "), "{found:?}");
    }

    #[test]
    fn a_decision_must_be_listed() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("0001-first.md"), "").unwrap();
        fs::write(folder.path().join("0002-second.md"), "").unwrap();
        fs::write(folder.path().join("README.md"), "- [first](0001-first.md)\n").unwrap();
        let found = unlisted_decisions(folder.path()).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].fault, "does not list 0002-second.md");
    }

    #[test]
    fn every_source_below_the_crates_is_read() {
        let root = tempfile::tempdir().unwrap();
        for folder in ["crates/a/src/b", "xtask/src", "docs/decisions"] {
            fs::create_dir_all(root.path().join(folder)).unwrap();
        }
        fs::write(root.path().join("crates/a/src/b/deep.rs"), "mod x;").unwrap();
        fs::write(root.path().join("docs/decisions/README.md"), "").unwrap();
        let found = check(root.path()).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].place, "crates/a/src/b/deep.rs");
    }
}
