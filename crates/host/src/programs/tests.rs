//! With real processes.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use super::{Identity, Kept, ProgramState, Programs as _, Spec, Supervisor, leftovers, log::Line};
use crate::run::Program;

const LONG: Duration = Duration::from_secs(30);

fn sh(script: &str) -> Spec {
    Spec {
        name: "test".to_owned(),
        program: "sh".to_owned(),
        arguments: vec!["-c".to_owned(), script.to_owned()],
        environment: Vec::new(),
        identity: None,
    }
}

async fn until(kept: &Kept, is: impl FnMut(&ProgramState) -> bool) {
    tokio::time::timeout(LONG, kept.state().wait_for(is)).await.unwrap().unwrap();
}

/// Waits until a file says something, then answers it.
async fn said(file: &Path) -> String {
    let deadline = Instant::now() + LONG;
    loop {
        match fs::read_to_string(file) {
            Ok(text) if text.ends_with('\n') => return text.trim_end().to_owned(),
            _ => assert!(Instant::now() < deadline, "{} says nothing", file.display()),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn lives(pid: &str) -> bool {
    let state = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // What is dead and has not been waited for does not live.
    !state.is_empty() && !state.contains(") Z ") && test_kill_process(id(pid)).is_ok()
}

fn id(pid: &str) -> Pid {
    Pid::from_raw(pid.parse().unwrap()).unwrap()
}

async fn gone(pid: &str) {
    let deadline = Instant::now() + LONG;
    while lives(pid) {
        assert!(Instant::now() < deadline, "process {pid} still lives");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_program_that_ends_is_started_again_and_one_that_is_told_to_stop_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let supervisor = Supervisor::start(dir.path().join("programs"));
    let file = dir.path().join("pid");
    let kept = supervisor.run(sh(&format!("echo $$ > {}; exec sleep 1000", file.display())));
    let first = said(&file).await;
    until(&kept, |state| *state == ProgramState::Running).await;
    fs::remove_file(&file).unwrap();
    kill_process(id(&first), Signal::KILL).unwrap();
    until(&kept, |state| matches!(state, ProgramState::Down { why } if why.contains("signal: 9"))).await;
    let second = said(&file).await;
    assert_ne!(first, second);
    kept.stop(LONG).await;
    assert!(!lives(&second));
}

#[tokio::test]
async fn who_does_not_stop_is_killed_with_its_children() {
    let dir = tempfile::tempdir().unwrap();
    let supervisor = Supervisor::start(dir.path().join("programs"));
    let (file, child) = (dir.path().join("pid"), dir.path().join("child"));
    let script = format!(
        "trap '' TERM; sleep 1000 & echo $! > {}; echo $$ > {}; wait; wait; sleep 1000",
        child.display(),
        file.display()
    );
    let kept = supervisor.run(sh(&script));
    let (pid, child) = (said(&file).await, said(&child).await);
    kept.stop(Duration::from_millis(200)).await;
    assert!(!lives(&pid));
    gone(&child).await;
}

#[tokio::test]
async fn nobody_wants_it_any_more() {
    let dir = tempfile::tempdir().unwrap();
    let supervisor = Supervisor::start(dir.path().join("programs"));
    let file = dir.path().join("pid");
    let kept = supervisor.run(sh(&format!("echo $$ > {}; sleep 1000", file.display())));
    let pid = said(&file).await;
    drop(kept);
    gone(&pid).await;
}

#[tokio::test]
async fn a_signal_to_read_its_files_again_reaches_it() {
    let dir = tempfile::tempdir().unwrap();
    let supervisor = Supervisor::start(dir.path().join("programs"));
    let (ready, heard) = (dir.path().join("ready"), dir.path().join("heard"));
    let script = format!(
        "trap 'echo yes > {}' HUP; echo ready > {}; while :; do sleep 0.1; done",
        heard.display(),
        ready.display()
    );
    let kept = supervisor.run(sh(&script));
    said(&ready).await;
    kept.hang_up();
    assert_eq!(said(&heard).await, "yes");
    kept.stop(LONG).await;
}

#[tokio::test]
async fn it_is_the_user_that_was_named_with_the_rights_that_were_named() {
    let dir = tempfile::tempdir().unwrap();
    let supervisor = Supervisor::start(dir.path().join("programs"));
    let open = dir.path().join("open");
    fs::create_dir(&open).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode;
    fs::set_permissions(dir.path(), mode(0o711)).unwrap();
    fs::set_permissions(&open, mode(0o777)).unwrap();
    let file = open.join("said");
    let script = format!(
        "{{ id -un; id -Gn; grep CapEff /proc/self/status; grep NoNewPrivs /proc/self/status; }} > {0}.new; mv {0}.new {0}; exec sleep 1000",
        file.display()
    );
    let identity =
        Some(Identity { user: "nobody", group: "nogroup", capabilities: &["net_bind_service", "net_raw"] });
    let kept = supervisor.run(Spec { identity, ..sh(&script) });
    let said = said(&file).await;
    let words: Vec<&str> = said.split_whitespace().collect();
    assert_eq!(words, ["nobody", "nogroup", "CapEff:", "0000000000002400", "NoNewPrivs:", "1"]);
    kept.stop(LONG).await;
}

/// The other half of the next test: a daemon that is killed. Does nothing in an ordinary run.
#[tokio::test]
async fn a_daemon_to_be_killed() {
    let Ok(folder) = std::env::var("PVC_TEST_DOOMED") else { return };
    let file = Path::new(&folder).join("pid");
    let script = format!("echo $$ > {}; exec sleep 1000", file.display());
    let identity = Some(Identity { user: "root", group: "root", capabilities: &["net_admin"] });
    let supervisor = Supervisor::start(Path::new(&folder).join("programs"));
    let _kept = supervisor.run(Spec { identity, ..sh(&script) });
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn a_daemon_that_is_killed_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pid");
    let doomed = [("PVC_TEST_DOOMED", dir.path().to_str().unwrap())];
    let own = std::env::current_exe().unwrap();
    let own = Program::at("a daemon", own);
    let mut daemon = own.start(&["--exact", "programs::tests::a_daemon_to_be_killed"], &doomed).unwrap();
    let pid = said(&file).await;
    assert!(lives(&pid));
    // The daemon alone, as the kernel or an operator does it.
    kill_process(daemon.leader().unwrap(), Signal::KILL).unwrap();
    daemon.wait().await.unwrap();
    gone(&pid).await;
}

#[tokio::test]
async fn leftovers_are_ended_before_anything_starts_and_only_ours() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("programs");
    let mark = leftovers::mark(&folder).unwrap();
    assert_eq!(leftovers::mark(&folder).unwrap(), mark, "kept");
    let sleep = Program::find("sleep").unwrap();
    let mut left = sleep.start(&["1000"], &[(leftovers::VARIABLE, &mark)]).unwrap();
    let other = format!("{mark}0");
    let stranger = sleep.start(&["1000"], &[(leftovers::VARIABLE, &other), ("OTHER", &mark)]).unwrap();
    // `start` returns before the program has its own environment only where it was forked without exec: std waits for the exec.
    let file = dir.path().join("pid");
    let supervisor = Supervisor::start(folder);
    let kept = supervisor.run(sh(&format!("echo $$ > {}; exec sleep 1000", file.display())));
    said(&file).await;
    let ended = tokio::time::timeout(Duration::from_secs(1), left.wait()).await.unwrap().unwrap();
    assert!(!ended.success());
    assert!(lives(&stranger.leader().unwrap().as_raw_nonzero().to_string()));
    kept.stop(LONG).await;
}

#[test]
fn lines_are_cut_and_cleaned() {
    let mut line = Line::default();
    assert_eq!(line.take(b"one\ntw"), ["one"]);
    assert_eq!(line.take(b"o\x1b[31m\r\n\n"), ["two·[31m"]);
    assert_eq!(line.take(&[b'x'; 5000]), [""; 0]);
    assert_eq!(line.take(b"\n"), ["x".repeat(1024)]);
}
