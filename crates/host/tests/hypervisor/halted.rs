//! Guests that have a process and do not execute: by somebody's hand, by an I/O error, after a panic. Real QEMU.

use std::{path::PathBuf, sync::Arc};

use pvc_core::model::{DomainSpec, VmId};
use pvc_host::{
    hypervisor::{
        Activity, Event, Halt, Hypervisor, Peer, Transport,
        libvirt::{Deadlines, LibvirtHypervisor},
    },
    testing::{LibvirtdProcess, tiny_guest},
};

use crate::{contract::event, faults::until, real::connect};

fn spec(n: u32, name: &str, change: impl FnOnce(String) -> String) -> DomainSpec {
    let id: VmId = format!("55555555-0000-4000-8000-{n:012}").parse().unwrap();
    let xml = change(tiny_guest(id, name));
    DomainSpec { xml, id, name: name.parse().unwrap(), memory_mib: 16, vcpus: 1, rbd_images: Vec::new() }
}

/// Its firmware reads the disk to boot from it, and every read fails, as if the storage was gone.
fn with_a_dead_disk(libvirtd: &LibvirtdProcess) -> DomainSpec {
    let folder: PathBuf = libvirtd.folder().into();
    std::fs::write(folder.join("disk"), vec![0; 1 << 20]).unwrap();
    std::fs::write(folder.join("errors"), "[inject-error]\nevent = \"read_aio\"\nerrno = \"5\"\n").unwrap();
    let disk = format!("blkdebug:{0}/errors:{0}/disk", folder.display());
    spec(1, "broken", |xml| {
        let schema = "<domain type='qemu' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>";
        let drive = format!("file={disk},format=raw,if=ide,rerror=stop,werror=stop");
        let arguments = format!("<qemu:arg value='-drive'/><qemu:arg value='{drive}'/>");
        xml.replace("<domain type='qemu'>", schema)
            .replace("</domain>", &format!("<qemu:commandline>{arguments}</qemu:commandline></domain>"))
    })
}

/// Its firmware tells its panic device at once that it has panicked.
fn that_panics(libvirtd: &LibvirtdProcess) -> DomainSpec {
    // Real mode: mov dx, 0x505; mov al, 1; out dx, al; then it loops.
    const PROGRAM: [u8; 8] = [0xba, 0x05, 0x05, 0xb0, 0x01, 0xee, 0xeb, 0xfe];
    let mut firmware = vec![0; 0x1_0000];
    firmware[..PROGRAM.len()].copy_from_slice(&PROGRAM);
    firmware[0xfff0..0xfff5].copy_from_slice(&[0xea, 0, 0, 0, 0xf0]);
    let path = libvirtd.folder().join("firmware");
    std::fs::write(&path, firmware).unwrap();
    spec(2, "panics", |xml| {
        xml.replace("</type>", &format!("</type><loader type='rom'>{}</loader>", path.display()))
            .replace("<devices>", "<on_crash>preserve</on_crash><devices><panic model='isa'/>")
    })
}

async fn activity(hypervisor: &LibvirtHypervisor, guest: &DomainSpec) -> Option<Activity> {
    hypervisor.seen(guest.id).await.unwrap().map(|seen| seen.activity)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_whose_disk_fails_is_seen_as_stopped_by_that_and_an_event_says_so() {
    let libvirtd = LibvirtdProcess::start().unwrap();
    let hypervisor = connect(&libvirtd.uri(), Deadlines::default()).await;
    let guest = with_a_dead_disk(&libvirtd);
    let mut events = hypervisor.events();
    hypervisor.start(&guest).await.unwrap();
    until("it is stopped", async || {
        activity(&hypervisor, &guest).await == Some(Activity::Halted(Halt::IoError))
    })
    .await;
    event(&mut events, |event| *event == Event::Domain(guest.id)).await;
    hypervisor.resume(guest.id).await.unwrap();
    assert_eq!(
        activity(&hypervisor, &guest).await,
        Some(Activity::Halted(Halt::IoError)),
        "it is left alone"
    );
    // Its libvirt knows after a crash, too.
    libvirtd.kill().unwrap();
    libvirtd.launch().unwrap();
    until("it is seen again", async || hypervisor.seen(guest.id).await.is_ok()).await;
    assert_eq!(activity(&hypervisor, &guest).await, Some(Activity::Halted(Halt::IoError)));
    hypervisor.power_off(guest.id).await.unwrap();
    assert_eq!(activity(&hypervisor, &guest).await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_panics_and_whose_process_stays_is_seen_as_crashed_and_an_event_says_so() {
    let libvirtd = LibvirtdProcess::start().unwrap();
    let hypervisor = connect(&libvirtd.uri(), Deadlines::default()).await;
    let guest = that_panics(&libvirtd);
    let mut events = hypervisor.events();
    hypervisor.start(&guest).await.unwrap();
    until("it has crashed", async || {
        activity(&hypervisor, &guest).await == Some(Activity::Halted(Halt::Crashed))
    })
    .await;
    event(&mut events, |event| *event == Event::Domain(guest.id)).await;
    hypervisor.power_off(guest.id).await.unwrap();
    assert_eq!(activity(&hypervisor, &guest).await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_an_io_error_has_stopped_migrates_and_stays_stopped() {
    let [(source, from), (target, to)] = LibvirtdProcess::start_two().unwrap();
    let _ = from;
    let hypervisor: Arc<LibvirtHypervisor> = connect(&source.uri(), Deadlines::default()).await;
    let there = connect(&target.uri(), Deadlines::default()).await;
    let guest = with_a_dead_disk(&source);
    hypervisor.start(&guest).await.unwrap();
    until("it is stopped", async || {
        activity(&hypervisor, &guest).await == Some(Activity::Halted(Halt::IoError))
    })
    .await;
    let peer = Peer { host: to.to_owned(), transport: Transport::Tcp };
    let outcome = hypervisor.migrate(guest.id, &peer).await;

    outcome.unwrap();
    assert_eq!(activity(&hypervisor, &guest).await, None);
    assert!(activity(&there, &guest).await.and_then(Activity::halt).is_some());
}
