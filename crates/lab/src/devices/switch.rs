//! The capsule's one working process: owns the nodes' power, cables and BMCs, and does what `control` asks for.
//! Never decides anything by itself, except that a node that reboots comes back.
//!
//! ```text
//!          power on                    reboots itself: power cycle
//!   off ─────────────► on ──────────────────────────────────────┐
//!    ▲                 │ ▲                                      │
//!    └─────────────────┘ └──────────────────────────────────────┘
//!     power off, or its system shuts down
//! ```

use std::{
    collections::BTreeMap,
    fs::{self, OpenOptions},
    io::{BufRead, BufReader, Read, Write},
    os::unix::net::{UnixListener, UnixStream},
    process::{Child, ExitStatus, Stdio},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, bail};
use rustix::mount::{MountFlags, mount};

use crate::{
    devices::control::{Answer, Button, Machine, Machines, Request, node},
    devices::drops::{self, Dropped, Peer},
    devices::network,
    devices::watchdog::{self, Watchdog},
    devices::{addresses, bmc, ceph, control::Behaviour},
    layout::{Layout, NodeNumber},
    machine::boot::{REBOOTED, find_init, node_cgroup},
    machine::layer,
    machine::marker::Marker,
    program::{command, run, wait_until},
};

const POWER_DEADLINE: Duration = Duration::from_secs(20);
/// A BMC's reset that follows another within this time is a copy that waited in the BMC's socket meanwhile.
const REPEATED_RESET: Duration = Duration::from_secs(1);

/// A node's power and cables.
#[derive(Default)]
struct Slot {
    /// Counts power-ons, so that the end of an old life is not taken for the end of the present one.
    life: u64,
    cut: bool,
    bmc_cut: bool,
    bmc: Behaviour,
    /// Takes notes of the node's addresses as long as it has power.
    watching: Option<Child>,
    /// When the BMC's last command was done, if that was a reset.
    last_reset: Option<Instant>,
}

struct Switch {
    layout: Layout,
    slots: BTreeMap<NodeNumber, Mutex<Slot>>,
    watchdogs: BTreeMap<NodeNumber, Arc<Watchdog>>,
    dropped: Mutex<Vec<Dropped>>,
}

/// A line of the capsule's log.
fn note(what: &str) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    eprintln!("{} {what}", now.as_millis());
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Builds the network, the nodes' disks and the BMCs, then obeys for ever; nodes start switched off.
pub fn run_switch(layout: &Layout, bound: bool) -> Result<()> {
    if bound {
        thread::spawn(|| {
            // Ends when the owner does, which closes the pipe.
            let _ = std::io::stdin().read_to_end(&mut Vec::new());
            std::process::exit(0);
        });
    }
    let options = Marker::read(layout)?.context("the lab's folder is gone")?.options;
    run("/bin/hostname", [format!("{}-switch", layout.name())], POWER_DEADLINE)?;
    fs::create_dir_all("/run/netns")?;
    mount("tmpfs", "/run/netns", "tmpfs", MountFlags::empty(), None).context("could not mount /run/netns")?;
    network::make_bridges()?;
    network::route()?;
    fs::create_dir_all(layout.shared())?;
    layer::build_shared(layout, &options)?;
    for node in options.node_numbers() {
        layer::build_disk(layout, &options, node)?;
        bmc::start(layout, node)?;
    }
    if options.storage {
        ceph::start(layout);
    }
    command("/usr/sbin/dnsmasq")
        .args(network::dhcp_arguments(&layout.state().join("leases")))
        .stdin(Stdio::null())
        .spawn()
        .context("could not start dnsmasq")?;

    let watchdogs: BTreeMap<NodeNumber, Arc<Watchdog>> =
        options.node_numbers().map(|node| (node, Arc::default())).collect();
    fs::create_dir_all(layout.watchdogs())?;
    let _mounted = watchdog::Mounted::on(&layout.watchdogs(), watchdogs.clone().into_iter().collect())?;
    let switch = Arc::new(Switch {
        layout: layout.clone(),
        slots: options.node_numbers().map(|node| (node, Mutex::default())).collect(),
        watchdogs,
        dropped: Mutex::default(),
    });
    for node in options.node_numbers() {
        switch.watch_over(node);
    }
    let listener = UnixListener::bind(layout.control()).context("could not listen on the control socket")?;
    for stream in listener.incoming() {
        let (switch, stream) = (Arc::clone(&switch), stream?);
        thread::spawn(move || {
            if let Err(e) = switch.serve(stream) {
                note(&format!("a client went away: {e:#}"));
            }
        });
    }
    Ok(())
}

