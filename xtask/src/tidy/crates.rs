//! Imports point one way, and `core` is pure. Reads what cargo says of the manifests; development dependencies are free.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::Finding;
use crate::run;

/// Which of our crates each may import. A crate that is not here is a decision that nobody has written down yet.
const IMPORTS: &[(&str, &[&str])] = &[
    ("pvc-core", &[]),
    ("pvc-config", &["pvc-core"]),
    ("pvc-process", &[]),
    ("pvc-store", &["pvc-core", "pvc-process"]),
    ("pvc-host", &["pvc-core"]),
    ("pvcd", &["pvc-core", "pvc-process", "pvc-config", "pvc-store", "pvc-host"]),
    ("pvc-operate", &["pvc-core", "pvc-store"]),
    // The only way from clients to the host: consoles, and nothing else of it (decision 207).
    ("pvc-console", &["pvc-core", "pvc-host", "pvc-operate"]),
    ("pvc-cli", &["pvc-core", "pvc-config", "pvc-store", "pvc-operate", "pvc-console"]),
    ("pvc-api", &["pvc-core", "pvc-config", "pvc-store", "pvc-operate", "pvc-console"]),
    ("pvc-lab", &["pvc-core", "pvc-config", "pvc-store", "pvc-host"]),
    ("pvc-bench", &["pvc-config", "pvc-lab"]),
    ("pvc-sim", &["pvc-core", "pvc-process", "pvc-config", "pvc-store", "pvc-host", "pvc-operate", "pvcd"]),
    ("xtask", &[]),
];

/// All that `core` may use from elsewhere: none of these can do I/O or read a clock in the way `core` uses them.
const PURE: &[&str] = &["thiserror", "ipnet", "uuid", "roxmltree", "serde", "serde_json"];

/// Every crate of the workspace with what it depends on, development dependencies left out.
pub(super) type Manifests = BTreeMap<String, Vec<String>>;

/// Asks cargo.
pub(super) fn read() -> Result<Manifests> {
    let output =
        run::command(run::cargo_path()).args(["metadata", "--no-deps", "--format-version", "1"]).output()?;
    if !output.status.success() {
        bail!("cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    }
    parse(&serde_json::from_slice(&output.stdout)?).context("cargo metadata has an unknown form")
}

fn parse(metadata: &Value) -> Option<Manifests> {
    let mut manifests = Manifests::new();
    for package in metadata["packages"].as_array()? {
        let shipped = package["dependencies"].as_array()?.iter().filter(|d| d["kind"] != "dev");
        let names = shipped.map(|d| d["name"].as_str().map(str::to_owned)).collect::<Option<_>>()?;
        manifests.insert(package["name"].as_str()?.to_owned(), names);
    }
    Some(manifests)
}

pub(super) fn check(manifests: &Manifests) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (name, uses) in manifests {
        let Some((_, allowed)) = IMPORTS.iter().find(|(known, _)| known == name) else {
            findings.push(finding(
                name,
                "not in the list of imports in xtask/src/tidy/crates.rs: decide what it may import",
            ));
            continue;
        };
        for used in uses {
            let ours = manifests.contains_key(used);
            if ours && !allowed.contains(&used.as_str()) {
                findings.push(finding(name, &format!("must not import {used}: imports point one way")));
            }
            if name == "pvc-core" && !ours && !PURE.contains(&used.as_str()) {
                findings.push(finding(
                    name,
                    &format!("must not use {used}: core does no I/O and knows no clock"),
                ));
            }
        }
    }
    findings
}

fn finding(krate: &str, fault: &str) -> Finding {
    Finding { place: format!("crate {krate}"), fault: fault.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(crates: &[(&str, &[&str])]) -> Vec<String> {
        let owned = |(name, uses): &(&str, &[&str])| {
            ((*name).to_owned(), uses.iter().map(|used| (*used).to_owned()).collect())
        };
        check(&crates.iter().map(owned).collect()).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn imports_that_point_down_are_fine() {
        let crates =
            [("pvc-core", &["serde"][..]), ("pvc-host", &["pvc-core", "tokio"]), ("pvcd", &["pvc-host"])];
        assert_eq!(faults(&crates), [""; 0]);
    }

    #[test]
    fn the_command_line_client_may_not_touch_the_host() {
        let found = faults(&[("pvc-cli", &["pvc-host"]), ("pvc-host", &[])]);
        assert_eq!(found, ["crate pvc-cli: must not import pvc-host: imports point one way"]);
    }

    #[test]
    fn the_api_may_not_touch_the_host_nor_the_daemon() {
        let found = faults(&[("pvc-api", &["pvc-host", "pvcd"]), ("pvc-host", &[]), ("pvcd", &[])]);
        assert_eq!(found.len(), 2, "{found:?}");
    }

    #[test]
    fn store_and_host_are_blind_to_each_other() {
        let found = faults(&[("pvc-store", &["pvc-host"]), ("pvc-host", &["pvc-store"])]);
        assert_eq!(found.len(), 2, "{found:?}");
    }

    #[test]
    fn core_may_not_use_a_runtime() {
        let found = faults(&[("pvc-core", &["tokio"])]);
        assert_eq!(found, ["crate pvc-core: must not use tokio: core does no I/O and knows no clock"]);
    }

    #[test]
    fn a_new_crate_needs_a_decision() {
        let found = faults(&[("pvc-magic", &[])]);
        assert_eq!(found.len(), 1, "{found:?}");
    }

    #[test]
    fn development_dependencies_are_not_imports() {
        let metadata = serde_json::json!({"packages": [{"name": "pvc-core", "dependencies": [
            {"name": "proptest", "kind": "dev"}, {"name": "cc", "kind": "build"}, {"name": "uuid", "kind": null},
        ]}]});
        let expected = Manifests::from([("pvc-core".to_owned(), vec!["cc".to_owned(), "uuid".to_owned()])]);
        assert_eq!(parse(&metadata), Some(expected));
    }
}
