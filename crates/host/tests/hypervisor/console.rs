//! One contract for consoles, on the fake and on real guests; then what only the real one can be put through.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use pvc_core::model::VmId;
use pvc_host::{
    hypervisor::{
        Hypervisor, Peer, Transport,
        console::{Console, ConsoleError, Consoles, End, Heard, Hold, MOST_PRINTED, MOST_TYPED, Place},
        fake::{FakeConsoles, FakeGuest},
        libvirt::{Deadlines, LibvirtConsoles, LibvirtHypervisor},
    },
    testing::{LibvirtdProcess, echoing_firmware, flooding_firmware, serial_guest},
};
use tokio::time::timeout;

use crate::{contract::SOON, real::connect};

const PTY: &str = "<serial type='pty'><target port='0'/></serial>";

/// Who has guests.
enum World {
    Fake(Arc<FakeConsoles>),
    Real(Box<Real>),
}

struct Real {
    hypervisor: Arc<LibvirtHypervisor>,
    libvirtd: LibvirtdProcess,
}

struct Bench {
    consoles: Arc<dyn Consoles>,
    world: World,
}

fn fake() -> Bench {
    let fake = Arc::new(FakeConsoles::default());
    Bench { consoles: fake.clone(), world: World::Fake(fake) }
}

async fn real() -> Bench {
    let libvirtd = LibvirtdProcess::start().unwrap();
    let hypervisor = connect(&libvirtd.uri(), Deadlines::default()).await;
    let consoles = Arc::new(LibvirtConsoles::start(&libvirtd.uri(), 16).unwrap());
    Bench { consoles, world: World::Real(Box::new(Real { hypervisor, libvirtd })) }
}

impl Bench {
    /// Starts a guest that does this, or is defined with this serial port.
    async fn start(&self, guest: FakeGuest) -> VmId {
        let id: VmId = "33333333-0000-4000-8000-000000000001".parse().unwrap();
        match &self.world {
            World::Fake(fake) => fake.put(&Place::Here, id, guest),
            World::Real(real) => real.start(id, guest).await,
        }
        id
    }

    async fn end(&self, id: VmId) {
        match &self.world {
            World::Fake(fake) => fake.remove(&Place::Here, id),
            World::Real(real) => real.hypervisor.power_off(id).await.unwrap(),
        }
    }

    async fn open(&self, id: VmId, hold: Hold) -> Result<Console, ConsoleError> {
        self.consoles.open(&Place::Here, id, hold).await
    }
}

impl Real {
    async fn start(&self, id: VmId, guest: FakeGuest) {
        let (firmware, serial) = match guest {
            FakeGuest::Echoes => (echoing_firmware(), PTY.to_owned()),
            FakeGuest::Floods => (flooding_firmware(), PTY.to_owned()),
            FakeGuest::Defined(xml) => {
                let devices = xml.strip_prefix("<domain><devices>").unwrap();
                (echoing_firmware(), devices.strip_suffix("</devices></domain>").unwrap().to_owned())
            }
        };
        let file: PathBuf = self.libvirtd.folder().join("firmware.bin");
        std::fs::write(&file, firmware).unwrap();
        let xml = serial_guest(id, "typed", &file, &serial);
        let spec = pvc_core::model::DomainSpec::parse(&xml).unwrap();
        self.hypervisor.start(&spec).await.unwrap();
    }
}

/// What is printed until this is, within a minute.
async fn printed(console: &mut Console, until: &str) -> String {
    let mut seen = String::new();
    let read = async {
        while !seen.contains(until) {
            match console.next().await {
                Heard::Printed(bytes) => seen.push_str(&String::from_utf8_lossy(&bytes)),
                other => panic!("{other:?} after {seen:?}"),
            }
        }
    };
    assert!(timeout(SOON, read).await.is_ok(), "{until:?} was not printed");
    seen
}

/// What it ends with, within a minute.
async fn end(console: &mut Console) -> End {
    let read = async {
        loop {
            if let Heard::Ended(end) = console.next().await {
                return end;
            }
        }
    };
    timeout(SOON, read).await.expect("it ended")
}

