//! The calls of Ceph's libraries under valgrind: what is read that was freed, was never written, or is nobody's, and what is never freed.
//! On a real Ceph of three OSDs, which is started beside it and is not looked at.

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::run;

/// The test that calls every function of the libraries that we call, once at least.
const TEST: &str = "ceph::cluster::tests::every_function_of_the_libraries_is_called_as_it_is_to_be";

pub(crate) fn run() -> Result<()> {
    let found = run::root().join("crates/host/src/ceph/memcheck.supp");
    let status = run::command("valgrind")
        .args(["--quiet", "--error-exitcode=9", "--num-callers=40", "--fair-sched=try"])
        .args(["--leak-check=full", "--show-leak-kinds=definite", "--errors-for-leak-kinds=definite"])
        .arg(format!("--suppressions={}", found.display()))
        .arg(tests_of_host()?)
        .args(["--exact", TEST, "--nocapture"])
        .status()
        .context("could not start valgrind (Debian: valgrind)")?;
    if !status.success() {
        bail!("valgrind: {status}");
    }
    Ok(())
}

/// The unit tests of `host`, which the steps before have built.
fn tests_of_host() -> Result<String> {
    let words =
        ["test", "--workspace", "--all-targets", "--locked", "--no-run", "--quiet", "--message-format=json"];
    let output = run::command(run::cargo_path()).args(words).output()?;
    if !output.status.success() {
        bail!("the tests cannot be built: {}", String::from_utf8_lossy(&output.stderr));
    }
    let said = String::from_utf8_lossy(&output.stdout);
    let built = said.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut tests = built.filter(|built| {
        built["target"]["name"] == "pvc_host"
            && built["target"]["kind"][0] == "lib"
            && built["profile"]["test"] == true
    });
    let path = tests.find_map(|built| built["executable"].as_str().map(str::to_owned));
    path.context("cargo names no unit tests of pvc-host")
}
