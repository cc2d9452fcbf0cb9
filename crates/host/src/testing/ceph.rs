//! A real Ceph cluster, private to one test: a monitor, a manager and three OSDs that keep everything in memory, with cephx, on loopback.
//! Needs the packages ceph-mon, ceph-mgr, ceph-osd and ceph-common. It ends with this process.

use std::{
    fmt::Write as _,
    fs, io,
    io::{BufRead as _, BufReader, Write as _},
    net::{Ipv4Addr, SocketAddrV4, TcpListener},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use pvc_core::model::ceph::ImageName;

/// The pool that there is.
pub const POOL: &str = "vms";

const OSDS: usize = 3;
const PATIENCE: Duration = Duration::from_mins(2);

/// A private cluster. Dropping it ends it and removes its folder.
pub struct CephCluster {
    folder: PathBuf,
    /// OSDs first: they tell a monitor that they leave.
    daemons: Vec<Child>,
}

impl CephCluster {
    /// Starts one with an empty pool, and waits until that can be written to.
    pub fn start() -> io::Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("pvc-ceph-{}-{number}", std::process::id()));
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        Self::start_at(folder, SocketAddrV4::new(Ipv4Addr::LOCALHOST, port))
    }

    /// The same in this folder, which must not exist, on this address of this machine, with its monitor at that port.
    pub fn start_at(folder: PathBuf, monitor: SocketAddrV4) -> io::Result<Self> {
        fs::create_dir(&folder)?;
        let mut this = Self { folder, daemons: Vec::new() };
        this.configure(monitor)?;
        this.make_monitor()?;
        let monitor = this.daemon("ceph-mon", "a", None)?;
        this.daemons.push(monitor);
        let manager = this.daemon("ceph-mgr", "x", Some("mgr/x/keyring"))?;
        this.daemons.push(manager);
        for id in 0..OSDS {
            let osd = this.make_osd(id)?;
            this.daemons.insert(id, osd);
        }
        this.wait_until("osd stat", &format!("{OSDS} osds: {OSDS} up"))?;
        this.ceph(&["osd", "pool", "create", POOL, "8"])?;
        this.run("rbd", &["pool", "init", POOL])?;
        Ok(this)
    }

    /// The configuration, for its clients.
    pub fn configuration(&self) -> String {
        self.folder.join("ceph.conf").display().to_string()
    }

    /// Makes an image that is all zeros, of 4 MiB.
    pub fn create(&self, image: &str) -> io::Result<()> {
        self.run("rbd", &["create", "--size", "4M", &format!("{POOL}/{image}")]).map(drop)
    }

    /// Makes a user, `client.NAME`, with these capabilities (`mon`, `allow r` …).
    pub fn user(&self, name: &str, capabilities: &[&str]) -> io::Result<()> {
        let (user, file) =
            (format!("client.{name}"), self.folder.join(format!("ceph.client.{name}.keyring")));
        let file = file.display().to_string();
        let words = [["auth", "get-or-create", &user].as_slice(), capabilities, &["-o", &file]].concat();
        self.ceph(&words).map(drop)
    }

    /// The first byte that an image holds.
    pub fn contents(&self, image: &ImageName) -> io::Result<u8> {
        let data = self.run("rbd", &["export", "--no-progress", &image.to_string(), "-"])?;
        data.first().copied().ok_or_else(|| io::Error::other("the image is empty"))
    }

    /// Opens an image for writing, with QEMU's own driver.
    pub fn open(&self, image: &ImageName) -> io::Result<QemuWriter> {
        let file = format!("rbd:{image}:id=admin:conf={}", self.configuration());
        let mut child = self
            .program("/usr/bin/qemu-io")
            .args(["-n", "-f", "raw", &file])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(io::Error::other("qemu-io has no pipes"));
        };
        Ok(QemuWriter { child, pipe: (stdin, BufReader::new(stdout)) })
    }

    /// Stops the monitor from executing, as a machine in trouble does, until `thaw_monitor`.
    pub fn freeze_monitor(&self) -> io::Result<()> {
        self.signal_monitor(rustix::process::Signal::STOP)
    }

    /// Lets it go on.
    pub fn thaw_monitor(&self) -> io::Result<()> {
        self.signal_monitor(rustix::process::Signal::CONT)
    }

    fn signal_monitor(&self, signal: rustix::process::Signal) -> io::Result<()> {
        let monitor = self.daemons.get(OSDS).ok_or_else(|| io::Error::other("there is no monitor"))?;
        Ok(rustix::process::kill_process(rustix::process::Pid::from_child(monitor), signal)?)
    }

    /// What Ceph's own program answers.
    pub fn ceph(&self, words: &[&str]) -> io::Result<String> {
        let said = self.run("ceph", &[&["--connect-timeout", "60"], words].concat())?;
        Ok(String::from_utf8_lossy(&said).into_owned())
    }

    /// What Ceph's program for objects answers.
    pub fn rados(&self, words: &[&str]) -> io::Result<String> {
        Ok(String::from_utf8_lossy(&self.run("rados", words)?).into_owned())
    }

    /// What Ceph's program for images answers.
    pub fn rbd(&self, words: &[&str]) -> io::Result<String> {
        Ok(String::from_utf8_lossy(&self.run("rbd", words)?).into_owned())
    }

    fn configure(&self, monitor: SocketAddrV4) -> io::Result<()> {
        let (folder, fsid) = (self.folder.display(), uuid::Uuid::new_v4());
        let mut text = String::new();
        for line in SETTINGS.lines() {
            let _ = writeln!(
                text,
                "{}",
                line.replace("FOLDER", &folder.to_string())
                    .replace("FSID", &fsid.to_string())
                    .replace("MONITOR", &monitor.to_string())
                    .replace("ADDRESS", &monitor.ip().to_string())
            );
        }
        fs::write(self.folder.join("ceph.conf"), text)?;
        let admin = ["mon", "allow *", "osd", "allow *", "mgr", "allow *"];
        self.key("ceph.client.admin.keyring", "client.admin", &admin)?;
        self.key("mon.keyring", "mon.", &["mon", "allow *"])?;
        fs::create_dir_all(self.folder.join("mgr/x"))?;
        self.key("mgr/x/keyring", "mgr.x", &["mon", "allow profile mgr", "osd", "allow *"])?;
        let mut keyrings = vec!["ceph.client.admin.keyring".to_owned(), "mgr/x/keyring".to_owned()];
        for id in 0..OSDS {
            fs::create_dir_all(self.folder.join(format!("osd/{id}")))?;
            let keyring = format!("osd/{id}/keyring");
            let may = ["mon", "allow profile osd", "mgr", "allow profile osd", "osd", "allow *"];
            self.key(&keyring, &format!("osd.{id}"), &may)?;
            keyrings.push(keyring);
        }
        for keyring in keyrings {
            let (to, from) = (self.folder.join("mon.keyring"), self.folder.join(keyring));
            self.run("ceph-authtool", &[&path(&to), "--import-keyring", &path(&from)])?;
        }
        let address = format!("[v2:{monitor}]");
        let map = path(&self.folder.join("monmap"));
        let words = ["--create", "--clobber", "--fsid", &fsid.to_string(), "--addv", "a", &address, &map];
        self.run("monmaptool", &words).map(drop)
    }

    fn key(&self, file: &str, name: &str, capabilities: &[&str]) -> io::Result<()> {
        let file = path(&self.folder.join(file));
        let mut words = vec!["--create-keyring", &file, "--gen-key", "-n", name];
        for pair in capabilities.chunks(2) {
            words.push("--cap");
            words.extend(pair);
        }
        self.run("ceph-authtool", &words).map(drop)
    }

    fn make_monitor(&self) -> io::Result<()> {
        fs::create_dir(self.folder.join("mon"))?;
        let (map, keyring) = (path(&self.folder.join("monmap")), path(&self.folder.join("mon.keyring")));
        let words = ["--mkfs", "-i", "a", "--monmap", &map, "--keyring", &keyring];
        self.run("ceph-mon", &words).map(drop)
    }

    fn make_osd(&self, id: usize) -> io::Result<Child> {
        let (uuid, number) = (uuid::Uuid::new_v4().to_string(), id.to_string());
        self.ceph(&["osd", "new", &uuid, &number])?;
        let keyring = format!("osd/{id}/keyring");
        let made = path(&self.folder.join(&keyring));
        self.run("ceph-osd", &["-i", &number, "--mkfs", "--osd-uuid", &uuid, "--keyring", &made])?;
        self.daemon("ceph-osd", &number, Some(&keyring))
    }

    fn daemon(&self, program: &str, id: &str, keyring: Option<&str>) -> io::Result<Child> {
        let log = fs::File::create(self.folder.join(format!("{program}.{id}.log")))?;
        let mut command = self.program(&format!("/usr/bin/{program}"));
        command.args(["-c", &self.configuration(), "-f", "-i", id]);
        if let Some(keyring) = keyring {
            command.arg("--keyring").arg(self.folder.join(keyring));
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn()
    }

    fn wait_until(&self, question: &str, words: &str) -> io::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let said = self.ceph(&question.split(' ').collect::<Vec<_>>())?;
            if said.contains(words) {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(io::Error::other(format!("Ceph never said {words:?}, but {said:?}")));
            }
            thread::sleep(Duration::from_millis(50));
        }
    }

    fn run(&self, program: &str, words: &[&str]) -> io::Result<Vec<u8>> {
        let mut command = self.program(&format!("/usr/bin/{program}"));
        if !matches!(program, "ceph-authtool" | "monmaptool") {
            command.args(["-c", &self.configuration()]);
        }
        let said = command.args(words).output()?;
        if !said.status.success() {
            let why = String::from_utf8_lossy(&said.stderr).into_owned();
            return Err(io::Error::other(format!("{program} {words:?}: {why}")));
        }
        Ok(said.stdout)
    }

    /// A program that ends with this process.
    #[allow(clippy::disallowed_methods, reason = "tests need a cluster; the daemon starts no programs here")]
    fn program(&self, path: &str) -> Command {
        let mut command = Command::new("/usr/bin/setpriv");
        command.args(["--pdeathsig=KILL", "--", path]).current_dir(&self.folder);
        command
    }
}

