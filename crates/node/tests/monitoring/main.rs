//! The alert rules and the dashboard in `packaging`: each figure they name is one that pvcd tells, with that label, and each alert fires when it shall and not else.
//! `promtool` is Debian's, of the package `prometheus`.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod expression;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use serde_json::Value;

use self::expression::{Named, named};

const SOURCE: &str = include_str!("../../src/metrics.rs");
const GAUGES: &str = include_str!("../../src/metrics/gauges.rs");
const RULES: &str = include_str!("../../../../packaging/prometheus/pvcd.rules.yml");
const RULES_TEST: &str = include_str!("rules.test.yml");
const DASHBOARD: &str = include_str!("../../../../packaging/grafana/pvcd.json");

/// Prometheus' own, and what each target has.
const NOT_OURS: [&str; 1] = ["up"];
const OF_TARGETS: [&str; 5] = ["job", "instance", "cluster", "le", "alertname"];

/// The figures as the program has them: whether each is a histogram.
fn told() -> BTreeMap<&'static str, bool> {
    let constants = SOURCE.split("const ").skip(1);
    let all = constants.filter_map(|text| {
        let (constant, rest) = text.split_once(": &str = \"")?;
        let name = rest.split('"').next()?;
        let is_histogram = SOURCE.split("describe_histogram!(").skip(1).any(|described| {
            described.trim_start().strip_prefix(constant).is_some_and(|rest| rest.starts_with(','))
        });
        name.starts_with("pvcd_").then_some((name, is_histogram))
    });
    all.collect()
}

/// What is wrong with a figure that an expression names.
fn wrong(figure: &Named, told: &BTreeMap<&str, bool>) -> Option<String> {
    let Named { name, labels } = figure;
    let plain = |name: &str| told.get(name) == Some(&false);
    let of_histogram = ["_bucket", "_sum", "_count"]
        .iter()
        .any(|end| name.strip_suffix(end).is_some_and(|base| told.get(base) == Some(&true)));
    if !(NOT_OURS.contains(&name.as_str()) || plain(name) || of_histogram) {
        return Some(format!("nothing tells {name}"));
    }
    let is_ours = |label: &str| {
        let text = format!("\"{label}\" =>");
        OF_TARGETS.contains(&label) || SOURCE.contains(&text) || GAUGES.contains(&text) || label == "node"
    };
    labels.iter().find(|label| !is_ours(label)).map(|label| format!("no figure has the label {label}"))
}

fn check<'a>(expressions: impl IntoIterator<Item = &'a str>) -> BTreeSet<String> {
    let told = told();
    let mut all = BTreeSet::new();
    for expression in expressions {
        let figures = named(expression).unwrap_or_else(|why| panic!("{why}: {expression}"));
        assert!(!figures.is_empty(), "it names no figure: {expression}");
        for figure in figures {
            if let Some(why) = wrong(&figure, &told) {
                panic!("{why}: {expression}");
            }
            all.insert(figure.name);
        }
    }
    all
}

/// What follows a key on its line of the rules.
fn values(key: &str) -> impl Iterator<Item = &'static str> {
    RULES.lines().filter_map(move |line| line.trim_start().trim_start_matches("- ").strip_prefix(key))
}

fn expressions(panel: &Value) -> Vec<&str> {
    let targets = panel["targets"].as_array().into_iter().flatten();
    let own = targets.filter_map(|target| target["expr"].as_str());
    let inner = panel["panels"].as_array().into_iter().flatten().flat_map(expressions);
    own.chain(inner).collect()
}

#[test]
fn every_figure_of_the_rules_is_told() {
    let figures = check(values("expr: "));
    assert!(figures.len() > 15, "{figures:?}");
}

#[test]
fn every_figure_of_the_dashboard_is_told() {
    let dashboard: Value = serde_json::from_str(DASHBOARD).unwrap();
    let panels = expressions(&dashboard);
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    let asked = variables.iter().filter_map(|variable| variable["query"].as_str());
    let asked = asked.filter_map(|query| query.strip_prefix("label_values(")?.rsplit_once(',')).map(|q| q.0);
    let figures = check(panels.into_iter().chain(asked));
    // Cluster, nodes, VMs, networks and storage.
    for figure in [
        "pvcd_cluster_nodes",
        "pvcd_node_memory_bytes",
        "pvcd_cluster_vms",
        "pvcd_network_dropped_packets_total",
        "pvcd_storage_bytes",
        "pvcd_keepalive_seconds_bucket",
    ] {
        assert!(figures.contains(figure), "{figure} in {figures:?}");
    }
    let mut ids = BTreeSet::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "two panels with one number: {panel}");
        assert!(!panel["title"].as_str().unwrap().is_empty());
    }
}

#[test]
fn every_alert_says_what_to_do_and_is_tried() {
    let alerts: Vec<&str> = values("alert: ").collect();
    assert_eq!(alerts.iter().collect::<BTreeSet<_>>().len(), alerts.len());
    for (what, count) in [("summary: ", values("summary: ").count()), ("todo: ", values("todo: ").count())] {
        assert_eq!(count, alerts.len(), "{what}");
    }
    assert!(values("todo: ").all(|todo| todo.contains("`pvc ")), "each names a command");
    assert!(values("severity: ").all(|word| ["critical", "warning"].contains(&word)));
    for alert in alerts {
        assert!(RULES_TEST.contains(&format!("alertname=\"{alert}\"")), "{alert} is never tried");
    }
}

#[test]
fn a_renamed_figure_and_a_renamed_label_are_found() {
    let told = told();
    let found = |expression: &str| named(expression).unwrap().iter().find_map(|figure| wrong(figure, &told));
    assert_eq!(found("rate(pvcd_keepalive_seconds_bucket[5m])"), None);
    assert_eq!(found("pvcd_keepalive_seconds").as_deref(), Some("nothing tells pvcd_keepalive_seconds"));
    assert_eq!(found("pvcd_node_vms_bucket").as_deref(), Some("nothing tells pvcd_node_vms_bucket"));
    assert_eq!(found("1 + pvcd_node_guests").as_deref(), Some("nothing tells pvcd_node_guests"));
    assert_eq!(found("pvcd_cluster_vms{mood=\"x\"}").as_deref(), Some("no figure has the label mood"));
    assert_eq!(found("sum by (mood) (pvcd_node_vms)").as_deref(), Some("no figure has the label mood"));
}

#[allow(clippy::disallowed_methods, reason = "the tool that reads alert rules")]
fn promtool(what: &[&str], file: &Path) {
    let asked = std::process::Command::new("/usr/bin/promtool").args(what).arg(file).output();
    let answer = asked.unwrap_or_else(|e| panic!("promtool of Debian's package prometheus: {e}"));
    let said = String::from_utf8_lossy(&answer.stdout) + String::from_utf8_lossy(&answer.stderr);
    assert!(answer.status.success() && said.contains("SUCCESS"), "{said}");
}

#[test]
fn promtool_takes_the_rules() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    promtool(&["check", "rules", "--lint-fatal"], &root.join("packaging/prometheus/pvcd.rules.yml"));
}

#[test]
fn each_alert_fires_when_it_shall_and_not_else() {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/monitoring/rules.test.yml");
    promtool(&["test", "rules"], &tests);
}
