//! A whole lab, from outside: bring it up, find its nodes, reach its network, take it down.
//! Never outlives its owner when a test made it; see [`Lifetime`].

mod ceph;
mod collect;

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::Child,
    thread,
    time::Duration,
};

use anyhow::{Context, Result, anyhow, bail};

use crate::{
    capsule::{self, Lifetime},
    devices::control::{Machines, Request, ask},
    devices::drops::{Dropped, Peer, Traffic},
    guest,
    layout::{Layout, Net, NodeNumber, ZOOKEEPER_PORT},
    machine::cgroup::Cgroup,
    machine::layer,
    machine::marker::{self, Marker},
    machine::network::in_network_of,
    node::{self, Node, REQUEST_DEADLINE},
    options::LabOptions,
    options::PROGRAMS,
    program::{Output, wait_until},
};

/// A lab that is up.
pub struct Lab {
    layout: Layout,
    options: LabOptions,
    /// The capsule's outermost process; `None` if somebody else started it.
    capsule: Option<Child>,
    /// Whether the lab ends with this value.
    owned: bool,
}

impl Lab {
    /// Brings a lab up for a test: returns when ZooKeeper and libvirtd answer on every node, takes everything down again
    /// when dropped, and does not survive this process. If it does not come up, its logs are in the folder that the
    /// error names.
    pub fn up(options: LabOptions) -> Result<Self> {
        Self::start(options, Lifetime::WithOwner, &mut |_| {})
    }

    /// The same with a choice of its lifetime, telling `progress` each thing done.
    pub fn start(options: LabOptions, lifetime: Lifetime, progress: &mut dyn FnMut(&str)) -> Result<Self> {
        options.check()?;
        let layout = Layout::new(options.lab_name()?);
        marker::take(&layout, &options)?;
        // From here on, every way out takes down what was made so far.
        let mut lab = Self { layout, options, capsule: None, owned: true };
        match lab.bring_up(lifetime, progress) {
            Ok(()) => {
                lab.owned = lifetime == Lifetime::WithOwner;
                Ok(lab)
            }
            Err(e) => {
                let logs = lab.collect_logs();
                Err(e.context(format!(
                    "the lab {} did not come up; its logs: {}",
                    lab.layout.name(),
                    logs.display()
                )))
            }
        }
    }

    fn bring_up(&mut self, lifetime: Lifetime, progress: &mut dyn FnMut(&str)) -> Result<()> {
        guest::provide(&self.layout)?;
        progress("guest image ready");
        fs::copy(&self.options.executable, self.layout.program())
            .with_context(|| format!("could not copy {}", self.options.executable.display()))?;
        self.copy_binaries(&self.options.binaries)?;
        self.capsule = Some(capsule::start(&self.layout, lifetime)?);
        progress("capsule, network and BMCs up");
        for node in self.nodes() {
            node.start()?;
        }
        progress("nodes switched on");
        for node in self.nodes() {
            node.wait_libvirt(self.options.boot_deadline)?;
        }
        progress("libvirtd answers on every node");
        if self.options.storage {
            self.provide_ceph()?;
            progress("Ceph serves, every libvirtd has its key");
        }
        for node in self.options.coordinators() {
            self.wait_zookeeper(node)?;
        }
        progress("ZooKeeper serves");
        Ok(())
    }

    /// Copies pvcd, pvc and pvc-api from a folder into the running lab. The nodes use them at their next start.
    pub fn copy_binaries(&self, folder: &Path) -> Result<()> {
        fs::create_dir_all(self.layout.binaries())?;
        for name in PROGRAMS {
            let from = folder.join(name);
            if !self.options.programs().contains(&name) && !from.exists() {
                continue;
            }
            // Beside, then renamed: a running program's file cannot be written to.
            let beside = self.layout.binaries().join(format!(".{name}.new"));
            fs::copy(&from, &beside).with_context(|| format!("could not copy {}", from.display()))?;
            fs::rename(&beside, self.layout.binaries().join(name))?;
        }
        Ok(())
    }

    /// The lab called `name` that somebody brought up before. Dropping this does nothing to it.
    pub fn attach(name: &str) -> Result<Self> {
        let layout = Layout::new(name.parse()?);
        let Some(marker) = Marker::read(&layout)? else {
            bail!("there is no lab {name}: bring it up with ./lab up");
        };
        ask(&layout.control(), Request::Status, REQUEST_DEADLINE).with_context(|| {
            format!("the lab {name} is not running: ./lab down removes what is left of it")
        })?;
        Ok(Self { layout, options: marker.options, capsule: None, owned: false })
    }

    /// What it was made from.
    pub fn options(&self) -> &LabOptions {
        &self.options
    }

    /// Where its files are.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// All its nodes.
    pub fn nodes(&self) -> Vec<Node> {
        self.options.node_numbers().map(|number| self.handle(number)).collect()
    }

    /// The node called `name` (`node1`, or just `1`). Panics if the lab has no such node.
    pub fn node(&self, name: &str) -> Node {
        match self.find_node(name) {
            Ok(node) => node,
            Err(e) => panic!("{e}"),
        }
    }

