//! The log as an operator meets it, on real files.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, time::Duration};

use tracing::subscriber::with_default;

use super::*;

fn settings(file: &Path) -> Settings {
    Settings {
        node: "node1".parse().unwrap(),
        file: Some(file.to_owned()),
        stdout: false,
        colours: false,
        dates: false,
        debug: false,
    }
}

/// Logs what `say` says into `settings.file` and returns its lines.
fn logged(settings: &Settings, say: impl FnOnce(&Log)) -> Vec<String> {
    let (log, subscriber) = Log::start(settings).unwrap();
    with_default(subscriber, || say(&log));
    log.finish(Duration::from_secs(20));
    lines(settings.file.as_deref().unwrap())
}

fn lines(file: &Path) -> Vec<String> {
    fs::read_to_string(file).unwrap().lines().map(ToOwned::to_owned).collect()
}

#[derive(Debug, thiserror::Error)]
#[error("could not start")]
struct Outer(#[source] std::io::Error);

#[test]
fn a_line_says_node_letter_subject_and_what_happened() {
    let dir = tempfile::tempdir().unwrap();
    let lines = logged(&settings(&dir.path().join("new/pvcd.log")), |_| {
        tracing::info!(vm = "web1", "started in {:.2} s", 0.41);
        tracing::warn!(vm = "web1", attempt = 2, "starts again");
        let error = Outer(std::io::Error::other("no such disk"));
        tracing::error!(error = &error as &dyn std::error::Error, "gave up");
        tracing::info!(target: KEEPALIVE, "all is well");
        tracing::debug!("not wanted");
        tracing::info!(target: "some_library", "not wanted either");
    });
    assert_eq!(
        lines,
        [
            "node1 I vm web1: started in 0.41 s",
            "node1 W vm web1: starts again (attempt=2)",
            "node1 E gave up: could not start: no such disk",
            "node1 K all is well",
        ]
    );
}

#[test]
fn debug_adds_our_details_but_not_a_librarys() {
    let dir = tempfile::tempdir().unwrap();
    let lines = logged(&Settings { debug: true, ..settings(&dir.path().join("l")) }, |_| {
        tracing::debug!("a detail");
        tracing::debug!(target: "a_library", "chatter");
        tracing::warn!(target: "a_library", "worth knowing");
    });
    assert_eq!(lines, ["node1 D a detail", "node1 W worth knowing"]);
}

#[test]
fn dates_and_colours_follow_their_switches() {
    let dir = tempfile::tempdir().unwrap();
    let lines = logged(&Settings { dates: true, colours: true, ..settings(&dir.path().join("l")) }, |_| {
        tracing::info!("one");
        tracing::error!("two");
    });
    let dated = lines[0].strip_prefix("\x1b[2m").unwrap();
    let (at, rest) = dated.split_once("\x1b[0m ").unwrap();
    assert!(chrono::NaiveDateTime::parse_from_str(at, "%Y-%m-%d %H:%M:%S%.3f").is_ok(), "{at}");
    assert_eq!(rest, "node1 \x1b[32mI\x1b[0m one");
    assert!(lines[1].ends_with("node1 \x1b[1;31mE two\x1b[0m"), "{:?}", lines[1]);
}

#[test]
fn what_a_guest_or_client_wrote_cannot_forge_a_line() {
    let dir = tempfile::tempdir().unwrap();
    let lines = logged(&settings(&dir.path().join("l")), |_| {
        tracing::warn!(error = "bad\nnode1 E everything burns\x1b[2J", "libvirt refused");
        tracing::warn!("{}", "ä".repeat(10_000));
    });
    assert_eq!(lines.len(), 2);
    assert_eq!(lines[0], "node1 W libvirt refused: bad\\nnode1 E everything burns\\u{1b}[2J");
    assert!(lines[1].ends_with("ä … (11808 more bytes)"), "{}", &lines[1][8000..]);
}

#[test]
fn the_file_is_opened_anew_for_logrotate() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pvcd.log");
    let after = logged(&settings(&file), |log| {
        tracing::info!("before");
        log.finish(Duration::from_secs(20));
        fs::rename(&file, dir.path().join("pvcd.log.1")).unwrap();
        tracing::info!("still the old one");
        log.finish(Duration::from_secs(20));
        log.reopen();
        tracing::info!("after");
    });
    assert_eq!(after, ["node1 I after"]);
    assert_eq!(lines(&dir.path().join("pvcd.log.1")), ["node1 I before", "node1 I still the old one"]);
    assert_eq!(
        fs::metadata(&file).unwrap().permissions().mode() & 0o777 & !0o640,
        0,
        "not for everybody's eyes"
    );
}

#[test]
fn a_file_that_cannot_be_written_is_taken_up_again_and_says_what_it_missed() {
    let dir = tempfile::tempdir().unwrap();
    let blocker = dir.path().join("log");
    fs::write(&blocker, "a file where a directory should be").unwrap();
    let file = blocker.join("pvcd.log");
    let lines = logged(&settings(&file), |log| {
        tracing::info!("one");
        tracing::info!("two");
        log.finish(Duration::from_secs(20));
        fs::remove_file(&blocker).unwrap();
        log.reopen();
        tracing::info!("three");
    });
    assert_eq!(
        lines,
        ["node1 W 2 log lines are missing here: the file could not be written", "node1 I three"]
    );
}

#[test]
fn a_full_disk_is_survived() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pvcd.log");
    std::os::unix::fs::symlink("/dev/full", &file).unwrap();
    let lines = logged(&settings(&file), |log| {
        tracing::info!("does not fit");
        log.finish(Duration::from_secs(20));
        fs::remove_file(&file).unwrap();
        log.reopen();
        tracing::info!("fits");
    });
    assert_eq!(
        lines,
        ["node1 W 1 log lines are missing here: the file could not be written", "node1 I fits"]
    );
}

#[test]
fn a_stuck_disk_makes_nobody_wait_and_the_lost_lines_are_counted() {
    let dir = tempfile::tempdir().unwrap();
    let pipe = dir.path().join("pvcd.log");
    rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::from_raw_mode(0o600)).unwrap();
    let (log, subscriber) = Log::start(&settings(&pipe)).unwrap();
    // Opening a pipe that nobody reads blocks the writer, as a dead disk would.
    let said = 3 * QUEUE;
    let began = std::time::Instant::now();
    with_default(subscriber, || {
        for i in 0..said {
            tracing::info!("line {i}");
        }
    });
    assert!(began.elapsed() < Duration::from_secs(5), "logging waited for the disk");
    drop(log);
    let text = fs::read_to_string(&pipe).unwrap();
    let written = text.lines().filter(|l| l.starts_with("node1 I line ")).count();
    let lost: usize = text
        .lines()
        .filter_map(|l| {
            l.strip_prefix("node1 W ")?
                .strip_suffix(" log lines were lost: they came faster than they could be written")
        })
        .map(|n| n.parse::<usize>().unwrap())
        .sum();
    assert!(lost > 0, "{written} lines were written through a queue of {QUEUE}");
    assert_eq!(written + lost, said);
}
