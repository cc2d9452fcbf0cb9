//! A real libvirtd with real QEMU, private to one test or benchmark.
//!
//! It never touches the machine's own libvirt: configuration, state and sockets are a temporary folder, bound over
//! libvirt's paths in a mount namespace; network and process namespaces are its own too. The first process in there is
//! a shell that obeys our pipe; when that closes, however this process ended, the kernel ends everything inside. Needs
//! root, libvirt-daemon-system, libvirt-clients and qemu-system-x86.

pub mod ceph;
pub mod postgres;

use std::{
    fs, io,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// Binds our folder over libvirt's paths, then obeys: each line is a command, each is answered by `done <status>`.
/// Bash, because process 1 has to reap QEMUs while it waits: libvirt takes a zombie for a process that will not end.
const SUPERVISE: &str = r#"
mount -t tmpfs tmpfs /run && mkdir /run/libvirt /run/lock || exit 1
for pair in etc:/etc/libvirt lib:/var/lib/libvirt run:/run/libvirt log:/var/log/libvirt cache:/var/cache/libvirt; do
  mount --bind "$1/${pair%%:*}" "${pair#*:}" || exit 1
done
ip link set lo up
while read -r line; do eval "$line"; echo "done $?"; done
"#;

const LIBVIRTD_CONF: &str = r#"
unix_sock_dir = "/run/libvirt"
auth_unix_rw = "none"
listen_tls = 0
listen_tcp = 1
auth_tcp = "none"
keepalive_interval = 2
keepalive_count = 3
log_outputs = "2:file:/var/log/libvirt/libvirtd.log"
"#;

/// No cgroups and no security labels: they would be the machine's. No virtlogd: QEMU writes its files itself.
const QEMU_CONF: &str = r#"
user = "root"
group = "root"
dynamic_ownership = 0
remember_owner = 0
security_driver = "none"
stdio_handler = "file"
namespaces = []
cgroup_controllers = []
keepalive_interval = 2
keepalive_count = 3
"#;

/// The addresses of two that are connected, of a network for examples.
const ADDRESSES: [&str; 2] = ["192.0.2.1", "192.0.2.2"];

/// A private libvirtd. Dropping it ends it and its guests, and removes its folder.
pub struct LibvirtdProcess {
    folder: PathBuf,
    child: Child,
    pipe: Mutex<(ChildStdin, BufReader<ChildStdout>)>,
}

impl LibvirtdProcess {
    /// Starts one and waits until its socket is there.
    pub fn start() -> io::Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("pvc-libvirtd-{}-{number}", std::process::id()));
        for part in ["etc", "lib", "run", "log/qemu", "cache"] {
            fs::create_dir_all(folder.join(part))?;
        }
        let uuid = uuid::Uuid::new_v4();
        fs::write(folder.join("etc/libvirtd.conf"), format!("host_uuid = \"{uuid}\"\n{LIBVIRTD_CONF}"))?;
        fs::write(folder.join("etc/qemu.conf"), QEMU_CONF)?;
        #[allow(
            clippy::disallowed_methods,
            reason = "tests need a libvirtd; the daemon starts no programs here"
        )]
        let mut child = Command::new("/usr/bin/unshare")
            .args(["--mount", "--net", "--uts", "--pid", "--fork", "--kill-child=SIGKILL", "--mount-proc"])
            .args(["/bin/bash", "-c", SUPERVISE, "libvirtd-supervisor"])
            .arg(&folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(io::Error::other("the supervisor has no pipes"));
        };
        let this = Self { folder, child, pipe: Mutex::new((stdin, BufReader::new(stdout))) };
        // Two of the same name count as one host, between which nothing migrates.
        this.tell(&format!("hostname node{number}"))?;
        this.launch()?;
        Ok(this)
    }

    /// What to give to `LibvirtHypervisor::start`, or `virsh -c`.
    pub fn uri(&self) -> String {
        format!("qemu+unix:///system?socket={}", self.socket())
    }

    /// Where it keeps everything: `log/libvirtd.log`, `log/qemu/NAME.log` …
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Starts libvirtd (again) and waits until its socket accepts.
    pub fn launch(&self) -> io::Result<()> {
        self.tell(
            "libvirtd --listen --pid-file /run/libvirt/libvirtd.pid 0<&- >/dev/null 2>&1 & libvirtd=$!",
        )?;
        let socket = self.folder.join("run/libvirt-sock");
        let deadline = Instant::now() + Duration::from_mins(1);
        while std::os::unix::net::UnixStream::connect(&socket).is_err() {
            if Instant::now() > deadline || self.tell("kill -0 $libvirtd").is_err() {
                let log = fs::read_to_string(self.folder.join("log/libvirtd.log")).unwrap_or_default();
                return Err(io::Error::other(format!("libvirtd did not come up; its log:\n{log}")));
            }
            thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// Kills libvirtd, as a crash does; guests go on. Returns when it is gone.
    pub fn kill(&self) -> io::Result<()> {
        self.tell("{ kill -KILL $libvirtd; wait $libvirtd; [ $? = 137 ]; } 2>/dev/null")
    }

    /// Stops libvirtd from running, as a machine in trouble does, until `thaw`.
    pub fn freeze(&self) -> io::Result<()> {
        self.tell("kill -STOP $libvirtd")
    }

    /// Lets a frozen libvirtd go on.
    pub fn thaw(&self) -> io::Result<()> {
        self.tell("kill -CONT $libvirtd")
    }

    /// Sends a signal (`KILL`, `STOP`, `CONT`) to the QEMU of the domain called `name`.
    pub fn signal_guest(&self, name: &str, signal: &str) -> io::Result<()> {
        self.tell(&format!("kill -{signal} $(cat /run/libvirt/qemu/{name}.pid)"))
    }

    /// What an operator does behind our back: `suspend NAME`, `destroy NAME` …
    pub fn virsh(&self, command: &str) -> io::Result<()> {
        self.tell(&format!("virsh -q -c qemu:///system {command} >/dev/null"))
    }

    /// The same, an error unless what it prints contains `words`.
    pub fn virsh_says(&self, command: &str, words: &str) -> io::Result<()> {
        self.tell(&format!("virsh -q -c qemu:///system {command} | grep -q '{words}'"))
    }

    /// Starts two that reach each other, and nobody else, by TCP; answers each with its address.
    pub fn start_two() -> io::Result<[(Self, &'static str); 2]> {
        let two = [Self::start()?, Self::start()?];
        let [first, second] = two.each_ref().map(|one| one.child.id().to_string());
        #[allow(clippy::disallowed_methods, reason = "tests need namespaces")]
        let status = Command::new("/usr/bin/nsenter")
            .args([&format!("--net=/proc/{first}/ns/net"), "ip", "link", "add", "pvc0", "type", "veth"])
            .args(["peer", "name", "pvc0", "netns", &second])
            .status()?;
        if !status.success() {
            return Err(io::Error::other("the private libvirtds could not be connected"));
        }
        for (one, address) in two.iter().zip(ADDRESSES) {
            one.tell(&format!("ip address add {address}/24 dev pvc0 && ip link set pvc0 up"))?;
        }
        let [first, second] = two;
        Ok([(first, ADDRESSES[0]), (second, ADDRESSES[1])])
    }

    /// What the [`counting_guest`] called `name` has counted here.
    pub fn console(&self, name: &str) -> String {
        fs::read_to_string(self.folder.join(format!("log/qemu/{name}.console"))).unwrap_or_default()
    }

    /// Its socket, for peers on this machine.
    pub fn socket(&self) -> String {
        self.folder.join("run/libvirt-sock").display().to_string()
    }

    /// Limits how fast the domain called `name` migrates from here.
    pub fn limit_migration(&self, name: &str, mib_s: u32) -> io::Result<()> {
        self.tell(&format!("virsh -q migrate-setspeed {name} {mib_s} >/dev/null"))
    }

    fn tell(&self, command: &str) -> io::Result<()> {
        let mut pipe = self.pipe.lock().unwrap_or_else(PoisonError::into_inner);
        writeln!(pipe.0, "{command}")?;
        let mut answer = String::new();
        pipe.1.read_line(&mut answer)?;
        match answer.trim_end() {
            "done 0" => Ok(()),
            "" => Err(io::Error::other(
                "the namespaces of the private libvirtd could not be made: is this root?",
            )),
            other => {
                Err(io::Error::other(format!("{command:?} in the private libvirtd's namespaces: {other}")))
            }
        }
    }
}

impl Drop for LibvirtdProcess {
    fn drop(&mut self) {
        // An error, since there is no answer to this. The shell is process 1 in there: waiting for it is waiting for
        // the end of everything, frozen or not.
        let _ = self.tell("exit");
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// The definition of a guest that executes nothing but firmware, ignores its power button and needs 16 MiB.
pub fn tiny_guest(id: pvc_core::model::VmId, name: &str) -> String {
    format!(
        "<domain type='qemu'><name>{name}</name><uuid>{id}</uuid><memory unit='MiB'>16</memory><vcpu>1</vcpu>
<os><type arch='x86_64' machine='pc'>hvm</type></os><features><acpi/></features>
<devices><emulator>/usr/bin/qemu-system-x86_64</emulator><memballoon model='none'/></devices></domain>"
    )
}

/// The firmware of [`counting_guest`]: counts aloud on the first serial port, some ten lines a second or more, and does nothing else.
pub fn counting_firmware() -> Vec<u8> {
    // Real mode. di counts; its four hexadecimal digits and a line's end go to port 0x3f8; then a loop to pass the time.
    const PROGRAM: &[u8] = &[
        0x31, 0xff, // xor di, di
        0x47, 0xba, 0xf8, 0x03, 0x89, 0xf8, 0xb9, 0x04,
        0x00, // line: inc di; mov dx, 0x3f8; mov ax, di; mov cx, 4
        0xc1, 0xc0, 0x04, 0x88, 0xc3, 0x80, 0xe3, 0x0f, // digit: rol ax, 4; mov bl, al; and bl, 15
        0x80, 0xc3, 0x30, 0x80, 0xfb, 0x39, 0x76, 0x03, 0x80, 0xc3,
        0x07, // add bl, '0', or the letter's code
        0x86, 0xc3, 0xee, 0x86, 0xc3, 0xe2, 0xe6, // xchg al, bl; out dx, al; xchg al, bl; loop digit
        0xb0, 0x0a, 0xee, // mov al, 10; out dx, al
        0x66, 0xb9, 0x40, 0x42, 0x0f, 0x00, // mov ecx, 1000000
        0x67, 0xe2, 0xfd, // pass: loop pass
        0xeb, 0xcf, // jmp line
    ];
    firmware(PROGRAM)
}

/// A firmware that prints every letter that is typed on the first serial port in its other case, and does nothing else.
pub fn echoing_firmware() -> Vec<u8> {
    firmware(&[
        0xba, 0xfd, 0x03, 0xec, 0xa8, 0x01, 0x74,
        0xf8, // look: mov dx, 0x3fd; in al, dx; test al, 1; jz look
        0xba, 0xf8, 0x03, 0xec, 0x34, 0x20, 0xee, // mov dx, 0x3f8; in al, dx; xor al, 0x20; out dx, al
        0xeb, 0xef, // jmp look
    ])
}

/// A firmware that prints as fast as it can, and reads nothing.
pub fn flooding_firmware() -> Vec<u8> {
    // mov dx, 0x3f8; mov al, 'x'; print: out dx, al; jmp print
    firmware(&[0xba, 0xf8, 0x03, 0xb0, b'x', 0xee, 0xeb, 0xfd])
}

/// Executes this in real mode.
fn firmware(program: &[u8]) -> Vec<u8> {
    const RESET: usize = 0xfff0;
    let mut firmware = vec![0; 0x1_0000];
    firmware[..program.len()].copy_from_slice(program);
    firmware[RESET..RESET + 5].copy_from_slice(&[0xea, 0, 0, 0, 0xf0]);
    firmware
}

/// As [`tiny_guest`], with that firmware and a serial port of that type.
pub fn serial_guest(id: pvc_core::model::VmId, name: &str, firmware: &Path, serial: &str) -> String {
    tiny_guest(id, name)
        .replace("</type>", &format!("</type><loader type='rom'>{}</loader>", firmware.display()))
        .replace("</devices>", &format!("{serial}</devices>"))
}

/// As [`tiny_guest`], with `firmware`, which counts aloud into `NAME.console` among its libvirtd's guests' logs.
pub fn counting_guest(id: pvc_core::model::VmId, name: &str, firmware: &Path) -> String {
    let console = format!("/var/log/libvirt/qemu/{name}.console");
    let serial = format!("<serial type='file'><source path='{console}' append='on'/></serial>");
    serial_guest(id, name, firmware, &serial)
}

/// As [`tiny_guest`], with `contents` in its memory, so that there is something to migrate.
pub fn full_guest(id: pvc_core::model::VmId, name: &str, contents: &Path) -> String {
    let load = format!("loader,file={},addr=0x100000,force-raw=on", contents.display());
    tiny_guest(id, name)
        .replace("<domain type='qemu'>", "<domain type='qemu' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>")
        .replace("<memory unit='MiB'>16", "<memory unit='MiB'>48")
        .replace(
            "</domain>",
            &format!("<qemu:commandline><qemu:arg value='-device'/><qemu:arg value='{load}'/></qemu:commandline></domain>"),
        )
}
