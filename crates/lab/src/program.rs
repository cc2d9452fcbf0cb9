//! Runs the programs that the lab is made of (ip, nft, nsenter, ipmitool, …), each with a deadline.
//! Never through a shell, and never leaves a program behind: a late one is killed with its children.

use std::{
    ffi::OsStr,
    fmt,
    io::{Read, Write},
    os::unix::process::CommandExt,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open},
};

/// What a program did. Bytes that are not UTF-8 are replaced.
#[derive(Clone, Debug)]
pub struct Output {
    /// The program and its arguments.
    pub command: String,
    /// Its exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

impl Output {
    /// Whether it exited with 0.
    pub fn success(&self) -> bool {
        self.code == Some(0)
    }

    /// Its standard output, or an error with all it said if it did not exit with 0.
    pub fn ok(self) -> Result<String> {
        if self.success() {
            return Ok(self.stdout);
        }
        bail!("{self}")
    }
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.code {
            Some(code) => write!(f, "{}: exit code {code}", self.command)?,
            None => write!(f, "{}: ended by a signal", self.command)?,
        }
        for text in [&self.stdout, &self.stderr] {
            if !text.trim().is_empty() {
                write!(f, "\n{}", text.trim_end())?;
            }
        }
        Ok(())
    }
}

/// A command of `program`, to be configured further.
#[allow(clippy::disallowed_methods, reason = "the lab is made of programs, and this is where it starts them")]
pub fn command(program: impl AsRef<OsStr>) -> Command {
    Command::new(program)
}

/// Runs `program` with `arguments`; its output if it exits with 0 before `deadline` has passed.
pub fn run<I>(program: &str, arguments: I, deadline: Duration) -> Result<String>
where
    I: IntoIterator,
    I::Item: AsRef<OsStr>,
{
    let mut command = command(program);
    command.args(arguments);
    output(command, b"", deadline)?.ok()
}

/// Runs `command` with `input` as its standard input and waits for its end, whatever its exit code.
pub fn output(mut command: Command, input: &[u8], deadline: Duration) -> Result<Output> {
    let shown = shown(&command);
    let began = Instant::now();
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .with_context(|| format!("could not start {shown}"))?;
    let (ended, endings) = mpsc::channel();
    let stdout = collect(child.stdout.take(), ended.clone());
    let stderr = collect(child.stderr.take(), ended);
    feed(&mut child, input);

    if !exits_within(&child, deadline)? {
        kill_group(&child);
        child.wait()?;
        // Readers see the end as soon as the group is dead; what was printed so far tells why it hung.
        settle(&endings);
        bail!(
            "{shown}: no end after {:.1} s\n{}\n{}",
            began.elapsed().as_secs_f32(),
            text(&stdout).trim_end(),
            text(&stderr).trim_end()
        );
    }
    let status = child.wait()?;
    settle(&endings);
    Ok(Output { command: shown, code: status.code(), stdout: text(&stdout), stderr: text(&stderr) })
}

/// Waits for `child` to become a zombie, without reaping it.
pub fn exits_within(child: &Child, deadline: Duration) -> Result<bool> {
    let pidfd = pidfd_open(Pid::from_child(child), PidfdFlags::empty()).context("pidfd_open")?;
    let end = Instant::now() + deadline;
    loop {
        let left = Timespec::try_from(end.saturating_duration_since(Instant::now()))?;
        match poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&left)) {
            Ok(ready) => return Ok(ready > 0),
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e).context("poll"),
        }
    }
}

/// Kills `child` and all that it started in its own process group, also in namespaces below ours.
fn kill_group(child: &Child) {
    // It may have ended meanwhile, which is what we want.
    let _ = kill_process_group(Pid::from_child(child), Signal::KILL);
}

type Text = Arc<Mutex<Vec<u8>>>;

fn collect(stream: Option<impl Read + Send + 'static>, ended: mpsc::Sender<()>) -> Text {
    let text = Text::default();
    let Some(mut stream) = stream else { return text };
    let sink = Arc::clone(&text);
    thread::spawn(move || {
        let mut chunk = [0; 8192];
        while let Ok(n @ 1..) = stream.read(&mut chunk) {
            sink.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(&chunk[..n]);
        }
        // Nobody listens any more if the caller gave up waiting.
        let _ = ended.send(());
    });
    text
}

/// Waits for both readers, but not for a background process that still holds the pipe.
fn settle(endings: &mpsc::Receiver<()>) {
    for _ in 0..2 {
        if endings.recv_timeout(Duration::from_millis(500)).is_err() {
            return;
        }
    }
}

fn feed(child: &mut Child, input: &[u8]) {
    let Some(mut stdin) = child.stdin.take() else { return };
    let input = input.to_vec();
    thread::spawn(move || {
        // A program that ends without reading its input is no failure of ours.
        let _ = stdin.write_all(&input);
    });
}

fn text(of: &Text) -> String {
    String::from_utf8_lossy(&of.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
}

/// The command as a person would type it.
fn shown(command: &Command) -> String {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(OsStr::to_string_lossy)
        .collect::<Vec<_>>()
        .join(" ")
}

/// Polls `condition` until it holds; an error that names `what` once `deadline` has passed.
pub fn wait_until(what: &str, deadline: Duration, mut condition: impl FnMut() -> bool) -> Result<()> {
    let began = Instant::now();
    let mut pause = Duration::from_millis(5);
    while !condition() {
        if began.elapsed() > deadline {
            bail!("waited {:.1} s in vain for {what}", began.elapsed().as_secs_f32());
        }
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(100));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_and_exit_code_are_collected_and_input_is_fed() {
        let mut cat = command("/bin/sh");
        cat.args(["-c", "cat; echo oops >&2; exit 3"]);
        let seen = output(cat, b"hello", Duration::from_secs(20)).unwrap();
        assert_eq!((seen.code, seen.stdout.as_str(), seen.stderr.as_str()), (Some(3), "hello", "oops\n"));
        assert!(seen.ok().unwrap_err().to_string().contains("oops"));
    }

    #[test]
    fn a_late_program_is_killed_together_with_its_children() {
        let mut late = command("/bin/sh");
        late.args(["-c", "echo $$; sleep 600 & sleep 600"]);
        let error = output(late, b"", Duration::from_millis(300)).unwrap_err().to_string();
        let group = error.lines().nth(1).unwrap().to_owned();
        assert!(error.contains("no end after"), "{error}");
        let member = |pid: &str| {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            let fields: Vec<_> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
            fields.get(2) == Some(&group.as_str()) && fields[0] != "Z"
        };
        wait_until("the group to be gone", Duration::from_secs(10), || {
            !std::fs::read_dir("/proc")
                .unwrap()
                .flatten()
                .any(|entry| member(&entry.file_name().to_string_lossy()))
        })
        .unwrap();
    }

    #[test]
    fn waiting_in_vain_says_for_what() {
        let error = wait_until("godot", Duration::ZERO, || false).unwrap_err();
        assert!(error.to_string().contains("godot"));
    }
}
