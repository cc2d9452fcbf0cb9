//! A real PostgreSQL server, private to one test: its data, its socket and its log are in a temporary folder, and it listens on no network.
//! Needs the package postgresql, and is run as the user `postgres` because the server refuses root.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

/// Where Debian keeps the server's programs, by release.
const RELEASES: [&str; 2] = ["/usr/lib/postgresql/15/bin", "/usr/lib/postgresql/17/bin"];

/// The user, database and password of the test.
pub const NAMES: (&str, &str, &str) = ("pvcdns", "pvcdns", "a s3cret = 4");

/// A private server. Dropping it ends it and removes its folder.
pub struct PostgresProcess {
    folder: PathBuf,
    server: Option<Child>,
}

impl PostgresProcess {
    /// Starts one with an empty database.
    pub fn start() -> io::Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("pvc-postgres-{}-{number}", std::process::id()));
        fs::create_dir(&folder)?;
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o777))?;
        let mut this = Self { folder, server: None };
        let (user, database, password) = NAMES;
        let words = this.folder.join("password");
        fs::write(&words, password)?;
        let data = this.folder.join("data");
        let made = as_postgres("initdb")?
            .args(["--no-sync", "--auth=scram-sha-256", "--username", user, "--pwfile"])
            .arg(&words)
            .arg(&data)
            .output()?;
        if !made.status.success() {
            return Err(io::Error::other(String::from_utf8_lossy(&made.stderr).into_owned()));
        }
        this.launch()?;
        let made = as_postgres("createdb")?
            .env("PGPASSWORD", password)
            .args(["--username", user, "--host"])
            .arg(&this.folder)
            .arg(database)
            .output()?;
        if !made.status.success() {
            return Err(io::Error::other(String::from_utf8_lossy(&made.stderr).into_owned()));
        }
        Ok(this)
    }

    /// The folder of its socket, which is what clients take for its host.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Starts the server (again) and waits until it lets somebody in.
    pub fn launch(&mut self) -> io::Result<()> {
        let log = fs::File::create(self.folder.join("log"))?;
        let server = as_postgres("postgres")?
            .arg("-D")
            .arg(self.folder.join("data"))
            .args(["-c", "listen_addresses=", "-c", "fsync=off", "-c"])
            .arg(format!("unix_socket_directories={}", self.folder.display()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()?;
        self.server = Some(server);
        let deadline = Instant::now() + Duration::from_mins(1);
        loop {
            let mut ready = as_postgres("pg_isready")?;
            if ready.arg("--quiet").arg("--host").arg(&self.folder).status()?.success() {
                return Ok(());
            }
            if Instant::now() > deadline {
                let log = fs::read_to_string(self.folder.join("log")).unwrap_or_default();
                return Err(io::Error::other(format!("PostgreSQL did not come up; its log:\n{log}")));
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Kills the server as a power cut would.
    pub fn kill(&mut self) {
        if let Some(mut server) = self.server.take() {
            let _ = server.kill();
            let _ = server.wait();
            // Its children notice, and hold the memory that they share until then.
            let socket = self.folder.join(".s.PGSQL.5432");
            let deadline = Instant::now() + Duration::from_secs(10);
            while std::os::unix::net::UnixStream::connect(&socket).is_ok() && Instant::now() < deadline {
                thread::sleep(Duration::from_millis(10));
            }
        }
    }

    /// What a statement answers, as text.
    pub fn sql(&self, statement: &str) -> io::Result<String> {
        let (user, database, password) = NAMES;
        let mut psql = as_postgres("psql")?;
        psql.env("PGPASSWORD", password).arg("--host").arg(&self.folder);
        psql.args([
            "--username",
            user,
            "--dbname",
            database,
            "-qAt",
            "-v",
            "ON_ERROR_STOP=1",
            "-c",
            statement,
        ]);
        let said = psql.output()?;
        if !said.status.success() {
            return Err(io::Error::other(String::from_utf8_lossy(&said.stderr).into_owned()));
        }
        Ok(String::from_utf8_lossy(&said.stdout).trim().to_owned())
    }
}

impl Drop for PostgresProcess {
    fn drop(&mut self) {
        self.kill();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// A program of the server's, which ends with this process.
#[allow(clippy::disallowed_methods, reason = "tests need a server; the daemon starts no programs here")]
fn as_postgres(program: &str) -> io::Result<Command> {
    let folder = RELEASES.iter().map(Path::new).find(|folder| folder.join(program).is_file());
    let folder = folder.ok_or_else(|| io::Error::other("PostgreSQL is not installed: package postgresql"))?;
    let mut command = Command::new("/usr/bin/setpriv");
    if rustix::process::geteuid().is_root() {
        command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]);
    }
    command.args(["--pdeathsig=KILL", "--"]).arg(folder.join(program)).current_dir("/");
    Ok(command)
}
