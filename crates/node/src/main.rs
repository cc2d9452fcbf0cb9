//! The program `pvcd`: reads its configuration, chooses the real parts, and runs the daemon over them.

use std::{
    io::{self, IsTerminal as _, Read as _, Write as _},
    panic,
    path::Path,
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use clap::Parser as _;
use pvc_config::{Config, Coordinator, Diagnostic, TlsFiles};
use pvc_host::{
    boot_note::NoteFile,
    ceph::{self, Access, Ceph, CephAdmin, Librados},
    database_cluster::{DatabaseCluster, PORT, Patroni},
    dhcp::{DhcpPort, Kernel},
    firewall::{Firewall, Nft, STATIC},
    hypervisor::{
        Hypervisor,
        libvirt::{LibvirtHypervisor, LibvirtScreens},
        screen::Screens,
    },
    links::{Bridges, Links, Netlink},
    machine::{Machine as _, ThisMachine},
    osds::{self, OsdHost},
    power::Ipmitool,
    programs::{Programs, Supervisor},
    routing::{Frr, RoutingDaemon},
    services::{Services, Systemd},
    storage_fence::{CephFence, NoStorage, StorageFence},
    surroundings::TheseSurroundings,
    watchdog::{Guard, MachineHardware, Watchdog},
    zones::{Postgres, ZoneDatabase},
};
use pvc_process::{OwnThread, Place};
use pvc_store::{
    Store,
    servers::ZooKeeperServers,
    zookeeper::{Options, ZooKeeperStore},
};
use pvcd::{
    Dependencies, Stop,
    args::Args,
    checkup,
    console::{Consoles, Rates},
    log::{FILE_NAME, Log, Settings, chain},
    metrics::Metrics,
    notify::Notify,
    ownership::this_process,
    reconcile::{database_leader, dns},
    signals,
};

/// The hypervisor of a node is the machine's own.
const LIBVIRT: &str = "qemu:///system";

/// Where the service of the API finds what it is told.
const API_FILE: &str = "/etc/pvc/pvc-api.yaml";

/// Exit status if the configuration cannot be used (sysexits.h): the service manager need not try again.
const EX_CONFIG: u8 = 78;

/// Exit statuses of everybody's.
const SUCCESS: u8 = 0;
const FAILURE: u8 = 1;

/// How long the end of the process waits for the last lines of its log.
const LAST_LINES: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let args = Args::parse();
    if pvc_core::sabotage::POSSIBLE {
        let _ = writeln!(io::stderr(), "pvcd: built with the simulator's deliberate bugs: not to be run");
        return ExitCode::FAILURE;
    }
    if let Some(file) = args.check_config {
        return check(&file.unwrap_or(args.config));
    }
    if args.osd_request {
        return osd_request();
    }
    let run = if args.examine { examine } else { start };
    let code = run(&args.config).unwrap_or_else(|error| {
        let _ = writeln!(io::stderr(), "pvcd: {error:#}");
        FAILURE
    });
    ceph::exit(code)
}

/// `--check-config`.
fn check(file: &Path) -> ExitCode {
    let mut out = io::stdout().lock();
    match pvc_config::check_file(file, &mut out, io::stdout().is_terminal()) {
        Ok(Some(_)) => ExitCode::SUCCESS,
        Ok(None) | Err(_) => ExitCode::FAILURE,
    }
}