impl Drop for CephCluster {
    fn drop(&mut self) {
        // A test's process ends next.
        crate::ceph::all_have_left(Duration::from_secs(10));
        // Nothing of it is kept: there is nobody to be told that they leave.
        for daemon in &mut self.daemons {
            let _ = daemon.kill();
        }
        for daemon in &mut self.daemons {
            let _ = daemon.wait();
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// QEMU's rbd driver, without a guest, with an image open for writing and without a cache.
pub struct QemuWriter {
    child: Child,
    pipe: (ChildStdin, BufReader<ChildStdout>),
}

impl QemuWriter {
    /// Begins to fill the first block with `byte`.
    pub fn begin(&mut self, byte: u8) -> io::Result<()> {
        writeln!(self.pipe.0, "write -P {byte} 0 4096")?;
        self.pipe.0.flush()
    }

    /// Whether that succeeded, once it is known.
    pub fn end(&mut self) -> io::Result<bool> {
        loop {
            let mut line = String::new();
            if self.pipe.1.read_line(&mut line)? == 0 {
                return Err(io::Error::other("qemu-io has ended"));
            }
            if line.contains("wrote 4096") || line.contains("failed") {
                return Ok(line.contains("wrote 4096"));
            }
        }
    }

    /// Closes the image, as a VM does that ends in order.
    pub fn close(mut self) -> io::Result<()> {
        writeln!(self.pipe.0, "quit")?;
        self.pipe.0.flush()?;
        self.child.wait().map(drop)
    }

    /// Stops it from executing.
    pub fn freeze(&self) -> io::Result<()> {
        Ok(rustix::process::kill_process(self.pid(), rustix::process::Signal::STOP)?)
    }

    /// Lets it go on where it stopped.
    pub fn thaw(&self) -> io::Result<()> {
        Ok(rustix::process::kill_process(self.pid(), rustix::process::Signal::CONT)?)
    }

    fn pid(&self) -> rustix::process::Pid {
        rustix::process::Pid::from_child(&self.child)
    }
}

impl Drop for QemuWriter {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn path(path: &Path) -> String {
    path.display().to_string()
}

/// Small, quick, and without anything of this machine.
const SETTINGS: &str = "[global]
fsid = FSID
mon_initial_members = a
mon_host = [v2:MONITOR]
ms_bind_msgr1 = false
public_addr = ADDRESS
cluster_addr = ADDRESS
auth_cluster_required = cephx
auth_service_required = cephx
auth_client_required = cephx
auth_allow_insecure_global_id_reclaim = false
keyring = FOLDER/$cluster.$name.keyring
run_dir = FOLDER
admin_socket =
pid_file =
log_file =
crash_dir = FOLDER
mon_cluster_log_file = FOLDER/cluster.log
osd_pool_default_size = 3
osd_pool_default_min_size = 2
osd_pool_default_pg_autoscale_mode = off
osd_crush_chooseleaf_type = 0
mon_allow_pool_delete = true
mon_max_pg_per_osd = 500
ms_async_op_threads = 1
[mon]
mon_data = FOLDER/mon/$id
keyring = FOLDER/mon/$id/keyring
mon_data_avail_warn = 2
mon_data_avail_crit = 1
mon_memory_autotune = false
mon_osd_cache_size_min = 8388608
rocksdb_cache_size = 8388608
paxos_propose_interval = 0.1
mon_mgr_digest_period = 1
mon_tick_interval = 1
mon_election_timeout = 1
mon_lease = 2
mon_pg_warn_min_per_osd = 0
[mgr]
mgr_data = FOLDER/mgr/$id
mgr_initial_modules = iostat
mgr_disabled_modules = alerts influx insights localpool mirroring nfs osd_perf_query osd_support prometheus restful selftest snap_schedule stats telegraf test_orchestrator zabbix
mgr_tick_period = 1
mgr_stats_period = 1
[osd]
osd_data = FOLDER/osd/$id
osd_objectstore = memstore
memstore_device_bytes = 268435456
osd_memory_target = 402653184
osd_op_num_shards = 1
osd_op_num_threads_per_shard = 2
osd_class_update_on_start = false
osd_heartbeat_interval = 2
osd_heartbeat_grace = 8
osd_mclock_force_run_benchmark_on_init = false
";
