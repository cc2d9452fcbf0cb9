//! Figures as a table: ours, what the 0.5 daemon needed, the target, whether it is met.

use std::{fmt::Write as _, fs, path::Path};

use anyhow::{Context, Result};

/// Lines of docs/benchmarks.md between which a table stands.
pub(crate) type Marks = [&'static str; 2];

/// The daemon's table.
pub(crate) const DAEMON: Marks =
    ["<!-- figures: written by cargo xtask bench -->\n", "<!-- end of figures -->\n"];
/// The cluster's table.
pub(crate) const HIGH_AVAILABILITY: Marks = [
    "<!-- high availability: written by cargo xtask bench -- --ha -->\n",
    "<!-- end of high availability -->\n",
];

/// The table of many nodes.
pub(crate) const SCALE: Marks =
    ["<!-- scale: written by cargo xtask bench -- --scale -->\n", "<!-- end of scale -->\n"];

/// What a figure must reach.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Target {
    /// In the figure's own unit.
    AtMost(f64),
    /// In the figure's own unit.
    AtLeast(f64),
    /// So many times below the 0.5 daemon.
    TimesBelow(f64),
}

/// One figure.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Row {
    what: String,
    unit: &'static str,
    samples: Vec<f64>,
    old: Option<f64>,
    target: Option<Target>,
}

impl Row {
    /// A figure with all its samples; the median counts.
    pub(crate) fn new(what: impl Into<String>, unit: &'static str, samples: Vec<f64>) -> Self {
        Self { what: what.into(), unit, samples, old: None, target: None }
    }

    /// What the 0.5 daemon needed.
    pub(crate) fn old(mut self, old: Option<f64>) -> Self {
        self.old = old;
        self
    }

    /// What it must reach.
    pub(crate) fn target(mut self, target: Option<Target>) -> Self {
        self.target = target;
        self
    }

    fn met(&self) -> Option<bool> {
        let ours = median(&self.samples)?;
        Some(match self.target? {
            Target::AtMost(limit) => ours <= limit,
            Target::AtLeast(limit) => ours >= limit,
            Target::TimesBelow(times) => ours * times <= self.old?,
        })
    }

    /// The cells of the table.
    fn cells(&self) -> [String; 6] {
        let Some(ours) = median(&self.samples) else {
            return [
                self.what.clone(),
                "no sample".into(),
                String::new(),
                String::new(),
                String::new(),
                String::new(),
            ];
        };
        let low = self.samples.iter().copied().fold(f64::INFINITY, f64::min);
        let high = self.samples.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let spread = if self.samples.len() > 1 {
            format!("{} … {}", short(low), short(high))
        } else {
            String::new()
        };
        let ratio =
            self.old.filter(|_| ours > 0.0).map_or(String::new(), |old| format!("{}×", short(old / ours)));
        let target = match self.target {
            None => String::new(),
            Some(Target::AtMost(limit)) => format!("≤ {}", short(limit)),
            Some(Target::AtLeast(limit)) => format!("≥ {}", short(limit)),
            Some(Target::TimesBelow(times)) => format!("≥ {}×", short(times)),
        };
        let verdict = self.met().map_or("", |met| if met { ", met" } else { ", **missed**" });
        let old = self.old.map_or(String::new(), short);
        [
            self.what.clone(),
            format!("{} {}", short(ours), self.unit).trim_end().to_owned(),
            spread,
            old,
            ratio,
            format!("{target}{verdict}"),
        ]
    }
}

/// The table, in Markdown.
pub(crate) fn table(rows: &[Row]) -> String {
    let mut text = String::from(
        "| figure | median | lowest … highest | 0.5 | times less | target |\n|---|---|---|---|---|---|\n",
    );
    for row in rows {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "| {} |", row.cells().join(" | "));
    }
    text
}

/// Puts the table between the marks of `file`.
pub(crate) fn replace(file: &Path, table: &str, marks: &Marks) -> Result<()> {
    let text = fs::read_to_string(file).with_context(|| format!("could not read {}", file.display()))?;
    let replaced = between(&text, table, marks)
        .with_context(|| format!("{} lacks the marks of the table", file.display()))?;
    fs::write(file, replaced).with_context(|| format!("could not write {}", file.display()))
}

fn between(text: &str, table: &str, marks: &Marks) -> Option<String> {
    let (before, rest) = text.split_once(marks[0])?;
    let (_, after) = rest.split_once(marks[1])?;
    Some(format!("{before}{}{table}{}{after}", marks[0], marks[1]))
}

/// The middle sample.
pub(crate) fn median(samples: &[f64]) -> Option<f64> {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        n if n % 2 == 1 => Some(sorted[middle]),
        _ => Some(f64::midpoint(sorted[middle - 1], sorted[middle])),
    }
}

/// Three significant digits at most.
fn short(number: f64) -> String {
    let text = match number.abs() {
        n if n >= 100.0 => return format!("{number:.0}"),
        n if n >= 10.0 => format!("{number:.1}"),
        n if n >= 1.0 => format!("{number:.2}"),
        _ => format!("{number:.3}"),
    };
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_one() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0]), Some(2.5));
    }

    #[test]
    fn a_row_compares_itself_with_the_past_and_the_target() {
        let row = Row::new("CPU a keepalive", "ms", vec![0.5, 0.4, 0.9]).old(Some(15.4));
        let expected = "| CPU a keepalive | 0.5 ms | 0.4 … 0.9 | 15.4 | 30.8× | ≥ 20×, met |";
        assert_eq!(
            table(&[row.clone().target(Some(Target::TimesBelow(20.0)))]).lines().last(),
            Some(expected)
        );
        assert_eq!(row.clone().target(Some(Target::TimesBelow(40.0))).met(), Some(false));
        assert_eq!(row.clone().target(Some(Target::AtMost(0.5))).met(), Some(true));
        assert_eq!(row.target(Some(Target::AtMost(0.4))).met(), Some(false));
    }

    #[test]
    fn only_what_is_between_the_marks_is_replaced() {
        let page = format!("before\n{}old\n{}after\n", DAEMON[0], DAEMON[1]);
        let expected = format!("before\n{}new\n{}after\n", DAEMON[0], DAEMON[1]);
        assert_eq!(between(&page, "new\n", &DAEMON), Some(expected));
        assert_eq!(between(&page, "new", &HIGH_AVAILABILITY), None);
    }
}