    /// The node called `name`, or an error that tells which there are.
    pub fn find_node(&self, name: &str) -> Result<Node> {
        let number: NodeNumber = name.parse()?;
        if number.get() > self.options.nodes {
            bail!("this lab has no {number}: it has node1 to node{}", self.options.nodes);
        }
        Ok(self.handle(number))
    }

    pub(crate) fn handle(&self, number: NodeNumber) -> Node {
        Node { layout: self.layout.clone(), number }
    }

    /// `address:port,…` of the ZooKeeper servers; reachable on the nodes and in [`Lab::in_switch_network`].
    pub fn zk_connect_string(&self) -> String {
        layer::zookeeper(&self.options)
    }

    /// Runs a program in the capsule, beside the nodes: it reaches all their addresses and those of the BMCs.
    pub fn exec_in_switch(&self, program: &[&str], deadline: Duration) -> Result<Output> {
        node::exec_in_switch(&self.layout, program, deadline)
    }

    /// Runs `act` on a thread of its own that is in the capsule's network: sockets that it opens reach the nodes.
    /// With tokio, build a current-thread runtime inside `act`.
    pub fn in_switch_network<T: Send>(&self, act: impl FnOnce() -> T + Send) -> Result<T> {
        in_network_of(self.capsule_cgroup()?.init().context("the lab is not up")?, act)
    }

    fn capsule_cgroup(&self) -> Result<Cgroup> {
        Ok(Cgroup::top(&self.layout.cgroup())?.child("capsule"))
    }

    /// What is on, paused, cut.
    pub fn machines(&self) -> Result<Machines> {
        ask(&self.layout.control(), Request::Status, REQUEST_DEADLINE)
    }

    /// Drops all frames from and to `a`, or only those between `a` and `b`. Neither notices.
    pub fn drop_frames(&self, a: &Node, b: Option<&Node>) -> Result<()> {
        self.drop_some(a, b.map_or(Peer::Everybody, |b| Peer::Node(b.number.get())), Traffic::All)
    }

    /// Drops frames of one kind between a node and somebody else, besides what is dropped already.
    pub fn drop_some(&self, node: &Node, peer: Peer, traffic: Traffic) -> Result<()> {
        self.lose(Dropped { peer, traffic, ..Dropped::all_of(node.number) })
    }

    /// Drops these frames, besides what is dropped already.
    pub fn lose(&self, frames: Dropped) -> Result<()> {
        ask(&self.layout.control(), Request::Drop(frames), REQUEST_DEADLINE)?;
        Ok(())
    }

    /// Stops dropping frames.
    pub fn undrop(&self) -> Result<()> {
        ask(&self.layout.control(), Request::Undrop, REQUEST_DEADLINE)?;
        Ok(())
    }

    /// `leader`, `follower` or `standalone`; an error if the node's ZooKeeper serves nobody.
    pub fn zookeeper_mode(&self, node: NodeNumber) -> Result<String> {
        let address = SocketAddr::from((node.address(Net::Cluster), ZOOKEEPER_PORT));
        let answer = self.in_switch_network(move || -> Result<String> {
            let second = Duration::from_secs(1);
            let mut stream = TcpStream::connect_timeout(&address, second)?;
            stream.set_read_timeout(Some(second))?;
            stream.write_all(b"srvr")?;
            let mut text = String::new();
            stream.read_to_string(&mut text)?;
            Ok(text)
        })??;
        let mode = answer.lines().find_map(|line| line.strip_prefix("Mode: "));
        Ok(mode.ok_or_else(|| anyhow!("{node}: {}", answer.trim()))?.to_owned())
    }

    /// Waits until the node's ZooKeeper serves.
    pub fn wait_zookeeper(&self, node: NodeNumber) -> Result<()> {
        wait_until(&format!("ZooKeeper on {node}"), self.options.boot_deadline, || {
            self.zookeeper_mode(node).is_ok()
        })
    }

    /// Copies consoles, journals, BMC logs and the ZooKeeper tree to `target/lab-logs/<name>`, as far as they can be had.
    pub fn collect_logs(&self) -> PathBuf {
        // The program is in target/debug or target/release, wherever target may be.
        let target = self.options.executable.parent().and_then(Path::parent);
        let target = target.map_or_else(|| marker::checkout().join("target"), PathBuf::from);
        let folder = target.join("lab-logs").join(self.layout.name().to_string());
        collect::collect(self, &folder);
        folder
    }

    /// Takes it down and removes everything.
    pub fn down(mut self) -> Result<()> {
        self.owned = false;
        self.end()
    }

    fn end(&mut self) -> Result<()> {
        marker::release(&self.layout)?;
        if let Some(mut capsule) = self.capsule.take() {
            // Dead already; only its number is to be given back.
            capsule.wait().context("the capsule")?;
        }
        Ok(())
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if !self.owned {
            return;
        }
        if thread::panicking() {
            eprintln!("the lab's logs: {}", self.collect_logs().display());
        }
        if let Err(e) = self.end() {
            eprintln!("could not take the lab {} down: {e:#}", self.layout.name());
        }
    }
}
