//! The manual's example and small edits of it: most tests are "the example, with this line changed".

use pvc_config::{Severity, check};

/// The manual's example, byte for byte.
pub(crate) const EXAMPLE: &str = include_str!("manual-example.yaml");

/// The example with `from` replaced, which must stand in it exactly once.
pub(crate) fn edited(from: &str, to: &str) -> String {
    edit(EXAMPLE, from, to)
}

/// `text` with `from` replaced, which must stand in it exactly once.
pub(crate) fn edit(text: &str, from: &str, to: &str) -> String {
    assert_eq!(text.matches(from).count(), 1, "{from:?} must stand in the text exactly once");
    text.replace(from, to)
}

/// The example with one line of one of its three networks' interfaces (`upstream`, `cluster`, `storage`) changed.
pub(crate) fn interface(network: &str, from: &str, to: &str) -> String {
    let networking = EXAMPLE.find("      networking:\n").expect("the example has interfaces");
    let section = networking + EXAMPLE[networking..].find(&format!("        {network}:\n")).expect("network");
    let line = section + EXAMPLE[section..].find(from).expect("line");
    format!("{}{to}{}", &EXAMPLE[..line], &EXAMPLE[line + from.len()..])
}

/// `line:column severity headline` of all that is told.
pub(crate) fn told(text: &str) -> Vec<String> {
    let report = check(text, "pvcd.yaml");
    let errors = report.count(Severity::Error);
    assert_eq!(report.config.is_none(), errors > 0, "a configuration exactly if there is no error");
    report
        .diagnostics
        .iter()
        .map(|d| match (d.line, d.column) {
            (Some(line), Some(column)) => format!("{line}:{column} {} {}", d.severity, d.headline()),
            _ => format!("{} {}", d.severity, d.headline()),
        })
        .collect()
}

/// Each change of the example and what is told about it.
pub(crate) fn expect(cases: &[(&str, &str, &[&str])]) {
    for (from, to, expected) in cases {
        assert_eq!(told(&edited(from, to)), *expected, "{from} -> {to}");
    }
}
