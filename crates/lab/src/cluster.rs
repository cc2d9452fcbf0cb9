//! A lab whose daemons run, as tests and benchmarks handle it: desired states go through `pvc`, as an operator's do; what became of
//! them is judged by observers that ask neither pvcd nor libvirt.
//! Decides nothing about right or wrong, except that a VM never runs twice.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::{
    guest::{Beat, beating_guest_xml},
    lab::Lab,
    layout::Net,
    node::Node,
    observers::processes::Processes,
    options::LabOptions,
    program::wait_until,
};

/// Guests boot without hardware virtualisation, perhaps beside another lab.
pub const PATIENCE: Duration = Duration::from_mins(3);
const MEMORY_MIB: u32 = 96;

/// A VM to be run in a lab.
#[derive(Clone, Debug)]
pub struct Vm {
    /// Its name.
    pub name: String,
    /// Its UUID.
    pub uuid: String,
}

impl Vm {
    /// One of 256.
    pub fn number(n: u8) -> Self {
        Self { name: format!("vm{n}"), uuid: format!("4a000000-0000-4000-8000-0000000000{n:02x}") }
    }

    /// What it has counted on `node`, in the order in which it was printed.
    pub fn beats(&self, node: &Node) -> Vec<Beat> {
        Beat::all(&node.guest_console(&self.name))
    }
}

/// A lab with `pvcd` on every node.
pub struct Cluster {
    /// The lab.
    pub lab: Lab,
    /// All QEMU processes since it came up.
    pub processes: Processes,
}

impl Cluster {
    /// Brings it up; returns when every node's daemon is in `run` and takes VMs, which a new node does only when it is told to.
    pub fn up(options: LabOptions) -> Result<Self> {
        let lab = Lab::up(options)?;
        let processes = Processes::record(&lab)?;
        let cluster = Self { lab, processes };
        cluster.pvc(&["init"])?;
        for node in cluster.lab.nodes() {
            cluster.wait_node(&node.name(), "daemon_state", "run")?;
            cluster.pvc(&["node", "ready", "--wait", &node.name()])?;
        }
        Ok(cluster)
    }

    /// The node called `name`. Panics if there is none.
    pub fn node(&self, name: &str) -> Node {
        self.lab.node(name)
    }

    /// Runs `pvc` beside the nodes, so that it does not matter which of them are alive. What it printed.
    pub fn pvc(&self, arguments: &[&str]) -> Result<String> {
        let pvc = self.lab.layout().binaries().join("pvc").to_string_lossy().into_owned();
        let servers = self.lab.zk_connect_string();
        let mut program = vec![pvc.as_str(), "-z", &servers];
        program.extend(arguments);
        self.lab.exec_in_switch(&program, PATIENCE)?.ok()
    }

    /// What a command of `pvc` says, or why it says nothing: for the reports of failed tests.
    fn told(&self, arguments: &[&str]) -> String {
        self.pvc(arguments).unwrap_or_else(|e| format!("{e:#}"))
    }

    /// Null if the command fails, as it does while ZooKeeper elects.
    fn json(&self, arguments: &[&str]) -> Value {
        let arguments = [&["--format", "json"], arguments].concat();
        self.pvc(&arguments).ok().and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default()
    }

    /// `pvc vm info` in JSON.
    pub fn vm(&self, vm: &Vm) -> Value {
        self.json(&["vm", "info", &vm.name])
    }

    /// The node that a VM belongs to.
    pub fn home(&self, vm: &Vm) -> Result<String> {
        let seen = self.vm(vm);
        Ok(seen["node"].as_str().with_context(|| format!("{} has no node: {seen:#}", vm.name))?.to_owned())
    }

    /// `pvc node info` in JSON.
    pub fn node_info(&self, node: &str) -> Value {
        self.json(&["node", "info", node])
    }

    /// Waits until a field of [`Cluster::node_info`] has this value.
    pub fn wait_node(&self, node: &str, field: &str, value: &str) -> Result<()> {
        wait_until(&format!("{field} of {node} to be {value}"), PATIENCE, || {
            self.node_info(node)[field] == value
        })
        .with_context(|| self.told(&["node", "explain", node]))
    }

    /// Waits until the tree says that the VM is settled on `node` and nowhere else.
    pub fn wait_settled(&self, vm: &Vm, node: &str) -> Result<Value> {
        let mut seen = Value::Null;
        let settled = wait_until(&format!("{} to be settled on {node}", vm.name), PATIENCE, || {
            seen = self.vm(vm);
            let only = |field: &str| seen[field] == Value::from(vec![node]);
            seen["state"] == "start" && seen["node"] == node && only("claim") && only("running_on")
        });
        settled.with_context(|| format!("{seen:#}\n{}", self.told(&["vm", "explain", &vm.name])))?;
        Ok(seen)
    }

