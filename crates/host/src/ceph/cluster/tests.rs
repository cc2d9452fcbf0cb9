//! Every function of the libraries that we call, on a real Ceph, without deadlines of ours: so that it can also be carried out under valgrind, which makes it
//! many times slower (`cargo xtask ci memcheck`).

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

use super::*;
use crate::{
    ceph::Progress,
    testing::ceph::{CephCluster, POOL},
};

/// An object of an image.
const OBJECT: u64 = 1 << 22;

fn connect(cluster: &CephCluster) -> Cluster {
    let patient = [
        ("client_mount_timeout", "120"),
        ("rados_mon_op_timeout", "120"),
        ("rados_osd_op_timeout", "120"),
        ("ms_async_op_threads", "1"),
        ("log_to_stderr", "false"),
        ("err_to_stderr", "false"),
        ("admin_socket", ""),
    ];
    let libraries = Libraries::load().unwrap();
    Cluster::connect(libraries, "client.admin", &cluster.configuration(), &patient).unwrap()
}

fn fails<T: std::fmt::Debug>(outcome: Result<T, Fault>, errno: c_int) {
    assert_eq!(outcome.unwrap_err().errno, errno);
}

fn of_the_cluster(ceph: &Cluster) {
    assert!(ceph.own_address().unwrap().contains('/'));
    assert!(ceph.ask_monitors(r#"{"prefix":"osd ls"}"#).unwrap().starts_with(b"0\n1"));
    fails(ceph.ask_monitors(r#"{"prefix":"osd nonsense"}"#), libc::EINVAL);
    ceph.await_latest_map().unwrap();
    // OSDs say how large they are some time after they run.
    let is_told = |_| {
        sleep(Duration::from_millis(100));
        ceph.stat().unwrap().kb > 0
    };
    assert!((0..600).any(is_told));
    assert!(ceph.pool_stat(POOL).unwrap().is_some() && ceph.pool_stat("none").unwrap().is_none());
    // A text that C cannot have.
    fails(ceph.create_image(POOL, "a\0b", OBJECT), 0);
}

/// More than the first look at each list has room for.
fn lists(ceph: &Cluster, cluster: &CephCluster) {
    assert!(ceph.images("none").unwrap().is_empty() && ceph.images(POOL).unwrap().is_empty());
    assert_eq!((ceph.count_namespaces(POOL).unwrap(), ceph.count_trash(POOL).unwrap()), (0, 0));
    cluster.rbd(&["namespace", "create", &format!("{POOL}/one")]).unwrap();
    cluster.rbd(&["create", "--size", "1", &format!("{POOL}/gone")]).unwrap();
    cluster.rbd(&["trash", "mv", &format!("{POOL}/gone")]).unwrap();
    assert_eq!((ceph.count_namespaces(POOL).unwrap(), ceph.count_trash(POOL).unwrap()), (1, 1));
    for number in 0..65 {
        ceph.create_image(POOL, &format!("image{number}"), 0).unwrap();
    }
    assert_eq!(ceph.images(POOL).unwrap().len(), 65);
    fails(ceph.create_image(POOL, "image0", 0), libc::EEXIST);
    fails(ceph.create_image("none", "image0", 0), libc::ENOENT);
}

fn of_an_image(ceph: &Cluster) {
    assert!(ceph.open(POOL, "none").unwrap().is_none() && ceph.open("none", "none").unwrap().is_none());
    ceph.create_image(POOL, "one", 2 * OBJECT).unwrap();
    let open = ceph.open_to_change(POOL, "one").unwrap();
    let stats = open.stats().unwrap();
    assert_eq!((stats.size, stats.objects, stats.features.len()), (2 * OBJECT, 2, 2));
    assert!(open.id().unwrap().is_some_and(|id| !id.is_empty()));
    assert_eq!((open.watchers().unwrap().len(), open.holders().unwrap().len()), (1, 0));
    open.lock().unwrap();
    let seen = ceph.open(POOL, "one").unwrap().unwrap();
    let holder = seen.holders().unwrap().pop().unwrap();
    seen.break_lock("client.1", &holder.cookie).unwrap();
    drop(seen);
    assert!(open.is_answered().unwrap());
    assert_eq!((open.changer().unwrap(), open.mark().unwrap()), (None, None));
    open.set_changer("10.0.0.1:0/1").unwrap();
    open.set_mark("1-1").unwrap();
    assert_eq!(open.changer().unwrap().as_deref(), Some("10.0.0.1:0/1"));
    assert_eq!(open.mark().unwrap().as_deref(), Some("1-1"));
    for number in 0..17 {
        open.create_snapshot(&format!("s{number}")).unwrap();
    }
    assert_eq!(open.snapshots().unwrap().len(), 17);
    open.rename_snapshot("s0", "t").unwrap();
    assert!(open.snapshot_id("t").unwrap().is_some() && open.snapshot_id("s0").unwrap().is_none());
    for number in 1..17 {
        open.remove_snapshot(&format!("s{number}")).unwrap();
    }
    fails(open.remove_snapshot("none"), libc::ENOENT);
    open.remove_leftovers().unwrap();
}

fn what_takes_long(ceph: &Cluster) {
    let progress = Progress::default();
    assert!(ceph.open_snapshot(POOL, "one", "none").unwrap().is_none());
    {
        let from = ceph.open_snapshot(POOL, "one", "t").unwrap().unwrap();
        ceph.create_image(POOL, "copy", 2 * OBJECT).unwrap();
        from.copy_to(&ceph.open_to_change(POOL, "copy").unwrap(), &progress).unwrap();
    }
    {
        let open = ceph.open_to_change(POOL, "one").unwrap();
        open.resize(OBJECT, &progress).unwrap();
        open.roll_back("t", &progress).unwrap();
        assert_eq!(open.stats().unwrap().size, 2 * OBJECT);
        open.remove_snapshot("t").unwrap();
    }
    assert!(progress.percent().is_some());
    ceph.rename_image(POOL, "copy", "renamed").unwrap();
    fails(ceph.rename_image(POOL, "copy", "renamed"), libc::ENOENT);
    let renamed = ceph.open(POOL, "renamed").unwrap().unwrap().id().unwrap().unwrap();
    assert_eq!(ceph.name_of(POOL, &renamed).unwrap().as_deref(), Some("renamed"));
    fails(ceph.forget_name(POOL, "copy"), libc::ENOENT);
    for image in ["one", "renamed"] {
        ceph.remove_image(POOL, image, &progress).unwrap();
        assert!(ceph.open(POOL, image).unwrap().is_none());
    }
}

/// The figures are for people.
#[test]
fn every_function_of_the_libraries_is_called_as_it_is_to_be() {
    let cluster = CephCluster::start().unwrap();
    let began = Instant::now();
    let ceph = connect(&cluster);
    println!("connected after {:.1?}", began.elapsed());
    of_the_cluster(&ceph);
    lists(&ceph, &cluster);
    of_an_image(&ceph);
    what_takes_long(&ceph);
    drop(ceph);
    println!("done after {:.1?}", began.elapsed());
}