async fn what_is_typed_reaches_the_guest_and_what_it_prints_is_heard(bench: Bench) {
    let id = bench.start(FakeGuest::Echoes).await;
    let mut console = bench.open(id, Hold::IfFree).await.unwrap();
    assert!(console.write(b"hello"));
    printed(&mut console, "HELLO").await;
    let long = "abcdefghij".repeat(300);
    assert!(console.write(long.as_bytes()));
    assert!(console.write(b"q"));
    assert!(printed(&mut console, "Q").await.contains(&long.to_uppercase()), "nothing of it is lost");
    drop(console);
    // Whoever comes next finds it free as soon as libvirt has noticed.
    let begun = Instant::now();
    let mut console = loop {
        match bench.open(id, Hold::IfFree).await {
            Err(ConsoleError::Taken) if begun.elapsed() < SOON => tokio::task::yield_now().await,
            opened => break opened.unwrap(),
        }
    };
    assert!(console.write(b"again"));
    printed(&mut console, "AGAIN").await;
}

async fn one_at_a_time_has_it_unless_the_other_takes_it(bench: Bench) {
    let id = bench.start(FakeGuest::Echoes).await;
    let mut first = bench.open(id, Hold::IfFree).await.unwrap();
    assert_eq!(bench.open(id, Hold::IfFree).await.unwrap_err(), ConsoleError::Taken);
    assert!(first.write(b"mine"));
    printed(&mut first, "MINE").await;
    let mut second = bench.open(id, Hold::Take).await.unwrap();
    assert_eq!(end(&mut first).await, End::Closed);
    assert!(second.write(b"now mine"));
    printed(&mut second, "NOW").await;
}

async fn the_end_of_a_guest_is_the_end_of_its_console(bench: Bench) {
    let id = bench.start(FakeGuest::Echoes).await;
    let mut console = bench.open(id, Hold::IfFree).await.unwrap();
    assert!(console.write(b"bye"));
    printed(&mut console, "BYE").await;
    bench.end(id).await;
    assert_eq!(end(&mut console).await, End::Closed);
    assert_eq!(bench.open(id, Hold::Take).await.unwrap_err(), ConsoleError::NotActive(Place::Here));
}

async fn a_guest_without_a_console_to_type_on_says_what_it_lacks(bench: Bench) {
    let file = "<serial type='file'><source path='/var/log/libvirt/qemu/x.console'/></serial>";
    let id = bench.start(FakeGuest::Defined(format!("<domain><devices>{file}</devices></domain>"))).await;
    let lack = bench.open(id, Hold::IfFree).await.unwrap_err();
    assert!(matches!(&lack, ConsoleError::Lacking(text) if text.contains("is a \"file\"")), "{lack}");
    bench.end(id).await;
    let id = bench.start(FakeGuest::Defined("<domain><devices></devices></domain>".into())).await;
    let lack = bench.open(id, Hold::IfFree).await.unwrap_err();
    assert!(matches!(&lack, ConsoleError::Lacking(text) if text.contains("has no serial")), "{lack}");
}

async fn who_reads_slowly_loses_the_oldest_and_is_told(bench: Bench) {
    let id = bench.start(FakeGuest::Floods).await;
    let mut console = bench.open(id, Hold::IfFree).await.unwrap();
    // It reads nothing either, and its line takes so much.
    assert!(console.write(&[b'y'; 1024]));
    let mut unread_for = Duration::from_millis(50);
    let read = async {
        loop {
            // Nobody reads meanwhile, for longer and longer: how fast the guest is depends on the machine.
            tokio::time::sleep(unread_for).await;
            unread_for *= 2;
            match console.next().await {
                Heard::Lost(bytes) => break bytes,
                Heard::Printed(bytes) => assert!(bytes.len() <= MOST_PRINTED),
                Heard::Ended(end) => panic!("{end:?}"),
            }
        }
    };
    assert!(timeout(SOON, read).await.unwrap() > 0);
    assert!(matches!(console.next().await, Heard::Printed(bytes) if bytes.contains(&b'x')));
}

macro_rules! contract {
    ($($test:ident),+ $(,)?) => {
        mod fakes {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $test() {
                super::$test(super::fake()).await;
            })+
        }
        mod libvirts {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $test() {
                super::$test(super::real().await).await;
            })+
        }
    };
}

