//! A process that changes an image freezes between two steps, for longer than Ceph waits for it. That process is another one than the test's.
#![allow(clippy::disallowed_methods, reason = "tests start processes, and look at the clock")]

use std::{
    env, fs,
    io::{BufRead, BufReader},
    process::{Child, ChildStdout, Command, Stdio},
    thread,
    time::Duration,
};

use async_trait::async_trait;
use pvc_core::model::storage_command::Bytes;
use rustix::process::{Pid, Signal, getpid, kill_process};

use super::*;
use crate::testing::ceph::QemuWriter;

/// Where the process freezes.
const AT: &str = "PVC_TEST_FREEZES_AT";
/// `CONFIGURATION IMAGE WHAT`.
const CHANGES: &str = "PVC_TEST_CHANGES";
const CHILD: &str = "ceph::librados::change::tests::frozen::the_process_that_changes_an_image";
const MIB: u64 = 1 << 20;

/// Freezes this process if it is to freeze at this step.
pub(crate) fn freeze_at(step: &str) {
    if env::var(AT).is_ok_and(|at| at == step) {
        kill_process(getpid(), Signal::STOP).unwrap();
    }
}

/// Says by which client it is asked for.
struct Says;

#[async_trait]
impl Warrant for Says {
    async fn holds(&self) -> Result<(), Void> {
        Ok(())
    }

    async fn holds_for(&self, client: &ClientAddress) -> Result<(), Void> {
        println!("\nCLIENT {client}");
        Ok(())
    }
}

fn change(image: &ImageName, what: &str) -> CephChange {
    let image = image.clone();
    if what == "rename" {
        return CephChange::RenameImage { image, to: "renamed".parse().unwrap() };
    }
    if what == "shrink" {
        return CephChange::ResizeImage { image, size: Bytes(MIB), shrinks: true };
    }
    let marks = ["7-1 begun", "7-1 done"].map(str::to_owned);
    CephChange::RollBack { image, snapshot: "a".parse().unwrap(), marks }
}

async fn make(ceph: &Librados, image: &ImageName, what: &str) -> Result<(), CephError> {
    let id = ceph.image(image).await?.unwrap().id;
    let only_if = OnlyIf { warrant: &Says, image: id.as_deref() };
    ceph.change(&change(image, what), only_if, &Progress::default()).await
}

/// By itself it does nothing.
#[tokio::test]
async fn the_process_that_changes_an_image() {
    let Ok(changes) = env::var(CHANGES) else { return };
    let [configuration, image, what] = changes.split(' ').collect::<Vec<_>>()[..] else {
        panic!("{changes}")
    };
    let ceph = Librados::new(Access { configuration: configuration.to_owned(), ..Access::default() });
    let outcome = make(&ceph, &image.parse().unwrap(), what).await;
    println!("\nOUTCOME {outcome:?}");
}

struct Frozen {
    step: &'static str,
    what: &'static str,
    image: ImageName,
    child: Child,
    said: BufReader<ChildStdout>,
    client: ClientAddress,
}

impl Frozen {
    /// An image that holds 2, and 1 in its snapshot `a`, and a process that is frozen at a step of changing it.
    fn new(cluster: &CephCluster, what: &'static str, step: &'static str) -> Self {
        let image: ImageName = format!("{POOL}/{what}-{step}").parse().unwrap();
        cluster.create(image.volume.as_str()).unwrap();
        let mut writer = cluster.open(&image).unwrap();
        assert!(writes(&mut writer, 1));
        cluster.rbd(&["snap", "create", &format!("{image}@a")]).unwrap();
        assert!(writes(&mut writer, 2));
        writer.close().unwrap();
        let mut child = Command::new("/usr/bin/setpriv")
            .args(["--pdeathsig=KILL", "--"])
            .arg(env::current_exe().unwrap())
            .args(["--exact", CHILD, "--nocapture"])
            .env(AT, step)
            .env(CHANGES, format!("{} {image} {what}", cluster.configuration()))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(child.stdout.take().unwrap());
        let client = hear(&mut said, "CLIENT ").parse().unwrap();
        let stat = format!("/proc/{}/stat", child.id());
        while !fs::read_to_string(&stat).unwrap().contains(") T ") {
            thread::sleep(Duration::from_millis(20));
        }
        Self { step, what, image, child, said, client }
    }