impl Switch {
    fn serve(self: &Arc<Self>, stream: UnixStream) -> Result<()> {
        let mut line = String::new();
        BufReader::new(stream.try_clone()?).read_line(&mut line)?;
        let answer = match serde_json::from_str(&line).map_err(Into::into).and_then(|r| self.obey(r)) {
            Ok(()) => Answer::Done(self.machines()?),
            Err(e) => Answer::Failed(format!("{e:#}")),
        };
        let mut text = serde_json::to_vec(&answer)?;
        text.push(b'\n');
        (&stream).write_all(&text)?;
        Ok(())
    }

    fn obey(self: &Arc<Self>, request: Request) -> Result<()> {
        if !matches!(request, Request::Status) {
            note(&format!("{request:?}"));
        }
        match request {
            Request::Status => Ok(()),
            Request::PowerOn(n) => self.with(n, |node, slot| self.power_on(node, slot)),
            Request::PowerOff(n) => self.with(n, |node, slot| self.power_off(node, slot)),
            Request::Reset(n) => self.with(n, |node, slot| self.reset(node, slot)),
            Request::SoftOff(n) => self.with(n, |node, _| self.soft_off(node)),
            Request::ByBmc(n, button) => self.with(n, |node, slot| self.press(node, slot, button)),
            Request::Pause(n) => self.with(n, |node, _| self.freeze(node, true)),
            Request::Resume(n) => self.with(n, |node, _| self.freeze(node, false)),
            Request::Cut(n) => self.with(n, |node, slot| self.set_cut(node, slot, true)),
            Request::Heal(n) => self.with(n, |node, slot| self.set_cut(node, slot, false)),
            Request::CutBmc(n) => self.with(n, |node, slot| {
                slot.bmc_cut = true;
                network::set_bmc_cable(node, false)
            }),
            Request::HealBmc(n) => self.with(n, |node, slot| {
                slot.bmc_cut = false;
                network::set_bmc_cable(node, true)
            }),
            Request::SetBmc(n, behaviour) => self.with(n, |_, slot| {
                slot.bmc = behaviour;
                Ok(())
            }),
            Request::Drop(drop) => {
                self.known(drop.node)?;
                if let Peer::Node(peer) = drop.peer {
                    self.known(peer)?;
                }
                let mut dropped = locked(&self.dropped);
                dropped.push(drop);
                drops::set(&dropped)
            }
            Request::Undrop => {
                let mut dropped = locked(&self.dropped);
                dropped.clear();
                drops::set(&dropped)
            }
        }
    }

    fn known(&self, number: u8) -> Result<NodeNumber> {
        let node = node(number)?;
        if !self.slots.contains_key(&node) {
            bail!("this lab has no {node}: it has node1 to node{}", self.slots.len());
        }
        Ok(node)
    }

    fn with(&self, number: u8, act: impl FnOnce(NodeNumber, &mut Slot) -> Result<()>) -> Result<()> {
        let node = self.known(number)?;
        act(node, &mut locked(&self.slots[&node]))
    }

    fn is_on(&self, node: NodeNumber) -> bool {
        node_cgroup(&self.layout, node).is_ok_and(|cgroup| cgroup.populated())
    }

    fn power_on(self: &Arc<Self>, node: NodeNumber, slot: &mut Slot) -> Result<()> {
        if self.is_on(node) {
            return Ok(());
        }
        let cgroup = node_cgroup(&self.layout, node)?;
        cgroup.remove()?;
        cgroup.create()?;
        self.unwatch(node, slot)?;
        network::plug_node(node, slot.cut)?;
        slot.watching = Some(addresses::watch(&self.layout, node)?);
        slot.life += 1;
        slot.last_reset = None;
        let console = OpenOptions::new().create(true).append(true).open(self.layout.node_console(node))?;
        writeln!(&console, "=== power on, life {}", slot.life)?;
        let mut child = command(self.layout.program())
            .args(["internal", "power-up", &self.layout.name().to_string(), &node.to_string()])
            .stdin(Stdio::null())
            .stdout(console.try_clone()?)
            .stderr(console)
            .spawn()
            .with_context(|| format!("could not start {}", self.layout.program().display()))?;
        let mut ended = None;
        wait_until("a node's first process", POWER_DEADLINE, || {
            ended = child.try_wait().ok().flatten();
            ended.is_some() || cgroup.populated()
        })?;
        if let Some(status) = ended {
            bail!("{node} did not start: {status}; see {}", self.layout.node_console(node).display());
        }
        let (switch, life) = (Arc::clone(self), slot.life);
        thread::spawn(move || switch.watch(node, life, child));
        Ok(())
    }

