//! What the manual says of failures is backed by tests: every test that docs/manual/failure-modes.md names exists, and no section of it
//! is without one. Whether a test proves its sentence is for people to judge.

use std::{collections::BTreeSet, fs, path::Path};

use anyhow::{Context, Result};

use super::{Finding, files::sources};

const PAGE: &str = "docs/manual/failure-modes.md";
/// A name in the code style with so many underscores is a test's.
const WORDS_OF_A_TEST: usize = 5;

/// Checks the page below `root`.
pub(super) fn check(root: &Path) -> Result<Vec<Finding>> {
    let path = root.join(PAGE);
    let text = fs::read_to_string(&path).with_context(|| format!("could not read {}", path.display()))?;
    let mut paths = Vec::new();
    sources(&root.join("crates"), &mut paths)?;
    let mut tests = BTreeSet::new();
    for path in paths {
        tests.extend(tests_in(&fs::read_to_string(&path)?));
    }
    Ok(faults(&text, &tests).into_iter().map(|fault| Finding { place: PAGE.to_owned(), fault }).collect())
}

/// The functions right below `#[test]` and the like.
fn tests_in(source: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut is_test = false;
    for line in source.lines().map(str::trim) {
        if line.starts_with("#[") && line.contains("test") {
            is_test = true;
        } else if let Some(rest) = line.strip_prefix("async ").unwrap_or(line).strip_prefix("fn ") {
            if is_test {
                found.extend(rest.split('(').next().map(str::to_owned));
            }
            is_test = false;
        }
    }
    found
}

fn faults(page: &str, tests: &BTreeSet<String>) -> Vec<String> {
    let mut faults = Vec::new();
    for section in page.split("\n## ").skip(1) {
        let title = section.lines().next().unwrap_or_default();
        let named: Vec<_> = section.split('`').skip(1).step_by(2).filter(|code| is_name(code)).collect();
        if named.is_empty() {
            faults.push(format!("\"{title}\" names no test"));
        }
        let missing = named.iter().filter(|name| !tests.contains(**name));
        faults.extend(missing.map(|name| format!("names the test {name}, which does not exist")));
    }
    faults
}

fn is_name(code: &str) -> bool {
    let letters = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    code.chars().all(letters) && code.matches('_').count() >= WORDS_OF_A_TEST
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_are_what_follows_the_attribute() {
        let source =
            "#[test]\n#[ignore = \"x\"]\nfn a_b() {}\nfn helper() {}\n#[tokio::test]\nasync fn c_d() {}\n";
        assert_eq!(tests_in(source), ["a_b", "c_d"]);
    }

    #[test]
    fn a_test_that_does_not_exist_and_a_section_without_one_are_found() {
        let tests = BTreeSet::from(["a_node_that_is_there_dies".to_owned()]);
        let page = "# Page\n\n## One\nText `pvc_x` (`a_node_that_is_there_dies`).\n\n## Two\n`a_node_that_is_not_there_dies`\n\n## Three\nNothing.\n";
        assert_eq!(
            faults(page, &tests),
            ["names the test a_node_that_is_not_there_dies, which does not exist", "\"Three\" names no test"]
        );
    }
}
