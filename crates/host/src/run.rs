//! Starts programs. The only place that does.
//!
//! Every program is found once, in the system's own directories; gets its arguments as a vector, never through a shell; an empty
//! environment but for what is named; nothing on its standard input unless it is given a text; and a deadline, at which it is killed with all its
//! children. The same happens when whoever waits for it stops waiting. Secrets go by environment: arguments are for all to see.

use std::{
    fmt, io,
    path::PathBuf,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    process::{Child, ChildStderr, ChildStdout, Command},
    time::timeout,
};

/// Where programs are looked for. Not where `PATH` says, which depends on who started the daemon.
const DIRECTORIES: [&str; 4] = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// So much of each output is kept; the rest is read and dropped, so that the program is not held up.
const KEPT: usize = 64 * 1024;

/// So much of it if the program is asked for a listing.
const KEPT_OF_LISTING: usize = 16 * 1024 * 1024;

/// A program that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    name: String,
    path: PathBuf,
}

/// How a program ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// Its exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    /// Its standard output, the first 64 KiB.
    pub stdout: String,
    /// Its standard error, the first 64 KiB.
    pub stderr: String,
}

impl Ended {
    /// Whether it said that all went well.
    pub fn is_success(&self) -> bool {
        self.code == Some(0)
    }
}

/// Why a program did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// It is not installed.
    #[error("the program {program} is not installed (looked in {})", DIRECTORIES.join(", "))]
    Missing {
        /// Which.
        program: String,
    },
    /// The kernel did not start it, or its output could not be read.
    #[error("could not run {program}")]
    Start {
        /// Which.
        program: String,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// It took too long and was killed.
    #[error("{program} did not end within {} s and was killed", after.as_secs_f32())]
    Late {
        /// Which.
        program: String,
        /// Its deadline.
        after: Duration,
    },
}

impl Program {
    /// Finds a program.
    ///
    /// # Errors
    /// If it is not installed.
    pub fn find(name: &str) -> Result<Self, RunError> {
        let found =
            DIRECTORIES.iter().map(|directory| PathBuf::from(directory).join(name)).find(|p| p.is_file());
        let path = found.ok_or_else(|| RunError::Missing { program: name.to_owned() })?;
        Ok(Self { name: name.to_owned(), path })
    }

    /// A program of a test's own.
    #[cfg(test)]
    pub(crate) fn at(name: &str, path: PathBuf) -> Self {
        Self { name: name.to_owned(), path }
    }

    /// Where it is, for a program that starts it.
    pub(crate) fn path(&self) -> &str {
        self.path.to_str().unwrap_or_default()
    }

    /// Runs it to its end, whatever its exit code.
    ///
    /// # Errors
    /// If it could not be started or did not end in time. What it did until then is unknown.
    pub async fn run(
        &self,
        arguments: &[&str],
        environment: &[(&str, &str)],
        within: Duration,
    ) -> Result<Ended, RunError> {
        self.run_with(arguments, environment, "", KEPT, within).await
    }

