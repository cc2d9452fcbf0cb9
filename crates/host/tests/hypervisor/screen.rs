//! One contract for screens, on the fake and on real guests; then what only a real one has.

use std::{io::Read, sync::Arc, time::Duration};

use pvc_core::model::{DomainSpec, VmId};
use pvc_host::{
    hypervisor::{
        Hypervisor as _,
        fake::{FakeDisplay, FakeScreens, look},
        libvirt::{Deadlines, LibvirtHypervisor, LibvirtScreens},
        screen::{ScreenError, Screens},
    },
    testing::{LibvirtdProcess, tiny_guest},
};

use crate::{contract::SOON, real::connect};

/// Who has guests.
enum World {
    Fake(Arc<FakeScreens>),
    Real(Arc<LibvirtHypervisor>, Box<LibvirtdProcess>),
}

struct Bench {
    screens: Arc<dyn Screens>,
    world: World,
}

fn fake() -> Bench {
    let fake = Arc::new(FakeScreens::default());
    Bench { screens: fake.clone(), world: World::Fake(fake) }
}

async fn real() -> Bench {
    let libvirtd = LibvirtdProcess::start().unwrap();
    let hypervisor = connect(&libvirtd.uri(), Deadlines::default()).await;
    let screens = Arc::new(LibvirtScreens::start(&libvirtd.uri()).unwrap());
    Bench { screens, world: World::Real(hypervisor, Box::new(libvirtd)) }
}

impl Bench {
    /// Starts a guest with these displays.
    async fn start(&self, displays: &str) -> VmId {
        let id: VmId = "33333333-0000-4000-8000-000000000002".parse().unwrap();
        match &self.world {
            World::Fake(fake) => {
                let xml = format!("<domain><devices>{displays}</devices></domain>");
                fake.put(id, FakeDisplay::Defined(xml));
            }
            World::Real(hypervisor, _) => {
                let xml = tiny_guest(id, "seen").replace("</devices>", &format!("{displays}</devices>"));
                hypervisor.start(&DomainSpec::parse(&xml).unwrap()).await.unwrap();
            }
        }
        id
    }

    async fn end(&self, id: VmId) {
        match &self.world {
            World::Fake(fake) => fake.remove(id),
            World::Real(hypervisor, _) => hypervisor.power_off(id).await.unwrap(),
        }
    }
}

const VNC: &str = "<graphics type='vnc' listen='127.0.0.1' autoport='yes'/>";

async fn a_screen_is_seen_by_several_and_ends_with_its_guest(bench: Bench) {
    let id = bench.start(VNC).await;
    let mut streams = Vec::new();
    for _ in 0..2 {
        let stream = bench.screens.open(id).await.unwrap().into_stream();
        stream.set_read_timeout(Some(SOON)).unwrap();
        streams.push(stream);
    }
    for stream in &mut streams {
        let seen = look(stream).unwrap();
        assert!(seen.width > 0 && !seen.pixels.is_empty());
    }
    bench.end(id).await;
    for stream in &mut streams {
        stream.set_read_timeout(Some(SOON)).unwrap();
        let mut rest = Vec::new();
        assert!(stream.read_to_end(&mut rest).is_ok(), "it ends");
    }
    assert_eq!(bench.screens.open(id).await.unwrap_err(), ScreenError::NotActive);
}

async fn a_guest_without_one_is_refused_with_what_to_write(bench: Bench) {
    let id = bench.start("").await;
    let Err(ScreenError::Lacking(lack)) = bench.screens.open(id).await else { panic!("it has none") };
    assert!(lack.contains("has no screen") && lack.contains("<graphics type='vnc'"), "{lack}");
}

#[tokio::test]
async fn fake_a_screen_is_seen_by_several_and_ends_with_its_guest() {
    a_screen_is_seen_by_several_and_ends_with_its_guest(fake()).await;
}

#[tokio::test]
async fn real_a_screen_is_seen_by_several_and_ends_with_its_guest() {
    a_screen_is_seen_by_several_and_ends_with_its_guest(real().await).await;
}

#[tokio::test]
async fn fake_a_guest_without_one_is_refused_with_what_to_write() {
    a_guest_without_one_is_refused_with_what_to_write(fake()).await;
}

#[tokio::test]
async fn real_a_guest_without_one_is_refused_with_what_to_write() {
    a_guest_without_one_is_refused_with_what_to_write(real().await).await;
}

/// Where QEMU listens does not matter: nobody connects there.
#[tokio::test]
async fn a_display_that_listens_nowhere_or_on_a_socket_is_seen_too() {
    let bench = real().await;
    for displays in [
        "<graphics type='vnc'><listen type='none'/></graphics>",
        "<graphics type='vnc'><listen type='socket'/></graphics>",
        "<graphics type='vnc' listen='0.0.0.0' port='5977'/>",
    ] {
        let id = bench.start(displays).await;
        let mut stream = bench.screens.open(id).await.unwrap().into_stream();
        stream.set_read_timeout(Some(SOON)).unwrap();
        look(&mut stream).unwrap_or_else(|error| panic!("{displays}: {error}"));
        bench.end(id).await;
    }
}

/// Its password is asked for as everywhere, and nothing of ours knows it.
#[tokio::test]
async fn a_display_with_a_password_asks_for_it() {
    let bench = real().await;
    let id = bench.start("<graphics type='vnc' listen='127.0.0.1' autoport='yes' passwd='swordfis'/>").await;
    let mut stream = bench.screens.open(id).await.unwrap().into_stream();
    stream.set_read_timeout(Some(SOON)).unwrap();
    assert_eq!(look(&mut stream).unwrap_err().to_string(), "it asks who this is");
}

/// Neither libvirtd's end nor a new one's beginning disturbs who looks.
#[tokio::test]
async fn a_screen_outlives_libvirtd() {
    let bench = real().await;
    let id = bench.start(VNC).await;
    let mut stream = bench.screens.open(id).await.unwrap().into_stream();
    stream.set_read_timeout(Some(SOON)).unwrap();
    let World::Real(_, libvirtd) = &bench.world else { panic!("there is no libvirtd") };
    libvirtd.kill().unwrap();
    assert!(look(&mut stream).is_ok());
    let refused = tokio::time::timeout(Duration::from_secs(30), bench.screens.open(id)).await;
    assert!(matches!(refused, Ok(Err(ScreenError::Failed(_)))), "{refused:?}");
}
