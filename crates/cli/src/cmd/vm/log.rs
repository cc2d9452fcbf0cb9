//! `pvc vm log`: the end of a VM's serial console. The tree holds a sliding window of its last lines; following means
//! finding where the last window ends in the next one.

use pvc_core::model::{DomainDetails, VmId};
use pvc_store::schema::vm;

use crate::{connect::Connection, failure::Failure, print::Out, wait::changed};

pub(super) async fn log(
    cluster: &Connection,
    out: &Out,
    reference: &str,
    lines: usize,
    follow: bool,
) -> Result<(), Failure> {
    if follow && out.is_json() {
        return Err(Failure::Usage("--follow prints text as it comes: leave out --format json".into()));
    }
    let id = cluster.find_vm(reference).await?;
    // Watch first, then read: what comes between is reported.
    let mut watches = if follow { vec![cluster.store.watch(&vm::console_log_path(id))] } else { Vec::new() };
    let mut window = vm::read_console_log(&*cluster.store, id).await?;
    if out.is_json() {
        return out.json(&serde_json::json!({ "uuid": id, "log": last_lines(&window, lines) }));
    }
    if window.is_empty() {
        say_why_empty(cluster, out, id).await?;
    }
    write(out, last_lines(&window, lines))?;
    if !follow {
        return if window.is_empty() || window.ends_with('\n') { Ok(()) } else { out.write("\n") };
    }
    let mut interrupt = std::pin::pin!(tokio::signal::ctrl_c());
    loop {
        tokio::select! {
            () = changed(&mut watches) => {}
            _ = &mut interrupt => return Ok(()),
        }
        if vm::read(&*cluster.store, id).await?.is_none() {
            return Err(crate::read::gone(id).into());
        }
        let next = vm::read_console_log(&*cluster.store, id).await?;
        match what_is_new(&window, &next) {
            New::Rest(rest) => write(out, rest)?,
            New::All => {
                out.aside("lines were printed faster than they could be followed, or the log began anew");
                write(out, &next)?;
            }
        }
        window = next;
    }
}

/// A guest may print anything: files and pipes get every byte, a terminal text without its escape sequences.
fn write(out: &Out, text: &str) -> Result<(), Failure> {
    match text {
        "" => Ok(()),
        _ if out.is_terminal() => out.write(&without_sequences(text)),
        _ => out.verbatim(text),
    }
}

/// The text without escape sequences and carriage returns, which would otherwise be shown as rubbish.
fn without_sequences(text: &str) -> String {
    let mut tamed = String::with_capacity(text.len());
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '\x1b' if rest.next_if_eq(&'[').is_some() => {
                // A control sequence ends with a letter or one of a few signs.
                while rest.next_if(|c| !('@'..='~').contains(c) && *c != '\n').is_some() {}
                rest.next_if(|c| *c != '\n');
            }
            '\x1b' => drop(rest.next_if(|c| *c != '\n')),
            '\r' | '\x07' | '\x08' => {}
            c => tamed.push(c),
        }
    }
    tamed
}

/// An empty log is often no accident: the definition must ask libvirt for one.
async fn say_why_empty(cluster: &Connection, out: &Out, id: VmId) -> Result<(), Failure> {
    let xml = cluster.xml(id).await?.unwrap_or_default();
    if DomainDetails::parse(&xml).is_ok_and(|details| details.console_log.is_none()) {
        out.aside("its definition has no console log: add <log file='…/NAME.log' append='on'/> to <serial>");
    }
    Ok(())
}

fn last_lines(text: &str, lines: usize) -> &str {
    let body = text.strip_suffix('\n').unwrap_or(text);
    let start = match lines.checked_sub(1) {
        None => return "",
        Some(before) => body.rmatch_indices('\n').nth(before).map_or(0, |(at, _)| at + 1),
    };
    &text[start..]
}

/// What a window says that the one before it did not.
#[derive(Debug, PartialEq, Eq)]
enum New<'a> {
    /// The windows overlap; this follows.
    Rest(&'a str),
    /// They have nothing in common.
    All,
}

/// The windows overlap where the end of the old one, from the start of some line, begins the new one. The longest overlap
/// counts: a guest that prints one line over and over cannot be told from one that is silent.
fn what_is_new<'a>(before: &str, now: &'a str) -> New<'a> {
    if before.is_empty() {
        return New::Rest(now);
    }
    let line_starts = std::iter::once(0).chain(before.match_indices('\n').map(|(at, _)| at + 1));
    for start in line_starts.filter(|&start| start < before.len()) {
        if let Some(rest) = now.strip_prefix(&before[start..]) {
            return New::Rest(rest);
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
        for (before, now, new) in [
            ("", "a\n", New::Rest("a\n")),
            ("a\nb\n", "a\nb\nc\n", New::Rest("c\n")),
            ("a\nb\n", "b\nc\n", New::Rest("c\n")),
            ("a\nlog", "a\nlogin: ", New::Rest("in: ")),
            ("a\nb\n", "b\n", New::Rest("")),
            ("a\nb\n", "x\ny\n", New::All),
            ("a\nb\n", "", New::All),
            ("t\nt\n", "t\nt\nt\n", New::Rest("t\n")),
        ] {
            assert_eq!(what_is_new(before, now), new, "{before:?} {now:?}");
        }
    }

    #[test]
    fn a_guest_cannot_command_the_operators_terminal() {
        for (printed, shown) in [
            ("ok\r\n\tx\n", "ok\n\tx\n"),
            ("\x1b[1;32mgreen\x1b[0m\x07", "green"),
            ("\x1bcreset", "reset"),
            ("cut \x1b[2\nnext\x1b", "cut \nnext"),
        ] {
            assert_eq!(without_sequences(printed), shown, "{printed:?}");
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
                followed.push_str(rest);
                before = now;
            }
            prop_assert_eq!(followed, lines(0..end));
        }
    }
}
