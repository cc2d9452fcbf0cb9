//! A `pvcd.yaml` for tests, labs and benchmarks: the packaged sample with some settings changed.

use std::fmt::Display;

/// The text of a configuration. Settings are named by their paths below `pvc`, such as `system.fencing.ipmi.host`.
#[derive(Debug, Clone)]
pub struct Sample(Vec<String>);

impl Default for Sample {
    fn default() -> Self {
        let lines = include_str!("../../../packaging/pvcd.yaml").lines();
        let is_text = |line: &&str| !line.trim_start().is_empty() && !line.trim_start().starts_with('#');
        Self(lines.filter(is_text).map(str::to_owned).collect())
    }
}

impl Sample {
    /// Sets a setting, or adds it to its section, which must be there.
    ///
    /// # Panics
    /// If there is no such section.
    #[must_use]
    pub fn with(self, path: &str, value: impl Display) -> Self {
        self.put(path, vec![format!(" {value}")])
    }

    /// Sets a list.
    ///
    /// # Panics
    /// If there is no section that it belongs to.
    #[must_use]
    pub fn with_list(self, path: &str, items: impl IntoIterator<Item = impl Display>) -> Self {
        let indent = "  ".repeat(path.split('.').count() + 1);
        let items = items.into_iter().map(|item| format!("{indent}- {item}"));
        self.put(path, std::iter::once(String::new()).chain(items).collect())
    }

    /// Takes a setting or a section out, if it is there.
    #[must_use]
    pub fn without(mut self, path: &str) -> Self {
        if let Some((begin, end)) = self.find(path) {
            self.0.drain(begin..end);
        }
        self
    }

    /// The text, as it is written into the file.
    pub fn text(&self) -> String {
        self.0.join("\n") + "\n"
    }

    /// `lines`: what follows the name and its colon.
    fn put(mut self, path: &str, mut lines: Vec<String>) -> Self {
        let (section, name) = path.rsplit_once('.').unwrap_or(("", path));
        lines[0] = format!("{}{name}:{}", "  ".repeat(path.split('.').count()), lines[0]);
        let (begin, end) = self.find(path).unwrap_or_else(|| {
            let Some((begin, _)) = self.find(section) else { panic!("the sample has no section {section}") };
            (begin + 1, begin + 1)
        });
        self.0.splice(begin..end, lines);
        self
    }

    /// The lines of a setting or a section: the first, and the one after the last.
    fn find(&self, path: &str) -> Option<(usize, usize)> {
        let indent = |line: &str| line.len() - line.trim_start().len();
        let (mut begin, mut end) = (self.0.iter().position(|line| line == "pvc:")?, self.0.len());
        for (depth, name) in path.split('.').filter(|name| !name.is_empty()).enumerate() {
            let is = |line: &String| {
                indent(line) == 2 * (depth + 1)
                    && line.trim_start().strip_prefix(name).is_some_and(|rest| rest.starts_with(':'))
            };
            begin = begin + 1 + self.0[begin + 1..end].iter().position(is)?;
            let is_beyond = |line: &String| indent(line) <= 2 * (depth + 1);
            end = self.0[begin + 1..end].iter().position(is_beyond).map_or(end, |lines| begin + 1 + lines);
        }
        Some((begin, end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Config, check};

    fn config(sample: &Sample) -> Config {
        let report = check(&sample.text(), "pvcd.yaml");
        report.config.unwrap_or_else(|| panic!("{:?}", report.diagnostics))
    }

    #[test]
    fn settings_are_changed_added_and_taken_out_where_they_belong() {
        let sample = Sample::default()
            .with("node", "hv7")
            .with("debug", "True")
            .with("system.fencing.ipmi.host", "lom7")
            .with("system.migration.outgoing_limit", 9)
            .with_list("cluster.coordinators", ["hv1", "hv2"])
            .without("cluster.networks.upstream.gateway");
        let config = config(&sample);
        assert_eq!((config.node.as_str(), config.debug), ("hv7", true));
        assert_eq!((config.ipmi.host.as_str(), config.limits.outgoing), ("lom7", 9));
        assert_eq!(config.coordinators.len(), 2);
        let networks = config.networks.unwrap();
        assert_eq!(
            (networks.upstream.gateway, networks.cluster.domain.as_deref()),
            (None, Some("pvc.local"))
        );
        assert_eq!(config.dns_database.unwrap().host, "localhost");
    }

    #[test]
    fn whole_sections_go() {
        let sample = Sample::default()
            .with("functions.enable_networking", "False")
            .with("functions.enable_api", "False")
            .without("cluster.networks")
            .without("coordinator")
            .without("system.configuration.networking")
            .without("nothing.like.this");
        assert!(config(&sample).networks.is_none());
    }

    #[test]
    #[should_panic(expected = "the sample has no section system.nothing")]
    fn a_section_that_is_not_there_is_no_place() {
        let _ = Sample::default().with("system.nothing.like_this", 1);
    }
}