    /// Runs it on a text, which is its standard input, and takes a long answer.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub async fn run_on(&self, arguments: &[&str], input: &str, within: Duration) -> Result<Ended, RunError> {
        self.run_with(arguments, &[], input, KEPT_OF_LISTING, within).await
    }

    async fn run_with(
        &self,
        arguments: &[&str],
        environment: &[(&str, &str)],
        input: &str,
        kept: usize,
        within: Duration,
    ) -> Result<Ended, RunError> {
        let start = |cause| RunError::Start { program: self.name.clone(), cause };
        let stdin = if input.is_empty() { Stdio::null() } else { Stdio::piped() };
        let mut group = Group(self.spawn(arguments, environment, stdin).map_err(start)?);
        let ended = timeout(within, group.end(input, kept)).await;
        ended.map_err(|_| RunError::Late { program: self.name.clone(), after: within })?.map_err(start)
    }

    /// Starts it and leaves it running, until what is answered is dropped.
    pub(crate) fn start(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Result<Group, RunError> {
        let start = |cause| RunError::Start { program: self.name.clone(), cause };
        self.spawn(arguments, environment, Stdio::null()).map(Group).map_err(start)
    }

    #[allow(clippy::disallowed_methods, reason = "this is the place")]
    fn spawn(&self, arguments: &[&str], environment: &[(&str, &str)], stdin: Stdio) -> io::Result<Child> {
        Command::new(&self.path)
            .args(arguments)
            .env_clear()
            .env("LC_ALL", "C")
            .envs(environment.iter().copied())
            .current_dir("/")
            .stdin(stdin)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
    }
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// A program and its children; they end with this.
#[derive(Debug)]
pub(crate) struct Group(Child);

impl Group {
    /// The program's own process, until it has been waited for.
    pub(crate) fn leader(&self) -> Option<Pid> {
        self.0.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw)
    }

    /// Both outputs, once.
    pub(crate) fn outputs(&mut self) -> (Option<ChildStdout>, Option<ChildStderr>) {
        (self.0.stdout.take(), self.0.stderr.take())
    }

    /// Waits until the program has ended.
    pub(crate) async fn wait(&mut self) -> io::Result<ExitStatus> {
        self.0.wait().await
    }

    /// Kills it and its children.
    pub(crate) fn kill(&self) {
        if let Some(leader) = self.leader() {
            // It may have ended by itself just now.
            let _ = kill_process_group(leader, Signal::KILL);
        }
    }

    async fn end(&mut self, input: &str, kept: usize) -> io::Result<Ended> {
        let (out, err) = self.outputs();
        let feed = feed(self.0.stdin.take(), input);
        // Both are read to their ends before the program is waited for: until then its process id is not given to another, so
        // the group that is killed is its own.
        let (stdout, stderr, ()) = tokio::try_join!(read(out, kept), read(err, kept), feed)?;
        let code = self.0.wait().await?.code();
        Ok(Ended { code, stdout, stderr })
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Writes it all and says that there is no more. A program that ends without reading it says by its exit code what it thinks of that.
async fn feed(to: Option<impl AsyncWrite + Unpin>, input: &str) -> io::Result<()> {
    let Some(mut to) = to else { return Ok(()) };
    match to.write_all(input.as_bytes()).await {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        outcome => outcome,
    }
}

async fn read(from: Option<impl AsyncRead + Unpin>, most: usize) -> io::Result<String> {
    let Some(mut from) = from else { return Ok(String::new()) };
    let mut kept = Vec::new();
    let mut part = vec![0; 8 * 1024];
    loop {
        let read = from.read(&mut part).await?;
        if read == 0 {
            return Ok(String::from_utf8_lossy(&kept).into_owned());
        }
        let room = most.saturating_sub(kept.len());
        kept.extend_from_slice(&part[..read.min(room)]);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    const LONG: Duration = Duration::from_secs(30);

    fn sh() -> Program {
        Program::find("sh").unwrap()
    }

    #[tokio::test]
    async fn output_and_exit_code_are_told() {
        let ended = sh().run(&["-c", "echo out; echo err >&2; exit 3"], &[], LONG).await.unwrap();
        assert_eq!(ended, Ended { code: Some(3), stdout: "out\n".into(), stderr: "err\n".into() });
        assert!(!ended.is_success());
        assert_eq!(sh().run(&["-c", "kill -9 $$"], &[], LONG).await.unwrap().code, None);
    }

    #[tokio::test]
    async fn the_environment_is_what_was_named_and_the_input_is_empty() {
        let ended = sh().run(&["-c", "/usr/bin/env; cat"], &[("SECRET", "x y")], LONG).await.unwrap();
        let mut names: Vec<&str> = ended.stdout.lines().collect();
        names.retain(|line| !["PWD=", "SHLVL=", "_=", "OLDPWD="].iter().any(|own| line.starts_with(own)));
        names.sort_unstable();
        assert_eq!(names, ["LC_ALL=C", "SECRET=x y"], "the shell's own variables apart");
    }

    #[tokio::test]
    async fn arguments_are_not_interpreted() {
        let echo = Program::find("echo").unwrap();
        let ended = echo.run(&["$HOME", "a b", "; false"], &[], LONG).await.unwrap();
        assert_eq!(ended.stdout, "$HOME a b ; false\n");
    }

    #[tokio::test]
    async fn a_late_program_is_killed_with_its_children() {
        let dir = tempfile::tempdir().unwrap();
        let alive = dir.path().join("alive");
        let script = format!("(while :; do date +%N > {}; sleep 0.05; done) & wait", alive.display());
        let began = Instant::now();
        let late = sh().run(&["-c", &script], &[], Duration::from_secs(1)).await;
        assert!(matches!(late, Err(RunError::Late { .. })), "{late:?}");
        assert!(began.elapsed() < Duration::from_secs(20), "the child held the output open");
        let deadline = Instant::now() + LONG;
        loop {
            let before = std::fs::read(&alive).unwrap();
            tokio::time::sleep(Duration::from_millis(500)).await;
            if std::fs::read(&alive).unwrap() == before {
                break;
            }
            assert!(Instant::now() < deadline, "the child of the killed program still lives");
        }
    }

    #[tokio::test]
    async fn a_text_is_read_to_its_end_whatever_its_length() {
        let text = "x".repeat(300_000);
        let cat = Program::find("cat").unwrap();
        assert_eq!(cat.run_on(&[], &text, LONG).await.unwrap().stdout, text);
        let unread = Program::find("true").unwrap().run_on(&[], &text, LONG).await.unwrap();
        assert!(unread.is_success(), "{unread:?}");
    }

    #[tokio::test]
    async fn endless_output_is_bounded() {
        let ended = sh().run(&["-c", "head -c 1000000 /dev/zero"], &[], LONG).await.unwrap();
        assert_eq!((ended.code, ended.stdout.len()), (Some(0), KEPT));
    }

    #[test]
    fn what_is_not_installed_is_named() {
        let error = Program::find("no-such-program").unwrap_err();
        assert!(error.to_string().contains("no-such-program is not installed"), "{error}");
    }
}