    /// Waits for the end of one of the node's lives, and lets it come back if it only rebooted.
    fn watch(self: &Arc<Self>, node: NodeNumber, life: u64, mut child: Child) {
        let status = child.wait();
        let slot = &mut *locked(&self.slots[&node]);
        if slot.life != life {
            return;
        }
        note(&format!("{node} ended: {status:?}"));
        let next = self.power_off(node, slot).and_then(|()| {
            if status.as_ref().ok().and_then(ExitStatus::code) == Some(REBOOTED) {
                self.power_on(node, slot)?;
            }
            Ok(())
        });
        if let Err(e) = next {
            note(&format!("{node} after its end: {e:#}"));
        }
    }

    fn power_off(&self, node: NodeNumber, slot: &mut Slot) -> Result<()> {
        slot.life += 1;
        node_cgroup(&self.layout, node)?.remove().with_context(|| format!("{node} would not die"))?;
        self.watchdogs[&node].power_off();
        network::unplug_node(node);
        self.unwatch(node, slot)
    }

    fn unwatch(&self, node: NodeNumber, slot: &mut Slot) -> Result<()> {
        slot.watching.take().map_or(Ok(()), |watching| addresses::unwatch(&self.layout, node, watching))
    }

    /// The BMC's buttons.
    fn press(self: &Arc<Self>, node: NodeNumber, slot: &mut Slot, button: Button) -> Result<()> {
        match button {
            Button::On => self.power_on(node, slot),
            Button::Off => self.power_off(node, slot),
            Button::Soft => self.soft_off(node),
            Button::Reset => {
                if slot.last_reset.is_some_and(|at| at.elapsed() < REPEATED_RESET) || !self.is_on(node) {
                    return Ok(());
                }
                self.reset(node, slot)?;
                slot.last_reset = Some(Instant::now());
                Ok(())
            }
        }
    }

    fn reset(self: &Arc<Self>, node: NodeNumber, slot: &mut Slot) -> Result<()> {
        if !self.is_on(node) {
            return Ok(());
        }
        self.power_off(node, slot)?;
        self.power_on(node, slot)
    }

    /// Resets a node whose watchdog is hungry, as the hardware would.
    fn watch_over(self: &Arc<Self>, node: NodeNumber) {
        let (switch, watchdog) = (Arc::clone(self), Arc::clone(&self.watchdogs[&node]));
        thread::spawn(move || {
            loop {
                watchdog.wait_until_hungry();
                let slot = &mut *locked(&switch.slots[&node]);
                // The power may have gone meanwhile.
                if watchdog.is_hungry()
                    && let Err(e) = switch.reset_hungry(node, slot)
                {
                    note(&format!("the watchdog of {node}: {e:#}"));
                    thread::sleep(Duration::from_secs(1));
                }
            }
        });
    }

    fn reset_hungry(self: &Arc<Self>, node: NodeNumber, slot: &mut Slot) -> Result<()> {
        let console = OpenOptions::new().append(true).open(self.layout.node_console(node))?;
        writeln!(&console, "{}", watchdog::EXPIRED_LINE)?;
        note(&format!("{node}: its watchdog was not fed"));
        self.power_off(node, slot)?;
        self.power_on(node, slot)
    }

    fn soft_off(&self, node: NodeNumber) -> Result<()> {
        // systemd as process 1 takes this as "power off"; named signals reach it from outside its namespace only.
        let (init, _) = find_init(&self.layout, node)?;
        run("/bin/kill", ["-s", "RTMIN+4", &init.to_string()], POWER_DEADLINE)?;
        Ok(())
    }

    fn freeze(&self, node: NodeNumber, frozen: bool) -> Result<()> {
        if !self.is_on(node) {
            bail!("{node} is off");
        }
        node_cgroup(&self.layout, node)?.freeze(frozen)
    }

    fn set_cut(&self, node: NodeNumber, slot: &mut Slot, cut: bool) -> Result<()> {
        slot.cut = cut;
        if self.is_on(node) { network::set_cables(node, !cut) } else { Ok(()) }
    }

    fn machines(&self) -> Result<Machines> {
        let mut nodes = BTreeMap::new();
        for (node, slot) in &self.slots {
            let cgroup = node_cgroup(&self.layout, *node)?;
            let slot = locked(slot);
            let machine = Machine {
                on: cgroup.populated(),
                paused: cgroup.frozen(),
                cut: slot.cut,
                bmc_cut: slot.bmc_cut,
                bmc: slot.bmc,
            };
            nodes.insert(node.get(), machine);
        }
        let dropped = locked(&self.dropped).clone();
        Ok(Machines { nodes, dropped })
    }
}