    /// It goes on; what it says of its change then.
    fn goes_on(mut self) -> String {
        kill_process(Pid::from_child(&self.child), Signal::CONT).unwrap();
        hear(&mut self.said, "OUTCOME ")
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn hear(said: &mut impl BufRead, what: &str) -> String {
    loop {
        let mut line = String::new();
        assert!(said.read_line(&mut line).unwrap() > 0, "it has ended without {what}");
        if let Some(rest) = line.strip_prefix(what) {
            return rest.trim().to_owned();
        }
    }
}

fn writes(writer: &mut QemuWriter, byte: u8) -> bool {
    writer.begin(byte).unwrap();
    writer.end().unwrap()
}

/// Waits until Ceph takes whoever had it open for dead.
async fn is_silent(ceph: &Librados, image: &ImageName) {
    while !ceph.users(image).await.unwrap().unwrap_or_default().watchers.is_empty() {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

const STEPS: [&str; 6] = ["warranted", "asked", "opened", "locked", "looked", "marked"];

/// The next primary shuts out the client that stands at the task, and makes the change; then a VM starts. The figures are for people.
#[tokio::test]
async fn a_change_that_froze_between_any_two_steps_does_nothing_after_the_next_primary() {
    let cluster = CephCluster::start().unwrap();
    let ceph = Librados::new(Access { configuration: cluster.configuration(), ..Access::default() });
    let all = STEPS.map(|step| Frozen::new(&cluster, "rollback", step));
    for frozen in all {
        let (image, step) = (frozen.image.clone(), frozen.step);
        is_silent(&ceph, &image).await;
        let began = Instant::now();
        ceph.retire(&frozen.client, std::slice::from_ref(&image)).await.unwrap();
        make(&ceph, &image, frozen.what).await.unwrap();
        println!("{step}: carried on within {:.3?}", began.elapsed());
        assert_eq!(cluster.contents(&image).unwrap(), 1, "{step}");
        let mut vm = cluster.open(&image).unwrap();
        assert!(writes(&mut vm, 3), "{step}");
        let outcome = frozen.goes_on();
        println!("{step}: {outcome}");
        assert!(outcome.starts_with("Err"), "{step}: {outcome}");
        assert_eq!(cluster.contents(&image).unwrap(), 3, "{step}");
        assert!(writes(&mut vm, 4), "{step}");
    }
}

/// Nobody carries it on, and somebody opens the image all the same.
#[tokio::test]
async fn who_opens_an_image_while_its_change_is_frozen_loses_nothing() {
    let cluster = CephCluster::start().unwrap();
    let ceph = Librados::new(Access { configuration: cluster.configuration(), ..Access::default() });
    let mut all: Vec<Frozen> = STEPS.map(|step| Frozen::new(&cluster, "rollback", step)).into();
    all.extend(["asked", "opened", "locked", "looked"].map(|step| Frozen::new(&cluster, "shrink", step)));
    for frozen in all {
        let (image, step, what) = (frozen.image.clone(), frozen.step, frozen.what);
        is_silent(&ceph, &image).await;
        let mut vm = cluster.open(&image).unwrap();
        assert!(writes(&mut vm, 3), "{what}, {step}");
        let outcome = frozen.goes_on();
        println!("{what}, {step}: {outcome}");
        assert!(outcome.starts_with("Err"), "{what}, {step}: {outcome}");
        assert!(writes(&mut vm, 4), "{what}, {step}");
        assert_eq!(cluster.contents(&image).unwrap(), 4, "{what}, {step}");
        assert_eq!(ceph.image(&image).await.unwrap().unwrap().stats.size, 4 * MIB, "{what}, {step}");
    }
}

/// Who lives is waited for, and who is not seen is shut out.
#[tokio::test]
async fn a_client_that_lives_ends_its_change_and_one_that_is_not_seen_does_nothing_more() {
    let cluster = CephCluster::start().unwrap();
    let ceph = Librados::new(Access { configuration: cluster.configuration(), ..Access::default() });
    let image: ImageName = format!("{POOL}/one").parse().unwrap();
    cluster.create("one").unwrap();
    let mut writer = cluster.open(&image).unwrap();
    assert!(writes(&mut writer, 1));
    let client = ceph.users(&image).await.unwrap().unwrap().watchers[0];
    let images = [image];
    assert!(matches!(ceph.retire(&client, &images).await, Err(CephError::Late { .. })));
    assert!(writes(&mut writer, 2));
    writer.freeze().unwrap();
    ceph.retire(&client, &images).await.unwrap();
    // An OSD learns it from whoever speaks to it next.
    assert_eq!(cluster.contents(&images[0]).unwrap(), 2);
    writer.thaw().unwrap();
    assert!(!writes(&mut writer, 3));
    ceph.retire(&client, &[]).await.unwrap();
}

/// Killed at any moment of a renaming: what it has left, and that the next primary ends it. The two states between its steps are made besides, since nobody can
/// be killed in them at will. The figures are for people.
#[tokio::test]
async fn a_renaming_that_is_cut_off_anywhere_is_ended_by_the_next_primary() {
    let cluster = CephCluster::start().unwrap();
    let ceph = Librados::new(Access { configuration: cluster.configuration(), ..Access::default() });
    let new: ImageName = format!("{POOL}/renamed").parse().unwrap();
    let names = || {
        let all = cluster.rados(&["-p", POOL, "ls"]).unwrap();
        all.lines().filter(|object| object.starts_with("rbd_id.")).map(str::to_owned).collect::<Vec<_>>()
    };
    let is_ended = async |image: &ImageName, what: &str| {
        let there = ceph.image(image).await.unwrap().is_some();
        if there {
            make(&ceph, image, "rename").await.unwrap();
        }
        assert_eq!(names(), ["rbd_id.renamed"], "{what}");
        assert_eq!(ceph.images(&image.pool).await.unwrap(), ["renamed"], "{what}");
        assert_eq!(cluster.contents(&new).unwrap(), 2, "{what}");
        cluster.rbd(&["snap", "purge", "--no-progress", &new.to_string()]).unwrap();
        cluster.rbd(&["rm", "--no-progress", &new.to_string()]).unwrap();
    };
    // Where it is renamed in half of the cases, it is in the middle of it sometimes.
    let (mut least, mut most) = (Duration::ZERO, Duration::from_millis(40));
    for _ in 0..12 {
        let delay = (least + most) / 2;
        let frozen = Frozen::new(&cluster, "rename", "looked");
        let (image, client) = (frozen.image.clone(), frozen.client);
        kill_process(Pid::from_child(&frozen.child), Signal::CONT).unwrap();
        thread::sleep(delay);
        drop(frozen);
        let left = names();
        if left == ["rbd_id.renamed"] {
            most = delay;
        } else {
            least = delay;
        }
        let began = Instant::now();
        ceph.retire(&client, &[image.clone(), new.clone()]).await.unwrap();
        is_ended(&image, &format!("{delay:?}: {left:?}")).await;
        println!("killed after {delay:.1?}: {left:?}, ended within {:.1?}", began.elapsed());
    }
    for in_list in ["old", "new"] {
        let image: ImageName = format!("{POOL}/{in_list}").parse().unwrap();
        cluster.create(in_list).unwrap();
        let mut writer = cluster.open(&image).unwrap();
        assert!(writes(&mut writer, 2));
        writer.close().unwrap();
        if in_list == "new" {
            cluster.rbd(&["rename", &image.to_string(), &new.to_string()]).unwrap();
        }
        let (from, to) = if in_list == "new" { ("renamed", in_list) } else { (in_list, "renamed") };
        cluster.rados(&["-p", POOL, "cp", &format!("rbd_id.{from}"), &format!("rbd_id.{to}")]).unwrap();
        let ids =
            [ceph.image(&image).await.unwrap().unwrap().id, ceph.image(&new).await.unwrap().unwrap().id];
        assert!(ids[0].is_some() && ids[0] == ids[1], "one image has both names");
        is_ended(&image, in_list).await;
    }
}
