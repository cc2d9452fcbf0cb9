//! A real BMC: OpenIPMI's simulator on loopback, whose machine is a file.

use std::{
    fmt::Write as _,
    fs,
    net::UdpSocket,
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use pvc_host::power::Bmc;

/// `get PARM…` prints `parm:value`, `set PARM VALUE…` sets, and answers so many seconds later as the file `power.slow` says.
const CHASSIS: &str = r#"#!/bin/sh
power=$(dirname "$0")/power
verb=$1; shift
while [ $# -gt 0 ]; do
  case $verb-$1 in
    get-power) echo "power:$(cat "$power")";;
    get-*) echo "$1:0";;
    set-power) shift; [ -e "$power.stuck" ] || echo "$1" > "$power"; [ -e "$power.slow" ] && sleep "$(cat "$power.slow")";;
    set-*) shift;;
  esac
  shift
done
"#;

pub(crate) struct Simulator {
    dir: tempfile::TempDir,
    port: u16,
    process: Child,
}

impl Simulator {
    /// A BMC whose machine is on. Returns when it listens.
    pub(crate) fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir(at("state")).unwrap();
        fs::write(at("power"), "1\n").unwrap();
        fs::write(at("chassis"), CHASSIS).unwrap();
        fs::set_permissions(at("chassis"), fs::Permissions::from_mode(0o755)).unwrap();
        let port = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let auth = "none md2 md5 straight";
        let mut lan = format!(
            "name \"b\"\nset_working_mc 0x20\n startlan 1\n addr 127.0.0.1 {port}\n priv_limit admin\n"
        );
        for level in ["callback", "user", "operator", "admin"] {
            let _ = writeln!(lan, " allowed_auths_{level} {auth}");
        }
        let _ = write!(
            lan,
            " guid 00000000000000000000000000000001\n endlan\n chassis_control \"{}\"\n\
             user 1 true \"\" \"x\" user 10 {auth}\n user 2 true \"admin\" \"labpass\" admin 10 {auth}\n",
            at("chassis").display()
        );
        fs::write(at("lan.conf"), lan).unwrap();
        fs::write(
            at("sim.emu"),
            "mc_setbmc 0x20\nmc_add 0x20 0 no-device-sdrs 0x23 9 8 0x9f 0x1291 0xf02 persist_sdr\nmc_enable 0x20\n",
        )
        .unwrap();
        let log = fs::File::create(at("log")).unwrap();
        #[allow(
            clippy::disallowed_methods,
            reason = "a service that the test stands on, not one that the daemon runs"
        )]
        let process = Command::new("/usr/bin/ipmi_sim")
            .arg("-n")
            .arg("-c")
            .arg(at("lan.conf"))
            .arg("-f")
            .arg(at("sim.emu"))
            .arg("-s")
            .arg(at("state"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .expect("ipmi_sim is needed (package openipmi)");
        let simulator = Self { dir, port, process };
        simulator.wait();
        simulator
    }

    pub(crate) fn bmc(&self) -> Bmc {
        Bmc { host: "127.0.0.1".into(), port: self.port, user: "admin".into(), password: "labpass".into() }
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// It listens when its port is taken.
    fn wait(&self) {
        let deadline = Instant::now() + Duration::from_mins(1);
        while UdpSocket::bind(("127.0.0.1", self.port)).is_ok() {
            assert!(
                Instant::now() < deadline,
                "ipmi_sim does not listen: {}",
                fs::read_to_string(self.file("log")).unwrap()
            );
            thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Simulator {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
