//! A VM's serial console. The tree holds a sliding window of its last lines; following means finding where the last window ends in the
//! next one.

use pvc_core::model::{DomainDetails, VmId};
use pvc_store::{Watch, schema::vm};

use crate::{Cluster, Failure, wait::changed};

/// Follows a console.
pub struct Follower {
    id: VmId,
    watches: Vec<Watch>,
    /// What was read last.
    pub window: String,
}

impl Follower {
    /// Reads the window.
    pub async fn begin(cluster: &Cluster, id: VmId) -> Result<Self, Failure> {
        // Watch first, then read: what comes between is reported.
        let watches = vec![cluster.store.watch(&vm::console_log_path(id))];
        let window = vm::read_console_log(&*cluster.store, id).await?;
        Ok(Self { id, watches, window })
    }

    /// Whether its definition asks libvirt for a log: an empty one is often no accident.
    pub async fn is_expected(&self, cluster: &Cluster) -> Result<bool, Failure> {
        let xml = cluster.xml(self.id).await?.unwrap_or_default();
        Ok(DomainDetails::parse(&xml).map_or(true, |details| details.console_log.is_some()))
    }

    /// Waits for what is printed next. Nothing is lost when it is dropped.
    pub async fn next(&mut self, cluster: &Cluster) -> Result<New, Failure> {
        changed(&mut self.watches).await;
        if vm::read(&*cluster.store, self.id).await?.is_none() {
            return Err(Failure::gone(self.id));
        }
        let next = vm::read_console_log(&*cluster.store, self.id).await?;
        let new = what_is_new(&self.window, &next);
        self.window = next;
        Ok(new)
    }
}

/// The last lines of a text.
pub fn last_lines(text: &str, lines: usize) -> &str {
    let body = text.strip_suffix('\n').unwrap_or(text);
    let start = match lines.checked_sub(1) {
        None => return "",
        Some(before) => body.rmatch_indices('\n').nth(before).map_or(0, |(at, _)| at + 1),
    };
    &text[start..]
}

/// What a window says that the one before it did not.
#[derive(Debug, PartialEq, Eq)]
pub enum New {
    /// The windows overlap; this follows.
    Rest(String),
    /// They have nothing in common.
    All,
}

/// The windows overlap where the end of the old one, from the start of some line, begins the new one. The longest overlap
/// counts: a guest that prints one line over and over cannot be told from one that is silent.
pub fn what_is_new(before: &str, now: &str) -> New {
    if before.is_empty() {
        return New::Rest(now.to_owned());
    }
    let line_starts = std::iter::once(0).chain(before.match_indices('\n').map(|(at, _)| at + 1));
    for start in line_starts.filter(|&start| start < before.len()) {
        if let Some(rest) = now.strip_prefix(&before[start..]) {
            return New::Rest(rest.to_owned());
        }
    }
    New::All
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_last_lines_of_a_log_are_whole_lines() {
        for (text, lines, expected) in [
            ("a\nb\nc\n", 2, "b\nc\n"),
            ("a\nb\nc", 2, "b\nc"),
            ("a\nb\n", 9, "a\nb\n"),
            ("a\n", 0, ""),
            ("", 3, ""),
            ("\n\n\n", 1, "\n"),
        ] {
            assert_eq!(last_lines(text, lines), expected, "{text:?} {lines}");
        }
    }

    #[test]
    fn only_what_is_new_is_printed() {
        let rest = |text: &str| New::Rest(text.to_owned());
        for (before, now, new) in [
            ("", "a\n", rest("a\n")),
            ("a\nb\n", "a\nb\nc\n", rest("c\n")),
            ("a\nb\n", "b\nc\n", rest("c\n")),
            ("a\nlog", "a\nlogin: ", rest("in: ")),
            ("a\nb\n", "b\n", rest("")),
            ("a\nb\n", "x\ny\n", New::All),
            ("a\nb\n", "", New::All),
            ("t\nt\n", "t\nt\nt\n", rest("t\n")),
        ] {
            assert_eq!(what_is_new(before, now), new, "{before:?} {now:?}");
        }
    }

    proptest! {
        #[test]
        fn a_window_that_slides_over_distinct_lines_is_followed_without_loss(
            size in 1usize..8, steps in prop::collection::vec(0usize..8, 0..30),
        ) {
            let lines = |range: std::ops::Range<usize>| -> String {
                range.flat_map(|n| ["line ".to_owned(), n.to_string(), "\n".to_owned()]).collect()
            };
            let window = |end: usize| lines(end.saturating_sub(size)..end);
            let (mut end, mut before, mut followed) = (0, String::new(), String::new());
            for step in steps {
                end += step.min(size - usize::from(!before.is_empty()));
                let now = window(end);
                let New::Rest(rest) = what_is_new(&before, &now) else { panic!("{before:?} {now:?}") };
                followed.push_str(&rest);
                before = now;
            }
            prop_assert_eq!(followed, lines(0..end));
        }
    }
}
