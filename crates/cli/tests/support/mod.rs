//! A real ZooKeeper, the real `pvc`, and a stand-in for the daemons that answers desired states as the contract says.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests start the program under test")]
#![allow(dead_code, reason = "each test binary uses its part")]

use std::{
    process::{Child, Command, Output, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use pvc_core::model::{
    Claim, DaemonMode, DaemonState, Entry, NodeName, NodeReport, StaticData, Vm, VmChange, VmId, VmKey,
    VmSet, VmState,
};
use pvc_store::{
    Store,
    schema::{node, owner, vm},
    testing::ZooKeeperProcess,
    zookeeper::{Options, ZooKeeperStore},
};
use tokio::runtime::Runtime;

pub(crate) struct Cluster {
    pub(crate) runtime: Runtime,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) zookeeper: ZooKeeperProcess,
}

/// What the program answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl From<Output> for Answer {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

impl Cluster {
    /// How many packets the server has received, from all clients.
    #[allow(dead_code, reason = "not every test program counts")]
    pub(crate) fn packets(&self) -> u64 {
        let said = self.zookeeper.ask("mntr").unwrap();
        let count = said.lines().find_map(|line| line.strip_prefix("zk_packets_received")).unwrap();
        count.trim().parse().unwrap()
    }

    /// An empty state store.
    pub(crate) fn empty() -> Self {
        let zookeeper = ZooKeeperProcess::start();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let store = {
            let _inside = runtime.enter();
            ZooKeeperStore::start(Options::new(zookeeper.connect_string()))
        };
        Self { runtime, store, zookeeper }
    }

    /// An initialised one, with running nodes of these names.
    pub(crate) fn with_nodes(names: &[&str]) -> Self {
        let cluster = Self::empty();
        let answer = cluster.pvc(&["init"]);
        assert_eq!(answer.code, 0, "{answer:?}");
        for name in names {
            cluster.add_node(name);
        }
        cluster
    }

    fn add_node(&self, name: &str) {
        let name: NodeName = name.parse().unwrap();
        let registration = node::Registration {
            name: name.clone(),
            mode: DaemonMode::Coordinator,
            static_data: StaticData {
                cpu_count: 8,
                kernel: "6.1.0-18-amd64".into(),
                os: "GNU/Linux".into(),
                arch: "x86_64".into(),
            },
            boot: "boot".into(),
            keepalive_interval: std::time::Duration::from_secs(5),
            vtep: None,
            storage: true,
            ipmi: node::Ipmi::default(),
        };
        let report = figures();
        self.runtime.block_on(async {
            node::register(&*self.store, &registration).await.unwrap();
            self.store.commit(node::set_daemon_state(&name, DaemonState::Run)).await.unwrap();
            // Its daemon's session is this client's.
            let owner = owner::Owner {
                host: String::new(),
                boot: String::new(),
                pid_namespace: String::new(),
                pid: 1,
                started: 1,
                instance: String::new(),
                version: None,
            };
            self.store.commit(owner::take(&name, &owner, None)).await.unwrap();
            self.store.commit(node::report(&name, &report, None)).await.unwrap();
        });
    }

    /// The command, not yet run.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pvc"));
        command.args(args).env("PVC_ZOOKEEPER", self.zookeeper.connect_string());
        command.env_remove("NO_COLOR").stdin(Stdio::null());
        command
    }

    /// Runs the command to its end.
    pub(crate) fn pvc(&self, args: &[&str]) -> Answer {
        self.command(args).output().unwrap().into()
    }

    /// Runs the command, which must succeed.
    pub(crate) fn ok(&self, args: &[&str]) -> String {
        let answer = self.pvc(args);
        assert_eq!(answer.code, 0, "{args:?}: {answer:?}");
        answer.stdout
    }

    /// Defines a VM from a definition in a temporary file.
    pub(crate) fn define(&self, name: &str, number: u16, args: &[&str]) -> Answer {
        self.define_xml(&definition(name, number), args)
    }

    pub(crate) fn define_xml(&self, xml: &str, args: &[&str]) -> Answer {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), xml).unwrap();
        let path = file.path().to_str().unwrap();
        self.pvc(&[&["vm", "define"], args, &[path]].concat())
    }

    pub(crate) fn set(&self, path: &str, data: &str) {
        let mut txn = pvc_store::Transaction::default();
        txn.ops.push(match self.get(path) {
            Some(_) => pvc_store::Op::Set { path: path.into(), data: data.into(), version: None },
            None => pvc_store::Op::Create {
                path: path.into(),
                data: data.into(),
                mode: pvc_store::CreateMode::Persistent,
            },
        });
        self.runtime.block_on(self.store.commit(txn)).unwrap();
    }

    /// The session of a node's daemon ends.
    pub(crate) fn daemon_ends(&self, node: &str) {
        let mut txn = pvc_store::Transaction::default();
        let path = owner::path(&node.parse().unwrap());
        txn.ops.push(pvc_store::Op::Delete { path, version: None });
        self.runtime.block_on(self.store.commit(txn)).unwrap();
    }

    pub(crate) fn get(&self, path: &str) -> Option<String> {
        let value = self.runtime.block_on(self.store.get(path)).unwrap();
        value.map(|v| String::from_utf8(v.data).unwrap())
    }

    /// Has nodes take VMs: new ones are flushed.
    pub(crate) fn ready(&self, names: &[&str]) {
        for name in names {
            self.set(&format!("/nodes/{name}/domainstate"), "ready");
        }
    }

    /// Answers the desired states of VMs of these nodes from now on, as daemons do.
    pub(crate) fn start_daemons(&self) {
        let store = self.store.clone();
        self.runtime.spawn(async move {
            let mut watch = store.watch(vm::ROOT);
            while watch.recv().await.is_some() {
                while watch.try_recv().is_ok() {}
                for child in store.children(vm::ROOT).await.unwrap().unwrap() {
                    let id = child.parse().unwrap();
                    if let Some(Entry::Good(vm)) = vm::read(&*store, id).await.unwrap() {
                        answer(&*store, &vm).await;
                    }
                }
            }
        });
    }
}

