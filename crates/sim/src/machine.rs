//! One machine: power, boots, and what runs on it between a boot and the next loss of power.
//!
//! ```text
//!   off ──power──► boots ──► libvirtd, ZooKeeper ──► daemon ──ended or killed──► (1 s) ──► daemon …
//!    ▲                                                          │
//!    └──── plug, BMC, watchdog: everything on it is gone ◄──────┘
//! ```

mod daemon;
mod faults;
mod strangers;

use std::{
    collections::BTreeSet,
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use pvc_config::Config;
use pvc_core::model::NodeName;
use pvc_host::{
    boot_note::FakeNote,
    dhcp::fake::FakePort,
    hypervisor::{
        Activity, Halt,
        fake::{Disk, FakeFabric, FakeHypervisor},
    },
    links::fake::{FakeBridges, FakeLinks},
    power::fake::FakePower,
    services::fake::FakeServices,
    watchdog::fake::FakeWatchdog,
};
use pvc_process::{Process, Scheduler};
use pvcd::{Stop, Stopper};
use tokio::{
    sync::{Notify as Signal, oneshot, watch},
    time::{sleep, sleep_until},
};

use crate::{
    event::{self, Event, Guest},
    journal::Journal,
    parts::{
        host::Hardware,
        hypervisor::FaultRates,
        power::{RESET, bmc},
    },
    physics::{
        ceph::CephCluster,
        ensemble::Ensemble,
        network::{Network, Number},
        wires::{Kernel, Wires},
    },
    rng::Rng,
};

/// From power to programs.
const BOOT: [Duration; 2] = [Duration::from_secs(20), Duration::from_mins(1)];
/// The same without the firmware's tests: sessions of before may not have ended by then.
const QUICK_BOOT: [Duration; 2] = [Duration::from_secs(2), Duration::from_secs(8)];
/// systemd's pause before it starts what has ended again.
const RESTART: Duration = Duration::from_secs(1);

/// What all machines have in common.
#[derive(Clone)]
pub struct Surroundings {
    /// Whom everything is told.
    pub journal: Arc<Journal>,
    /// The order of all tasks.
    pub scheduler: Scheduler,
    /// What happens by itself.
    pub world: Process,
    /// Who reaches whom.
    pub network: Arc<Network>,
    /// ZooKeeper.
    pub ensemble: Arc<Ensemble>,
    /// BMCs.
    pub power: Arc<FakePower>,
    /// Libvirt to libvirt.
    pub fabric: Arc<FakeFabric>,
    /// The machines' names, by number.
    pub names: Arc<Vec<NodeName>>,
    /// Addresses that are nobody's own.
    pub floating: Arc<BTreeSet<IpAddr>>,
    /// Client networks.
    pub wires: Arc<Wires>,
    /// Where VMs' images are, if anybody writes to them.
    pub ceph: Option<Arc<CephCluster>>,
    /// How VMs behave now.
    pub fault_rates: Arc<Mutex<FaultRates>>,
}

/// See the module's documentation.
pub struct Node {
    /// Its number.
    pub number: Number,
    /// Its name; a clone's daemon calls itself otherwise.
    pub name: NodeName,
    /// Whose disk it has, or had when it was cloned.
    disk_of: Number,
    config: Config,
    memory_mib: u64,
    around: Surroundings,
    /// What outlives its boots.
    pub hardware: Arc<Hardware>,
    power: watch::Receiver<Option<u64>>,
    rng: Arc<Mutex<Rng>>,
    state: Mutex<State>,
    /// Signalled when something of `state` that others wait for has changed.
    turned: watch::Sender<()>,
}

#[derive(Default)]
struct State {
    boot: Option<Boot>,
    daemon: Option<Running>,
    runs: u32,
    /// Faults that freeze all of its programs.
    frozen: u32,
    /// Faults that freeze its daemon.
    daemon_frozen: u32,
    /// Somebody has stopped the daemon, and will start it again.
    stopped: u32,
    /// Faults that keep libvirt from answering.
    libvirt_frozen: u32,
    /// Faults that keep libvirt away.
    libvirt_down: u32,
    /// Faults that keep every guest from being started.
    lacks: u32,
    /// What libvirt keeps from boot to boot.
    disk: Disk,
    /// How many times it was installed anew.
    installed: u64,
    /// The next boot is from a new installation.
    anew: bool,
    /// Its BMC lies, whatever boot it is in.
    bmc_lies: bool,
    /// The next boot is quick.
    quick: bool,
}

/// What is between two losses of power.
#[derive(Clone)]
struct Boot {
    hypervisor: Arc<FakeHypervisor>,
    links: Arc<FakeLinks>,
    bridges: Arc<FakeBridges>,
    port: FakePort,
    services: Arc<FakeServices>,
    watchdog: Arc<FakeWatchdog>,
    note: Arc<FakeNote>,
    armed: Arc<Signal>,
    number: u64,
    /// It is over: what was on its way to the kernel is done by nobody.
    over: Arc<AtomicBool>,
}

struct Running {
    process: Process,
    stopper: Stopper,
}

impl Node {
    /// A machine that has power, to be brought to [`live`](Self::live): its number, and whose disk it has.
    pub fn new(
        [number, disk_of]: [Number; 2],
        config: Config,
        memory_mib: u64,
        around: Surroundings,
        rng: Rng,
    ) -> Arc<Self> {
        let name = around.names[number].clone();
        let power = around.power.add(&bmc(&name), &config.ipmi.user, config.ipmi.pass.reveal());
        around.power.set_reset(&bmc(&name), RESET);
        Arc::new(Self {
            number,
            name,
            disk_of,
            config,
            memory_mib,
            around,
            hardware: Arc::default(),
            power,
            rng: Arc::new(Mutex::new(rng)),
            state: Mutex::default(),
            turned: watch::Sender::new(()),
        })
    }

    /// Its life.
    pub async fn live(self: Arc<Self>) {
        let mut power = self.power.clone();
        loop {
            let life = match power.wait_for(Option::is_some).await {
                Ok(life) => *life,
                Err(_) => return,
            };
            let number = life.unwrap_or_default();
            self.tell(event::Machine::On { boot: number });
            if self.lock().bmc_lies {
                self.tell(event::Machine::BmcLies(true));
            }
            tokio::select! {
                biased;
                _ = power.wait_for(|now| *now != life) => {}
                () = self.boot(number) => {}
            }
            self.lose_power();
        }
    }

    /// From power on to the loss of power.
    async fn boot(self: &Arc<Self>, number: u64) {
        let [shortest, longest] = {
            let mut state = self.lock();
            if std::mem::take(&mut state.anew) {
                state.installed += 1;
                state.disk = Disk::default();
            }
            if std::mem::take(&mut state.quick) { QUICK_BOOT } else { BOOT }
        };
        sleep(self.roll(|rng| rng.time(shortest, longest))).await;
        let boot = Boot {
            hypervisor: FakeHypervisor::new(),
            links: FakeLinks::new(&["ens4"]),
            bridges: FakeBridges::new(),
            port: FakePort::default(),
            services: FakeServices::new(&["pvc-api.service"]),
            watchdog: FakeWatchdog::new(),
            note: Arc::default(),
            armed: Arc::default(),
            number,
            over: Arc::default(),
        };
        self.watch_guests(&boot.hypervisor);
        self.around.wires.plug(
            self.number,
            Kernel {
                node: self.name.clone(),
                bridges: Arc::clone(&boot.bridges),
                links: Arc::clone(&boot.links),
                port: boot.port.clone(),
            },
        );
        let domain = self.config.networks.as_ref().and_then(|networks| networks.cluster.domain.clone());
        let host = domain.map_or_else(|| self.name.to_string(), |domain| format!("{}.{domain}", self.name));
        self.around.fabric.join(&host, &boot.hypervisor);
        self.lock().boot = Some(boot.clone());
        self.libvirt_turns();
        self.autostart(&boot);
        self.around.ensemble.down(self.number, false);
        tokio::select! {
            biased;
            () = self.mutants(&boot) => {}
            () = self.keep_a_daemon(&boot) => {}
        }
    }

    fn watch_guests(&self, hypervisor: &FakeHypervisor) {
        let (journal, node) = (Arc::clone(&self.around.journal), self.name.clone());
        let (ceph, number) = (self.around.ceph.clone(), self.number);
        hypervisor.observe(move |vm, activity| {
            if let Some(ceph) = &ceph {
                ceph.turns(number, vm, activity);
            }
            let what = match activity {
                Some(Activity::Running | Activity::ShuttingDown) => Guest::Executes,
                Some(Activity::Halted(Halt::Crashed)) => Guest::Crashed,
                Some(Activity::Halted(_)) => Guest::Halted,
                Some(_) => Guest::Held,
                None => Guest::Gone,
            };
            journal.tell(Event::Guest { vm, node: node.clone(), what });
        });
    }

    /// Resets the machine when its watchdog was not fed.
    async fn mutants(&self, boot: &Boot) {
        loop {
            match boot.watchdog.fires_at() {
                None => boot.armed.notified().await,
                Some(at) => {
                    sleep_until(at).await;
                    if boot.watchdog.is_armed() && boot.watchdog.fired_at().is_some() {
                        let host = bmc(&self.name);
                        self.around.power.plug(&host, false);
                        self.around.power.plug(&host, true);
                        std::future::pending::<()>().await;
                    }
                }
            }
        }
    }

    /// As systemd: a daemon that ended is started again.
    async fn keep_a_daemon(self: &Arc<Self>, boot: &Boot) {
        let mut turned = self.turned.subscribe();
        loop {
            while self.holds_back() {
                if turned.changed().await.is_err() {
                    return;
                }
            }
            let ended = self.start(boot);
            let outcome = ended.await;
            {
                let mut state = self.lock();
                state.daemon = None;
            }
            self.hardware.living_run.store(0, Ordering::Relaxed);
            let what = outcome.map_or(event::Daemon::Killed, event::Daemon::Ended);
            self.around.journal.tell(Event::Daemon { node: self.name.clone(), what });
            sleep(RESTART).await;
        }
    }

    fn holds_back(&self) -> bool {
        let state = self.lock();
        state.frozen > 0 || state.stopped > 0
    }

    /// Starts a daemon; answers how it ended, or with an error if it was killed.
    fn start(self: &Arc<Self>, boot: &Boot) -> oneshot::Receiver<String> {
        let around = &self.around;
        let process = around.scheduler.process(self.name.to_string());
        let (stopper, stop) = Stop::new();
        let (ending, ended) = oneshot::channel();
        let run = {
            let mut state = self.lock();
            state.runs += 1;
            // It was another process that was frozen.
            state.daemon_frozen = 0;
            state.daemon = Some(Running { process: process.clone(), stopper });
            state.runs
        };
        self.hardware.living_run.store(run, Ordering::Relaxed);
        around.journal.tell(Event::Daemon {
            node: self.name.clone(),
            what: event::Daemon::Started { run: run.into() },
        });
        let (own, boot) = (Arc::clone(self), boot.clone());
        process.spawn(async move {
            let outcome = pvcd::run(&own.config, own.parts(&boot, run), stop).await;
            let _ = ending.send(match outcome {
                Ok(()) => "in order".to_owned(),
                Err(error) => pvcd::log::chain(&error),
            });
        });
        ended
    }

    fn lose_power(&self) {
        let (boot, daemon, frozen) = {
            let mut state = self.lock();
            (state.boot.take(), state.daemon.take(), std::mem::take(&mut state.frozen) > 0)
        };
        if let Some(daemon) = daemon {
            daemon.process.kill();
        }
        self.hardware.living_run.store(0, Ordering::Relaxed);
        self.tell(event::Machine::Off);
        if let Some(boot) = boot {
            boot.over.store(true, Ordering::Relaxed);
            self.around.wires.unplug(self.number);
            if let Some(ceph) = &self.around.ceph {
                ceph.loses_power(self.number);
            }
            // Of the two reasons why its server may be down, one more or one other.
            if !frozen {
                self.around.ensemble.down(self.number, true);
            }
            self.lock().disk = boot.hypervisor.disk();
            boot.hypervisor.die();
        }
    }

    fn tell(&self, what: event::Machine) {
        self.around.journal.tell(Event::Machine { node: self.name.clone(), what });
    }

    fn roll<T>(&self, draw: impl FnOnce(&mut Rng) -> T) -> T {
        draw(&mut self.rng.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
