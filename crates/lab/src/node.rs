//! A node of a running lab, as tests and people handle it: run something on it, pull its plug, ask its BMC.
//! Keeps no state: what is true is asked from the capsule and the kernel each time.

use std::{
    fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};

use crate::{
    devices::control::Behaviour,
    devices::control::{Machine, Request, ask},
    layout::{BMC_PASSWORD, BMC_USER, Layout, Net, NodeNumber},
    machine::boot::find_init,
    machine::network::in_network,
    program::{Output, command, output, wait_until},
};

/// What the capsule may take for one request; a power cycle takes a third of a second on an idle machine.
pub(crate) const REQUEST_DEADLINE: Duration = Duration::from_mins(1);

/// One node. Cheap to clone, usable from any thread, valid as long as the lab is up.
#[derive(Clone, Debug)]
pub struct Node {
    pub(crate) layout: Layout,
    pub(crate) number: NodeNumber,
}

impl Node {
    /// Its host name, `node1` and so on.
    pub fn name(&self) -> String {
        self.number.to_string()
    }

    /// Its number.
    pub fn number(&self) -> NodeNumber {
        self.number
    }

    /// Its address on the cluster network.
    pub fn address(&self) -> Ipv4Addr {
        self.number.address(Net::Cluster)
    }

    /// Runs a program on the node, as root, with `PVC_ZOOKEEPER` set. Its output, whatever its exit code; an error if
    /// the node is off or `deadline` passes first.
    pub fn exec(&self, program: &[&str], deadline: Duration) -> Result<Output> {
        self.exec_with_input(program, b"", deadline)
    }

    /// The same, with `input` as the program's standard input.
    pub fn exec_with_input(&self, program: &[&str], input: &[u8], deadline: Duration) -> Result<Output> {
        let mut enter = command(self.layout.program());
        enter.args(["internal", "enter", &self.layout.name().to_string(), &self.name(), "--"]).args(program);
        let mut seen = output(enter, input, deadline)?;
        seen.command = format!("{}: {}", self.number, program.join(" "));
        Ok(seen)
    }

    /// Runs `act` on a thread of its own in a network namespace that `ip netns` has made on the node.
    pub fn in_network<T: Send>(&self, name: &str, act: impl FnOnce() -> T + Send) -> Result<T> {
        let (init, _) = find_init(&self.layout, self.number)?;
        in_network(Path::new(&format!("/proc/{init}/root/run/netns/{name}")), act)
    }

    /// Runs a program that must exit with 0; its standard output.
    pub fn run(&self, program: &[&str], deadline: Duration) -> Result<String> {
        self.exec(program, deadline)?.ok()
    }

    /// Writes a file on the node.
    pub fn write_file(&self, path: &str, content: &[u8]) -> Result<()> {
        self.exec_with_input(&["/usr/bin/tee", path], content, REQUEST_DEADLINE)?.ok()?;
        Ok(())
    }

    /// Reads a file of the node.
    pub fn read_file(&self, path: &str) -> Result<String> {
        self.run(&["/bin/cat", path], REQUEST_DEADLINE)
    }

    /// Whether systemd says that `unit` is active on the node.
    pub fn is_active(&self, unit: &str) -> bool {
        self.exec(&["/bin/systemctl", "is-active", "--quiet", unit], Duration::from_secs(10))
            .is_ok_and(|o| o.success())
    }

    /// Waits until systemd says that `unit` is active, which for a notifying service means ready.
    pub fn wait_active(&self, unit: &str, deadline: Duration) -> Result<()> {
        wait_until(&format!("{unit} on {}", self.number), deadline, || self.is_active(unit)).map_err(|late| {
            let about = self
                .exec(
                    &["/bin/systemctl", "status", "--no-pager", "--lines=30", unit],
                    Duration::from_secs(10),
                )
                .map_or_else(|e| format!("{e:#}"), |seen| seen.stdout);
            late.context(about)
        })
    }

    /// Waits until libvirtd answers on the node.
    pub fn wait_libvirt(&self, deadline: Duration) -> Result<()> {
        wait_until(&format!("libvirtd on {}", self.number), deadline, || {
            self.exec(&["/usr/bin/virsh", "-q", "list"], Duration::from_secs(10)).is_ok_and(|o| o.success())
        })
    }