async fn answer(store: &dyn Store, vm: &Vm) {
    let claimed = !vm.claim.value.is_empty();
    let mut set = Vec::new();
    let runs = match vm.state.value {
        VmState::Start if claimed => return,
        VmState::Start => {
            set.push(VmSet::Claim(Claim::only(&vm.node.value)));
            true
        }
        VmState::Restart => {
            set.push(VmSet::State(VmState::Start));
            true
        }
        VmState::Migrate => {
            for node in vm.claim.value.iter() {
                store.commit(node::report(node, &reports(Vec::new()), None)).await.unwrap();
            }
            set.extend([VmSet::State(VmState::Start), VmSet::Claim(Claim::only(&vm.node.value))]);
            true
        }
        VmState::Shutdown => {
            set.extend([VmSet::State(VmState::Stop), VmSet::Claim(Claim::none())]);
            false
        }
        VmState::Stop | VmState::Delete if claimed => {
            set.push(VmSet::Claim(Claim::none()));
            false
        }
        _ => return,
    };
    let change = VmChange::update(vm, &[VmKey::State, VmKey::Claim], set);
    if vm::apply(store, &change).await.is_ok() {
        let running = if runs { vec![vm.id] } else { Vec::new() };
        store.commit(node::report(&vm.node.value, &reports(running), None)).await.unwrap();
    }
}

/// A keepalive's figures.
fn reports(running: Vec<VmId>) -> NodeReport {
    NodeReport { domains_count: running.len() as u64, running, ..figures() }
}

/// What every node of these tests has.
fn figures() -> NodeReport {
    NodeReport { mem_total_mib: 16_000, mem_free_mib: 12_000, mem_used_mib: 4000, ..NodeReport::default() }
}

/// UUID number `number`.
pub(crate) fn id(number: u16) -> VmId {
    format!("11111111-0000-4000-8000-00000000{number:04x}").parse().unwrap()
}

/// A definition as operators write them.
pub(crate) fn definition(name: &str, number: u16) -> String {
    format!(
        "<domain type='kvm'>
  <name>{name}</name>
  <uuid>{}</uuid>
  <description>test machine {number}</description>
  <memory unit='MiB'>512</memory>
  <vcpu>2</vcpu>
  <os><type arch='x86_64' machine='pc-q35-7.2'>hvm</type></os>
  <features><acpi/></features>
  <devices>
    <emulator>/usr/bin/kvm</emulator>
    <disk type='network' device='disk'><source protocol='rbd' name='vms/{name}_root'/><target dev='sda' bus='scsi'/></disk>
    <interface type='bridge'><mac address='52:54:00:00:00:01'/><source bridge='vmbr100'/><model type='virtio'/></interface>
    <serial type='pty'><log file='/var/log/libvirt/{name}.log' append='on'/></serial>
    <console type='pty'/>
  </devices>
</domain>
",
        id(number)
    )
}

/// Waits for a condition, generously.
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < Duration::from_secs(30), "not within 30 s: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn pid(child: &Child) -> rustix::process::Pid {
    rustix::process::Pid::from_child(child)
}

pub(crate) fn interrupt(child: &Child) {
    rustix::process::kill_process(pid(child), rustix::process::Signal::INT).unwrap();
}

/// Whether the kernel would hand the program a SIGINT instead of ending it.
pub(crate) fn handles_interrupt(child: &Child) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap().trim();
    u64::from_str_radix(caught, 16).unwrap() & 0b10 != 0
}
