//! FRR itself: what it is told, what it tells the kernel, and what it cannot take away.

use std::{
    fs,
    net::Ipv4Addr,
    os::unix::fs::chown,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

use nix::sys::signal::Signal;
use pvc_core::{
    model::bridging::{BridgingChange, DeviceKind, Forward},
    plan::routing::{Role, Speaking},
};
use pvc_host::{
    links::{Bridges, Netlink},
    routing::{Frr, RoutingDaemon},
};
use tokio::time::{Duration, sleep, timeout};

use crate::{
    LONG, contract, foreign, gone,
    namespace::{Beside, alone, ip},
    routing,
};

/// zebra and bgpd in the namespace of the thread that has started them. They end with this.
pub(crate) struct Daemons {
    pub(crate) space: String,
    zebra: Option<Child>,
    bgpd: Option<Child>,
    bfdd: Option<Child>,
}

static COUNT: AtomicU32 = AtomicU32::new(0);

impl Daemons {
    pub(crate) async fn start() -> Self {
        let space = format!("pvctest{}n{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let passwd = fs::read_to_string("/etc/passwd").unwrap();
        let frr =
            passwd.lines().find(|line| line.starts_with("frr:")).expect("these tests need Debian's frr");
        let ids: Vec<u32> = frr.split(':').skip(2).take(2).map(|id| id.parse().unwrap()).collect();
        let mut daemons = Self { space, zebra: None, bgpd: None, bfdd: None };
        for folder in daemons.folders() {
            fs::create_dir_all(&folder).unwrap();
            chown(&folder, Some(ids[0]), Some(ids[1])).unwrap();
        }
        fs::write(daemons.folders()[0].join("vtysh.conf"), "").unwrap();
        daemons.zebra = Some(daemons.run("zebra"));
        daemons.until_there("zserv.api").await;
        daemons.start_bgpd().await;
        daemons
    }

    pub(crate) async fn start_bgpd(&mut self) {
        self.bgpd = Some(self.run("bgpd"));
        self.until_there("bgpd.vty").await;
    }

    pub(crate) async fn start_bfdd(&mut self) {
        self.bfdd = Some(self.run("bfdd"));
        self.until_there("bfdd.vty").await;
    }

    /// Those that speak with neighbours, which then hang or go on.
    pub(crate) fn signal(&self, signal: Signal) {
        for child in [&self.bgpd, &self.bfdd].into_iter().flatten() {
            let pid = i32::try_from(child.id()).unwrap();
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal).unwrap();
        }
    }

    fn folders(&self) -> [PathBuf; 2] {
        ["/etc/frr", "/run/frr"].map(|folder| PathBuf::from(folder).join(&self.space))
    }

    fn run(&self, name: &str) -> Child {
        #[allow(
            clippy::disallowed_methods,
            reason = "FRR is a service of the machine, which tests have none of"
        )]
        Command::new(format!("/usr/lib/frr/{name}"))
            .args(["-N", &self.space, "-A", "127.0.0.1", "--log", "stdout"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    }

    /// When it can be connected to.
    async fn until_there(&self, socket: &str) {
        let socket = self.folders()[1].join(socket);
        let there = async {
            while std::os::unix::net::UnixStream::connect(&socket).is_err() {
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(LONG, there).await.unwrap_or_else(|_| panic!("no {}", socket.display()));
    }

    pub(crate) fn kill_bgpd(&mut self) {
        end(self.bgpd.take());
    }
}

fn end(child: Option<Child>) {
    if let Some(mut child) = child {
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

impl Drop for Daemons {
    fn drop(&mut self) {
        for child in [self.bfdd.take(), self.bgpd.take(), self.zebra.take()] {
            end(child);
        }
        for folder in self.folders() {
            let _ = fs::remove_dir_all(folder);
        }
    }
}

#[test]
fn frr_does_as_a_routing_daemon() {
    alone(async || {
        ip("address add 10.255.1.1/24 dev lo");
        let mut daemons = Daemons::start().await;
        let frr = Frr::named(&daemons.space);
        for setting in FORWARDING {
            fs::write(setting, "0").unwrap();
        }
        contract(&frr).await;
        assert_eq!(forwarding(), ["0", "0"], "a hypervisor is no router");
        daemons.kill_bgpd();
        gone(&frr).await;
        let path = daemons.folders()[0].join("frr.conf");
        fs::write(&path, "router bgp 65001\n").unwrap();
        foreign(&frr).await;
        assert_eq!(fs::read_to_string(path).unwrap(), "router bgp 65001\n");
    });
}

/// Whether the kernel forwards packets in this thread's namespace, of IPv4 and of IPv6.
const FORWARDING: [&str; 2] = ["/proc/sys/net/ipv4/ip_forward", "/proc/sys/net/ipv6/conf/all/forwarding"];

fn forwarding() -> [String; 2] {
    FORWARDING.map(|path| fs::read_to_string(path).unwrap().trim().to_owned())
}

/// This namespace is a node with a managed network, whose guest is a port of its bridge.
async fn node(own: u8, other: u8) -> std::sync::Arc<Netlink> {
    ip(&format!("address add 10.255.1.{own}/24 dev eth1"));
    ip("link set eth1 up");
    let bridges = Netlink::start().unwrap();
    let add = |name: &str, kind, master: Option<&str>| BridgingChange::Add {
        name: name.into(),
        kind,
        mtu: 1450,
        master: master.map(Into::into),
    };
    let local = Ipv4Addr::new(10, 255, 1, own).into();
    let by = bridges.observe().await.unwrap().device("eth1").map(|device| device.index);
    let everybody =
        Forward { device: "vxlan100".into(), mac: None, to: Ipv4Addr::new(10, 255, 1, other).into(), by };
    let changes = [
        add("vmbr100", DeviceKind::Bridge, None),
        add("vxlan100", DeviceKind::Vxlan { vni: "100".parse().unwrap(), local }, Some("vmbr100")),
        BridgingChange::Forward(everybody),
    ];
    for outcome in bridges.apply(&changes).await {
        outcome.unwrap();
    }
    // The bridge learns its card from its first frame, with which it looks for others of its link-local address.
    ip(&format!("link add vnet1 type veth peer name guest address 52:54:00:00:00:0{own}"));
    ip("link set vnet1 up master vmbr100");
    ip("link set guest up");
    bridges
}

pub(crate) async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let so = async {
        while !is_so().await {
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(LONG, so).await.unwrap_or_else(|_| panic!("never: {what}"));
}

/// Whether frames for the guest beside go there alone.
async fn is_told(bridges: &dyn Bridges) -> bool {
    let seen = bridges.observe().await.unwrap();
    seen.routed.iter().any(|f| f.to_string() == "frames for 52:54:00:00:00:02 on vxlan100 to 10.255.1.2")
}

#[test]
fn cards_are_told_from_node_to_node_and_our_entries_outlive_the_session() {
    alone(async || {
        let beside = Beside::new();
        ip(&format!("link add eth1 type veth peer name eth1 netns {}", beside.thread_id));
        let mut there = beside.run(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                node(2, 1).await;
                Daemons::start().await
            })
        });
        let bridges = node(1, 2).await;
        let here = Daemons::start().await;
        let (frr, other) = (Frr::named(&here.space), Frr::named(&there.space));
        let before = bridges.observe().await.unwrap().forwards;
        frr.load(&routing(1, true, &[(2, Role::Hypervisor)])).await.unwrap();
        other.load(&routing(2, false, &[(1, Role::Coordinator)])).await.unwrap();
        until("a session", async || {
            let speaking = frr.speaking().await.unwrap();
            matches!(speaking, Speaking::As { neighbours, .. } if neighbours.values().all(|there| *there))
        })
        .await;
        until("the card is told", async || is_told(&*bridges).await).await;
        let seen = bridges.observe().await.unwrap();
        assert_eq!((&seen.forwards, seen.learnt.len()), (&before, 0), "it writes none for everybody");

        there.kill_bgpd();
        until("the card is taken back", async || !is_told(&*bridges).await).await;
        assert_eq!(bridges.observe().await.unwrap().forwards, before, "frames are flooded");
    });
}
