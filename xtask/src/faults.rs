//! `cargo xtask faults`: plays the whole fault menu on labs, as often as wanted, and ends with a table of what came of it.
//! Judges nothing itself: the scenarios do, and leave their outcomes in target/faults.

use std::{collections::BTreeMap, fmt::Write, fs, path::Path};

use anyhow::{Context, Result, bail};
use clap::Args;
use serde_json::Value;

use crate::run;

/// Which scenarios, and how often.
#[derive(Args)]
pub(crate) struct Faults {
    /// Play all of them so many times.
    #[arg(long, default_value_t = 1)]
    repeat: u32,
    /// Only tests whose names contain one of these.
    filter: Vec<String>,
}

/// What came of a scenario, round by round.
type Rounds = BTreeMap<String, Vec<Option<Outcome>>>;

#[derive(Clone, Debug, PartialEq)]
struct Outcome {
    passed: bool,
    recovery_s: Option<f64>,
    took_s: f64,
}

pub(crate) fn run(faults: &Faults) -> Result<()> {
    run::cargo(["build", "--locked", "-p", "pvcd", "-p", "pvc-cli", "-p", "pvc-api", "-p", "pvc-lab"])?;
    let folder = run::root().join("target/faults");
    let mut rounds: Rounds = scenarios(&faults.filter)?.into_iter().map(|name| (name, Vec::new())).collect();
    if rounds.is_empty() {
        bail!("no scenario is called like {}", faults.filter.join(" or "));
    }
    for round in 1..=faults.repeat {
        println!("== round {round} of {}", faults.repeat);
        // Outcomes of other rounds would be taken for this one's.
        let _ = fs::remove_dir_all(&folder);
        let tests = [
            "nextest",
            "run",
            "--locked",
            "-p",
            "pvc-lab",
            "--test",
            "faults",
            "--run-ignored",
            "all",
            "--no-fail-fast",
            // They wait more than they compute: also where there are two cores only.
            "--test-threads",
            "3",
        ];
        let mut command = run::command(run::cargo_path());
        command.args(tests).args(&faults.filter);
        // Its status says less than the outcomes do.
        command.status().context("could not start cargo nextest")?;
        let outcomes = outcomes(&folder)?;
        for (name, rounds) in &mut rounds {
            rounds.push(outcomes.get(name).cloned());
        }
    }
    println!("\n{}", table(&rounds));
    let failed =
        rounds.values().flatten().filter(|outcome| !outcome.as_ref().is_some_and(|o| o.passed)).count();
    if failed > 0 {
        bail!(
            "{failed} scenarios failed; what happened when is in target/faults, the logs are in target/lab-logs"
        );
    }
    Ok(())
}

fn scenarios(filter: &[String]) -> Result<Vec<String>> {
    let list = [
        "test", "--quiet", "--locked", "-p", "pvc-lab", "--test", "faults", "--", "--list", "--format",
        "terse",
    ];
    let listed = run::command(run::cargo_path()).args(list).output()?;
    if !listed.status.success() {
        bail!("cargo test --list: {}", String::from_utf8_lossy(&listed.stderr));
    }
    let names = String::from_utf8(listed.stdout)?;
    let wanted = |name: &&str| filter.is_empty() || filter.iter().any(|part| name.contains(part.as_str()));
    Ok(names
        .lines()
        .filter_map(|line| line.strip_suffix(": test"))
        .filter(wanted)
        .map(str::to_owned)
        .collect())
}

fn outcomes(folder: &Path) -> Result<BTreeMap<String, Outcome>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let outcome: Value = serde_json::from_str(&fs::read_to_string(&path)?)
            .with_context(|| format!("{} is no outcome", path.display()))?;
        let read = || {
            let (passed, took_s) = (outcome["passed"].as_bool()?, outcome["took_s"].as_f64()?);
            let recovery_s = outcome["recovery_s"].as_f64();
            Some((outcome["test"].as_str()?.to_owned(), Outcome { passed, recovery_s, took_s }))
        };
        let (name, outcome) = read().with_context(|| format!("{} is no outcome", path.display()))?;
        found.insert(name, outcome);
    }
    Ok(found)
}

fn table(rounds: &Rounds) -> String {
    let mut text =
        String::from("| scenario | outcome | recovery | the whole scenario |\n|---|---|---|---|\n");
    for (name, rounds) in rounds {
        let passed = rounds.iter().flatten().filter(|outcome| outcome.passed).count();
        let told = |what: &dyn Fn(&Outcome) -> Option<f64>| {
            let seconds = |round: &Option<Outcome>| round.as_ref().and_then(what);
            let cells =
                rounds.iter().map(|round| seconds(round).map_or("–".to_owned(), |s| format!("{s:.1}")));
            cells.collect::<Vec<_>>().join(" · ") + " s"
        };
        let _ = writeln!(
            text,
            "| {} | {passed} of {} | {} | {} |",
            name.replace("::", ": ").replace('_', " "),
            rounds.len(),
            told(&|outcome| outcome.recovery_s),
            told(&|outcome| Some(outcome.took_s)),
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scenario_without_an_outcome_has_not_passed() {
        let outcome = |passed| Some(Outcome { passed, recovery_s: Some(3.25), took_s: 40.0 });
        let rounds =
            BTreeMap::from([("node::it_dies".to_owned(), vec![outcome(true), None, outcome(false)])]);
        let text = table(&rounds);
        assert!(
            text.ends_with("| node: it dies | 1 of 3 | 3.2 · – · 3.2 s | 40.0 · – · 40.0 s |\n"),
            "{text}"
        );
    }

    #[test]
    fn outcomes_are_read_and_timelines_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let line =
            r#"{"scenario":"f","test":"a::b","passed":true,"recovery_s":null,"took_s":1.5,"error":""}"#;
        fs::write(folder.path().join("f.json"), line).unwrap();
        fs::write(folder.path().join("f.timeline"), "0.0 x").unwrap();
        let expected = Outcome { passed: true, recovery_s: None, took_s: 1.5 };
        assert_eq!(outcomes(folder.path()).unwrap(), BTreeMap::from([("a::b".to_owned(), expected)]));
        fs::write(folder.path().join("g.json"), "{}").unwrap();
        assert!(outcomes(folder.path()).is_err());
    }
}