/// `--osd-request`.
fn osd_request() -> ExitCode {
    let mut request = String::new();
    let read = io::stdin().lock().take(osds::LONGEST_REQUEST).read_to_string(&mut request);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let answered = read.and(runtime).and_then(|runtime| {
        let answer = runtime.block_on(osds::serve(&request));
        runtime.shutdown_background();
        writeln!(io::stdout(), "{answer}")
    });
    match answered {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "pvcd: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The configuration and its warnings; `None`, with all that is wrong told, if it cannot be used.
fn load(file: &Path) -> anyhow::Result<Option<(Config, Vec<Diagnostic>)>> {
    let report = pvc_config::load(file);
    let Some(config) = report.config else {
        for diagnostic in &report.diagnostics {
            writeln!(io::stderr(), "{}", diagnostic.render(io::stderr().is_terminal()))?;
        }
        return Ok(None);
    };
    Ok(Some((config, report.diagnostics)))
}

/// `--examine`.
fn examine(file: &Path) -> anyhow::Result<u8> {
    let Some((config, warnings)) = load(file)? else { return Ok(EX_CONFIG) };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut found = runtime.block_on(async {
        let hypervisor = config.functions.hypervisor.then(|| {
            let libvirt = LibvirtHypervisor::start(LIBVIRT).map_err(|error| chain(&error));
            libvirt.map(|libvirt| libvirt as Arc<dyn Hypervisor>)
        });
        let ceph =
            config.functions.storage.then(|| Arc::new(Librados::new(Access::default())) as Arc<dyn Ceph>);
        let parts = checkup::Parts {
            store: ZooKeeperStore::start(store_options(&config)),
            servers: Arc::new(servers(&config)),
            hypervisor,
            power: Arc::new(Ipmitool::new(config.ipmi.cipher_suite)),
            ceph,
            zones: zones(&config),
            api_tls: config.functions.api.then(|| api_tls(Path::new(API_FILE))).flatten(),
            machine: Arc::new(ThisMachine),
            surroundings: Arc::new(TheseSurroundings),
        };
        checkup::examine(&config, &parts).await
    });
    for warning in &warnings {
        found.notice(warning.headline(), format!("pvcd --check-config {}", file.display()));
    }
    runtime.shutdown_timeout(Duration::from_millis(500));
    writeln!(io::stdout(), "{}", serde_json::to_string(&found)?)?;
    Ok(SUCCESS)
}

/// What the API's configuration names, if it is here and TLS is on; or why it cannot be used.
fn api_tls(file: &Path) -> Option<Result<TlsFiles, String>> {
    if !file.exists() {
        return None;
    }
    let report = pvc_config::load_api(file);
    match report.config {
        Some(config) => config.tls.map(Ok),
        None => Some(Err(report.diagnostics.first().map(Diagnostic::headline).unwrap_or_default())),
    }
}

fn start(file: &Path) -> anyhow::Result<u8> {
    let Some((config, warnings)) = load(file)? else { return Ok(EX_CONFIG) };
    let log = Log::install(&log_settings(&config)).context("cannot start the log")?;
    exit_on_panic(log.clone());
    for warning in &warnings {
        tracing::warn!("{}", warning.headline());
    }
    // What blocks has threads of its own: the log, the consoles' files, libvirt; and what says that this node lives has one, so that
    // nothing makes it late. The rest waits for others nearly all the time, and more threads for it would only cost the waking of them.
    let lifeline = OwnThread::start("lifeline").context("cannot start the thread of the keepalive")?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .max_blocking_threads(8)
        .thread_stack_size(512 * 1024)
        .thread_name("pvcd-blocking")
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let outcome = runtime.block_on(serve(&config, log.clone(), lifeline.place()));
    // Whatever is stuck somewhere (a disk, libvirt) does not hold up the end.
    runtime.shutdown_timeout(Duration::from_millis(500));
    let code = match outcome {
        Ok(()) => SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            FAILURE
        }
    };
    log.finish(LAST_LINES);
    Ok(code)
}

async fn serve(config: &Config, log: Log, lifeline: &Place) -> anyhow::Result<()> {
    let (stopper, stop) = Stop::new();
    signals::listen(log, stopper).context("cannot listen to signals")?;
    let host = ThisMachine.host_name();
    if host.split('.').next() != Some(config.node.as_str()) {
        tracing::warn!(
            "this machine calls itself {host}, the configuration (setting pvc.node) calls it {}: is this its file?",
            config.node
        );
    }
    let hypervisor = if config.functions.hypervisor {
        let libvirt = LibvirtHypervisor::start(LIBVIRT).context(
            "this node has functions.enable_hypervisor: True, but libvirt cannot be used (is libvirt0 installed?)",
        )?;
        Some(libvirt as Arc<dyn Hypervisor>)
    } else {
        None
    };
    let netlink = if config.functions.networking {
        Some(Netlink::start().context("cannot talk to the kernel about networks (netlink)")?)
    } else {
        None
    };
    let firewall = if config.functions.networking {
        let own_files = config.directories.dynamic.join(STATIC);
        Some(Nft::start(own_files).context("cannot hear of changes of the firewall (netlink)")?
            as Arc<dyn Firewall>)
    } else {
        None
    };
    let watchdog = match config.intervals.suicide_after() {
        Some(_) => {
            let guard = Guard::start(MachineHardware::this())
                .context("cannot start the thread that guards this machine")?;
            Some(Arc::new(guard) as Arc<dyn Watchdog>)
        }
        None => None,
    };
    let metrics = config.metrics.map(Metrics::install).transpose().context("cannot record figures")?;
    let store: Arc<dyn Store> = lifeline.run(|| ZooKeeperStore::start(store_options(config)));
    let consoles = hypervisor.as_ref().map(|_| Consoles {
        directory: config.directories.console_log.clone(),
        lines: usize::try_from(config.logging.console_log_lines).unwrap_or(usize::MAX),
        rates: Rates { vm: config.logging.console_log_vm_rate, node: config.logging.console_log_node_rate },
    });
    let screens = hypervisor.as_ref().map(|_| LibvirtScreens::start(LIBVIRT)).transpose();
    let screens = screens.context("cannot show guests' screens (is libvirt0 installed?)")?;
    let programs = config
        .functions
        .networking
        .then(|| Supervisor::start(config.directories.dynamic.join("programs")) as Arc<dyn Programs>);
    let ceph =
        config.functions.storage.then(|| Arc::new(Librados::new(Access::default())) as Arc<dyn CephAdmin>);
    let storage = match ceph.clone() {
        Some(ceph) => Arc::new(CephFence::new(ceph, || ThisMachine.unix_s())) as Arc<dyn StorageFence>,
        None => Arc::new(NoStorage),
    };
    let process = this_process(host).context("cannot tell this process from others")?;
    let parts = Dependencies {
        store,
        hypervisor,
        consoles,
        screens: screens.map(|screens| Arc::new(screens) as Arc<dyn Screens>),
        links: netlink.clone().map(|netlink| netlink as Arc<dyn Links>),
        bridges: netlink.map(|netlink| netlink as Arc<dyn Bridges>),
        firewall,
        routing: config.functions.networking.then(|| Arc::new(Frr::new()) as Arc<dyn RoutingDaemon>),
        zones: zones(config),
        database_cluster: database_leader::ground(config)
            .map(|ground| Arc::new(Patroni::at(&ground.own, PORT)) as Arc<dyn DatabaseCluster>),
        programs,
        dhcp: config.functions.networking.then(|| Arc::new(Kernel) as Arc<dyn DhcpPort>),
        services: Some(Systemd::system() as Arc<dyn Services>),
        power: Arc::new(Ipmitool::new(config.ipmi.cipher_suite)),
        osds: ceph.as_ref().map(|_| osds::ThisNode::new("--osd-request") as Arc<dyn OsdHost>),
        ceph,
        storage,
        servers: Arc::new(servers(config)),
        watchdog,
        machine: Arc::new(ThisMachine),
        boot_note: Arc::new(NoteFile::new(&config.directories.dynamic, &process.boot)),
        process,
        metrics,
        notify: Notify::systemd(),
        lifeline: lifeline.clone(),
    };
    pvcd::run(config, parts, stop).await.map_err(|error| anyhow::anyhow!("{}", chain(&error)))
}

/// Only coordinators have the floating addresses that names are asked for on.
fn zones(config: &Config) -> Option<Arc<dyn ZoneDatabase>> {
    let database =
        config.dns_database.as_ref().filter(|_| config.functions.networking && config.is_coordinator());
    database.map(|database| Arc::new(Postgres::new(&dns::address(database))) as Arc<dyn ZoneDatabase>)
}

/// Coordinators that are configured by address have no name to ask for them by.
fn servers(config: &Config) -> ZooKeeperServers {
    let named = |coordinator: &Coordinator| {
        Some((coordinator.short_name()?.to_ascii_lowercase().parse().ok()?, coordinator.to_string()))
    };
    ZooKeeperServers::new(config.coordinators.iter().filter_map(named))
}

fn store_options(config: &Config) -> Options {
    let session_timeout = config.intervals.session_timeout();
    Options { session_timeout, ..Options::new(config.zookeeper_connect_string()) }
}

fn log_settings(config: &Config) -> Settings {
    Settings {
        node: config.node.clone(),
        file: config.logging.file.then(|| config.directories.log.join(FILE_NAME)),
        stdout: config.logging.stdout,
        colours: config.logging.colours,
        dates: config.logging.dates,
        debug: config.debug,
    }
}

/// A part that panicked is gone, and a daemon without it would say for ever that all is well. The service manager starts it anew,
/// which disturbs no guest.
fn exit_on_panic(log: Log) {
    let before = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        before(info);
        tracing::error!("a bug, the daemon exits and will be started anew: {info}");
        log.finish(LAST_LINES);
        ceph::exit_at_once(101);
    }));
}
