//! What is left of a scenario for who comes later: its outcome, one JSON line a scenario, and its whole timeline beside it.
//! Read by `cargo xtask faults`.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};

/// How a scenario ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// Its lab's name.
    pub scenario: String,
    /// The test that it is.
    pub test: String,
    /// Whether all was well.
    pub passed: bool,
    /// From the fault to the recovery, where there is something to recover.
    pub recovery_s: Option<f64>,
    /// The whole of it.
    pub took_s: f64,
    /// What was wrong.
    pub error: String,
}

impl Outcome {
    pub(super) fn begun(scenario: &str) -> Self {
        // The test runner names its threads.
        let test = std::thread::current().name().unwrap_or_default().to_owned();
        let scenario = scenario.to_owned();
        Self { scenario, test, passed: false, recovery_s: None, took_s: 0.0, error: String::new() }
    }

    pub(super) fn passes(&mut self, took: Duration) -> &Self {
        self.passed = true;
        self.took_s = took.as_secs_f64();
        self
    }

    pub(super) fn fails(&mut self, error: &anyhow::Error, took: Duration) -> &Self {
        self.error = format!("{error:#}");
        self.took_s = took.as_secs_f64();
        self
    }

    pub(super) fn save(&self, folder: &Path, timeline: &str) {
        let files = [
            ("json", serde_json::to_string(self).unwrap_or_default() + "\n"),
            ("timeline", timeline.to_owned()),
        ];
        // A disk that is full is no reason to call a scenario failed.
        for (kind, text) in files {
            let path = folder.join(format!("{}.{kind}", self.scenario));
            if let Err(e) = fs::create_dir_all(folder).and_then(|()| fs::write(&path, text)) {
                eprintln!("could not write {}: {e}", path.display());
            }
        }
    }
}

/// Where outcomes are left, from where the lab's program is: `target/faults`.
pub fn folder(executable: &Path) -> PathBuf {
    executable.parent().and_then(Path::parent).unwrap_or(Path::new("target")).join("faults")
}

/// The lines of a timeline from a moment on.
pub(super) fn from(timeline: &str, seconds: f64) -> String {
    let late = |line: &&str| {
        let at = line.split_whitespace().next().and_then(|at| at.parse::<f64>().ok());
        at.is_none_or(|at| at >= seconds)
    };
    timeline.lines().filter(late).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_lie_beside_the_builds() {
        assert_eq!(folder(Path::new("/x/target/debug/pvc-lab")), Path::new("/x/target/faults"));
    }

    #[test]
    fn what_was_long_before_is_left_out() {
        assert_eq!(from("  -9.000  a\n  -1.000  b\n   2.000  c", -3.0), "  -1.000  b\n   2.000  c");
    }
}