    /// The running kernel's boot id: a new one proves that the node was really gone.
    pub fn boot_id(&self) -> Result<String> {
        Ok(self.read_file("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
    }

    /// kill -9 of all processes of a service, at this moment: no program has to be started for it. Whether it had any.
    pub fn kill_service(&self, unit: &str) -> Result<bool> {
        find_init(&self.layout, self.number)?.1.child("system.slice").child(unit).strike()
    }

    /// Cuts its power: every process dies at once.
    pub fn kill(&self) -> Result<()> {
        self.ask(Request::PowerOff(self.number.get()))
    }

    /// Switches it on and returns without waiting for its system.
    pub fn start(&self) -> Result<()> {
        self.ask(Request::PowerOn(self.number.get()))
    }

    /// Cuts its power and switches it on again; nothing if it is off.
    pub fn reset(&self) -> Result<()> {
        self.ask(Request::Reset(self.number.get()))
    }

    /// Asks its system to shut down and returns at once.
    pub fn shut_down(&self) -> Result<()> {
        self.ask(Request::SoftOff(self.number.get()))
    }

    /// Freezes every process. Its kernel still answers pings and completes TCP handshakes: for a silent machine, also
    /// drop its frames.
    pub fn pause(&self) -> Result<()> {
        self.ask(Request::Pause(self.number.get()))
    }

    /// Thaws it.
    pub fn resume(&self) -> Result<()> {
        self.ask(Request::Resume(self.number.get()))
    }

    /// Pulls its network cables; they stay out over power cycles.
    pub fn cut(&self) -> Result<()> {
        self.ask(Request::Cut(self.number.get()))
    }

    /// Plugs them in again.
    pub fn heal(&self) -> Result<()> {
        self.ask(Request::Heal(self.number.get()))
    }

    /// Pulls the cable of its BMC.
    pub fn cut_bmc(&self) -> Result<()> {
        self.ask(Request::CutBmc(self.number.get()))
    }

    /// Plugs it in again.
    pub fn heal_bmc(&self) -> Result<()> {
        self.ask(Request::HealBmc(self.number.get()))
    }

    /// Makes its BMC behave so from now on.
    pub fn set_bmc(&self, behaviour: Behaviour) -> Result<()> {
        self.ask(Request::SetBmc(self.number.get(), behaviour))
    }

    /// How it looks from outside.
    pub fn machine(&self) -> Result<Machine> {
        let machines = ask(&self.layout.control(), Request::Status, REQUEST_DEADLINE)?;
        machines
            .nodes
            .get(&self.number.get())
            .copied()
            .with_context(|| format!("this lab has no {}", self.number))
    }

    /// Runs ipmitool with these arguments, for example `chassis power status`, against the node's BMC. A packet that is lost, as the
    /// first ones are after a cable was plugged in, is sent again.
    pub fn ipmi(&self, arguments: &[&str], deadline: Duration) -> Result<Output> {
        let address = self.number.bmc_address().to_string();
        let mut program: Vec<&str> =
            vec!["/usr/bin/ipmitool", "-I", "lanplus", "-C", "3", "-N", "3", "-R", "4"];
        program.extend(["-H", &address, "-U", BMC_USER, "-P", BMC_PASSWORD]);
        program.extend(arguments);
        exec_in_switch(&self.layout, &program, deadline)
    }

    /// What it wrote on its console, over all its power cycles.
    pub fn console(&self) -> String {
        fs::read(self.layout.node_console(self.number))
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// What the guest called `vm` wrote on its serial console while it ran on this node; also when the node is off. Read from
    /// outside: it disturbs nobody, however often it is asked.
    pub fn guest_console(&self, vm: &str) -> String {
        let file = format!("var/log/libvirt/{vm}.log");
        let bytes = self.roots().find_map(|root| fs::read(root.join(&file)).ok()).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Where its files are, best first: as it sees them if it is on, since another disk may be mounted there; and its disk.
    pub(crate) fn roots(&self) -> impl Iterator<Item = PathBuf> + use<> {
        let mounted = find_init(&self.layout, self.number)
            .map(|(init, _)| Path::new("/proc").join(format!("{init}/root")));
        mounted.into_iter().chain([self.layout.node_disk(self.number)])
    }

    fn ask(&self, request: Request) -> Result<()> {
        ask(&self.layout.control(), request, REQUEST_DEADLINE)?;
        Ok(())
    }
}

pub(crate) fn exec_in_switch(layout: &Layout, program: &[&str], deadline: Duration) -> Result<Output> {
    let mut enter = command(layout.program());
    enter.args(["internal", "enter", &layout.name().to_string(), "switch", "--"]).args(program);
    let mut seen = output(enter, b"", deadline)?;
    seen.command = format!("switch: {}", program.join(" "));
    Ok(seen)
}