    /// Defines a VM on a node and has it started; waits for nothing.
    pub fn define_and_start(&self, vm: &Vm, node: &str, xml: &str) -> Result<()> {
        let path = self.lab.layout().state().join(format!("{}.xml", vm.name));
        std::fs::write(&path, xml)?;
        self.pvc(&["vm", "define", "-t", node, &path.to_string_lossy()])?;
        self.pvc(&["vm", "start", "--no-wait", &vm.name]).map(drop)
    }

    /// Defines VMs on a node and starts them; returns when each of them counts.
    pub fn start_vms(&self, vms: &[Vm], node: &str) -> Result<()> {
        for vm in vms {
            self.define_and_start(vm, node, &beating_guest_xml(&vm.name, &vm.uuid, MEMORY_MIB))?;
        }
        vms.iter().try_for_each(|vm| self.wait_counting(node, vm))
    }

    /// The guest's life on `node`, once it counts there.
    pub fn life(&self, node: &str, vm: &Vm) -> Result<String> {
        let on = self.node(node);
        let mut last = None;
        wait_until(&format!("{} to count on {node}", vm.name), PATIENCE, || {
            last = vm.beats(&on).pop();
            last.is_some()
        })?;
        Ok(last.context("it does not count")?.life)
    }

    /// Waits until the guest counts further on `node`.
    pub fn wait_counting(&self, node: &str, vm: &Vm) -> Result<()> {
        let on = self.node(node);
        let before = vm.beats(&on).len();
        wait_until(&format!("{} to count on {node}", vm.name), PATIENCE, || vm.beats(&on).len() > before)
            .with_context(|| self.told(&["vm", "explain", &vm.name]))
    }

    /// Waits until processes of all these VMs are on nodes other than `dead`; when the last of them had begun.
    pub fn wait_elsewhere(&self, vms: &[Vm], dead: &str) -> Result<Instant> {
        let elsewhere = |vm: &Vm| {
            let runs = self.processes.of(&vm.uuid);
            runs.into_iter().find(|run| run.node != dead && run.ended.is_none()).map(|run| run.began)
        };
        let mut began: Option<Vec<Instant>> = None;
        wait_until("the VMs to run elsewhere", PATIENCE, || {
            began = vms.iter().map(elsewhere).collect();
            began.is_some()
        })
        .with_context(|| self.told(&["node", "explain", dead]))?;
        began.and_then(|all| all.into_iter().max()).context("no VM was to be recovered")
    }

    /// An error if two processes of a VM ever were at one time. Not for migrations, of which one of the two is paused.
    pub fn check_never_twice(&self, vms: &[Vm]) -> Result<()> {
        self.check_never_twice_since(vms, None)
    }

    /// The same for processes that lived at `since` or later.
    pub fn check_never_twice_since(&self, vms: &[Vm], since: Option<Instant>) -> Result<()> {
        for vm in vms {
            let mut runs = self.processes.of(&vm.uuid);
            runs.retain(|run| run.ended.is_none() || run.ended > since);
            for (index, run) in runs.iter().enumerate() {
                let twice = runs[index + 1..].iter().any(|other| run.overlap(other) > Duration::ZERO);
                ensure!(!twice, "{} ran twice at one time: {runs:#?}", vm.name);
            }
        }
        Ok(())
    }

    /// An error if a count of the guest was printed twice: then it went on in two places.
    pub fn check_counted_once(&self, vm: &Vm) -> Result<()> {
        let mut all: Vec<_> = self.lab.nodes().iter().flat_map(|node| vm.beats(node)).collect();
        let printed = all.len();
        all.sort();
        all.dedup();
        ensure!(all.len() == printed, "{} counted {} times twice", vm.name, printed - all.len());
        Ok(())
    }

    /// The nodes that hold a floating address of `net`, as their kernels say.
    pub fn holders(&self, net: Net) -> Vec<String> {
        let addresses = net.floating().map(|address| format!(" {address}/"));
        let holds = |node: &Node| {
            node.exec(&["/sbin/ip", "-o", "addr"], Duration::from_secs(20))
                .is_ok_and(|seen| addresses.iter().any(|address| seen.stdout.contains(address)))
        };
        self.lab.nodes().into_iter().filter(holds).map(|node| node.name()).collect()
    }

    /// The primary coordinator, once there is one and it holds the addresses.
    pub fn primary(&self) -> Result<String> {
        self.primary_other_than("")
    }

    /// The same, once it is another one than `before`.
    pub fn primary_other_than(&self, before: &str) -> Result<String> {
        let mut holders = Vec::new();
        wait_until("a primary coordinator with the addresses", PATIENCE, || {
            holders = self.holders(Net::Cluster);
            let one = holders.len() == 1 && holders[0] != before;
            one && self.node_info(&holders[0])["coordinator_state"] == "primary"
        })
        .with_context(|| format!("held by {holders:?}\n{}", self.told(&["status"])))?;
        holders.pop().context("nobody holds the addresses")
    }
}