contract!(
    what_is_typed_reaches_the_guest_and_what_it_prints_is_heard,
    one_at_a_time_has_it_unless_the_other_takes_it,
    the_end_of_a_guest_is_the_end_of_its_console,
    a_guest_without_a_console_to_type_on_says_what_it_lacks,
    who_reads_slowly_loses_the_oldest_and_is_told,
);

fn world(bench: &Bench) -> &Real {
    match &bench.world {
        World::Real(real) => real,
        World::Fake(_) => panic!("this is about the real one"),
    }
}

/// As the daemon's own calls of it never wait for a console: they have other connections, threads and slots.
#[tokio::test(flavor = "multi_thread")]
async fn a_libvirtd_that_dies_ends_the_console_and_not_the_guest() {
    let bench = real().await;
    let id = bench.start(FakeGuest::Echoes).await;
    let real = world(&bench);
    let at = Place::Peer(Peer { host: "other".into(), transport: Transport::Socket(real.libvirtd.socket()) });
    let mut console = bench.consoles.open(&at, id, Hold::IfFree).await.unwrap();
    assert!(console.write(b"peer"));
    printed(&mut console, "PEER").await;
    real.libvirtd.kill().unwrap();
    assert!(matches!(end(&mut console).await, End::Lost(_)));
    let gone = bench.consoles.open(&at, id, Hold::IfFree).await.unwrap_err();
    assert!(matches!(gone, ConsoleError::Unreachable { .. }), "{gone}");
    real.libvirtd.launch().unwrap();
    let mut console = bench.consoles.open(&at, id, Hold::IfFree).await.unwrap();
    assert!(console.write(b"back"));
    printed(&mut console, "BACK").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_libvirtd_is_given_up_in_time_and_where_nobody_listens_it_is_said_what_to_configure() {
    let bench = real().await;
    let id = bench.start(FakeGuest::Echoes).await;
    let nobody = Place::Peer(Peer { host: "127.0.0.1".into(), transport: Transport::Tcp });
    let error = bench.consoles.open(&nobody, id, Hold::IfFree).await.unwrap_err().to_string();
    assert!(error.contains("listen_tcp = 1") && error.contains("127.0.0.1"), "{error}");
    let mut console = bench.open(id, Hold::IfFree).await.unwrap();
    let real = world(&bench);
    real.libvirtd.freeze().unwrap();
    let late = bench.open(id, Hold::IfFree).await.unwrap_err();
    assert!(matches!(late, ConsoleError::Late { .. } | ConsoleError::Unreachable { .. }), "{late}");
    // Whoever asks again and again takes no more than two places, and others are answered.
    let (one, other) = tokio::join!(bench.open(id, Hold::IfFree), bench.open(id, Hold::IfFree));
    let refused = [one.unwrap_err().to_string(), other.unwrap_err().to_string()];
    assert!(refused.iter().any(|why| why.contains("are being opened already")), "{refused:?}");
    assert!(
        bench
            .consoles
            .open(&nobody, id, Hold::IfFree)
            .await
            .is_err_and(|e| e.to_string().contains("listen_tcp"))
    );
    assert!(
        matches!(end(&mut console).await, End::Lost(_)),
        "a connection that is silent for long is closed"
    );
    real.libvirtd.thaw().unwrap();
}

/// libvirtd stops reading from a client whose requests wait for a guest, and then hears no answer to its keepalives.
#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_reads_nothing_of_much_that_is_typed_costs_the_connection_and_it_can_be_opened_again() {
    let bench = real().await;
    let id = bench.start(FakeGuest::Floods).await;
    let mut console = bench.open(id, Hold::IfFree).await.unwrap();
    assert!(console.write(&vec![b'y'; MOST_TYPED]));
    assert!(matches!(end(&mut console).await, End::Lost(_)));
    drop(console);
    let begun = Instant::now();
    let mut console = loop {
        match bench.open(id, Hold::IfFree).await {
            Err(ConsoleError::Taken) if begun.elapsed() < SOON => tokio::task::yield_now().await,
            opened => break opened.unwrap(),
        }
    };
    printed(&mut console, "x").await;
}
