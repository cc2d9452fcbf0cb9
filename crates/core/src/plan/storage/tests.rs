mod cancelled;
mod order;
mod several_steps;

use super::*;
use crate::model::ceph::{ClientAddress, PoolStats, VolumeStats};

fn task(line: &str, begun: bool, force: bool) -> Task {
    let state =
        if begun { TaskState::Running { node: "node1".into(), since_unix_s: 1 } } else { TaskState::Waiting };
    let command = line.parse().unwrap();
    Task {
        id: 1,
        command,
        force,
        by: "somebody".into(),
        asked_unix_s: 1,
        state,
        trouble: None,
        progress: None,
        changer: None,
        osd: None,
        cancel: None,
        found: None,
    }
}

fn image(size: u64, snapshots: &[&str]) -> ObservedImage {
    ObservedImage {
        id: Some("1".to_owned()),
        stats: VolumeStats { size, ..VolumeStats::default() },
        snapshots: snapshots.iter().map(|name| (*name).to_owned()).collect(),
        mark: None,
    }
}

fn pool(copies: u32, is_for_images: bool) -> ObservedPool {
    ObservedPool { copies, min_copies: 2, is_for_images, ..ObservedPool::default() }
}

/// A cluster with room, a pool and an image with a snapshot, in the tree.
fn there() -> Facts {
    Facts {
        pool: Some(pool(3, true)),
        images: vec!["v".into()],
        image: Some(image(100, &["s"])),
        osds: OsdMap { is_in: [(OsdId(1), true)].into(), flags: ["noout".to_owned()].into() },
        space: Space { used_bytes: 10, total_bytes: 100, ..Space::default() },
        is_in_tree: true,
        ..Facts::default()
    }
}

fn gone() -> Facts {
    Facts { image: None, images: Vec::new(), is_in_tree: false, ..there() }
}

/// The step in few words.
fn step(task: &Task, facts: &Facts) -> String {
    match plan(task, facts) {
        Step::Begin => "begin".into(),
        Step::Change(change) => change.to_string(),
        Step::Retire(client) => format!("retire {client}"),
        Step::Lift(clients) => format!("let in {clients:?}"),
        Step::ShutOut(request) => format!("shut out {:?}", request.recorded),
        Step::GoOn(why) => format!("goes on: {why}"),
        Step::End(Err(why), tree) if tree.is_empty() => format!("no: {why}"),
        Step::End(outcome, tree) => {
            let said = tree.iter().map(|change| match change {
                TreeChange::Pool(pool, Some(_)) => format!("pool {pool}"),
                TreeChange::Pool(pool, None) => format!("no pool {pool}"),
                TreeChange::Volume(image, Some(found)) => {
                    format!("{image} {} {}", found.stats.size, found.snapshots.join(","))
                }
                TreeChange::Volume(image, None) => format!("no {image}"),
                TreeChange::Osd(osd, there) => format!("OSD {osd}: {}", there.is_some()),
            });
            let said = said.collect::<Vec<_>>().join("; ");
            outcome.map_or_else(|why| format!("left: {said}: {why}"), |()| format!("done: {said}"))
        }
    }
}

#[test]
fn what_can_be_done_is_begun_then_done_then_told() {
    let renamed = || Facts { renamed: Some(image(100, &["s"])), ..gone() };
    let smaller = || Facts { image: Some(image(100, &[])), ..there() };
    for (line, before, change, after, told) in vec![
        ("pool_add p,8", Facts::default(), "creating pool p with 8", there(), "done: pool p"),
        (
            "pool_remove p",
            Facts { images: Vec::new(), ..there() },
            "renaming pool p to pvc-task-",
            Facts::default(),
            "done: no pool p",
        ),
        ("volume_add p,v,100B", gone(), "creating image p/v of 100B", there(), "done: p/v 100 s"),
        (
            "volume_resize p,v,100B",
            Facts { image: Some(image(50, &[])), ..there() },
            "resizing image p/v to 100B",
            there(),
            "done: p/v 100 s",
        ),
        ("volume_rename p,v,w", there(), "renaming image p/v to w", renamed(), "done: no p/v; p/w 100 s"),
        ("volume_remove p,v", smaller(), "removing image p/v", gone(), "done: no p/v"),
        (
            "snapshot_add p,v,t",
            there(),
            "taking snapshot p/v@t",
            Facts { image: Some(image(100, &["s", "t"])), ..there() },
            "done: p/v 100 s,t",
        ),
        (
            "snapshot_rename p,v,s,t",
            there(),
            "renaming snapshot p/v@s to t",
            Facts { image: Some(image(100, &["t"])), ..there() },
            "done: p/v 100 t",
        ),
        ("snapshot_remove p,v,s", there(), "removing snapshot p/v@s", smaller(), "done: p/v 100 "),
        (
            "osd_out 1",
            there(),
            "taking OSD 1 out of use",
            Facts { osds: OsdMap { is_in: [(OsdId(1), false)].into(), ..OsdMap::default() }, ..there() },
            "done: ",
        ),
        ("osd_unset noout", there(), "clearing noout", Facts::default(), "done: "),
    ] {
        assert_eq!(step(&task(line, false, false), &before), "begin", "{line}");
        let next = step(&task(line, true, false), &before);
        assert!(next.starts_with(change), "{line}: {next}");
        assert_eq!(step(&task(line, true, false), &after), told, "{line}");
    }
}

#[test]
fn a_pool_that_is_half_made_is_made_whole() {
    let half = |pool| Facts { pool: Some(pool), ..Facts::default() };
    let begun = task("pool_add p,8", true, false);
    assert!(step(&begun, &half(pool(1, false))).contains("keep 3 copies, and at least 2"));
    assert!(step(&begun, &half(pool(3, false))).contains("for images"));
}

#[test]
fn what_cannot_be_done_is_not_begun() {
    let used = || Facts { used_by: vec!["web1".parse().unwrap()], image: Some(image(100, &[])), ..there() };
    let full = || Facts { space: Space { used_bytes: 80, total_bytes: 100, ..Space::default() }, ..gone() };
    let stats = PoolStats { num_objects: 1, ..PoolStats::default() };
    let strange = ObservedPool { stats, ..pool(3, false) };
    let both = || Facts { renamed: Some(image(1, &[])), ..there() };
    for (line, facts, why) in vec![
        ("pool_add p,8", there(), "there is a pool p already"),
        ("pool_remove p", Facts::default(), "there is no pool p"),
        ("pool_remove p", there(), "pool p has 1 volume: remove"),
        ("pool_remove p", used(), "pool p has volumes of VM web1"),
        ("volume_add p,v,1B", there(), "there is a volume p/v already"),
        ("volume_add p,v,1B", Facts::default(), "there is no pool p"),
        ("volume_add p,v,1B", full(), "80 %"),
        ("volume_add p,v,101B", gone(), "larger than the whole cluster, which has 100B"),
        ("pool_remove p", Facts { pool: Some(strange), is_in_tree: false, ..gone() }, "no pool of images"),
        ("volume_resize p,v,1B", gone(), "there is no volume p/v"),
        ("volume_resize p,v,1B", there(), "would be lost"),
        ("volume_rename p,v,w", gone(), "there is no volume p/v"),
        ("volume_rename p,v,w", both(), "there is a volume p/w already"),
        ("volume_rename p,v,w", used(), "VM web1"),
        ("volume_remove p,v", gone(), "there is no volume p/v"),
        ("volume_remove p,v", there(), "has 1 snapshot: remove it first"),
        ("volume_remove p,v", used(), "is used by VM web1"),
        ("snapshot_add p,v,s", there(), "there is a snapshot p/v@s already"),
        ("snapshot_add p,v,s", gone(), "there is no volume p/v"),
        ("snapshot_rename p,v,t,u", there(), "there is no snapshot p/v@t"),
        ("snapshot_remove p,v,t", Facts { is_in_tree: false, ..there() }, "there is no snapshot p/v@t"),
        ("osd_in 7", there(), "there is no OSD 7"),
    ] {
        let said = step(&task(line, false, false), &facts);
        assert!(said.starts_with("no: ") && said.contains(why), "{line}: {said}");
    }
    let shrink = task("volume_resize p,v,1B", false, true);
    assert_eq!(step(&shrink, &there()), "begin", "asked for twice");
    assert!(step(&shrink, &used()).contains("no volume of a VM is shrunk"));
}

/// Whatever Ceph seems to have, and whatever it refuses to say.
#[test]
fn nothing_is_decided_while_another_may_change_it() {
    let client: ClientAddress = "10.0.0.1:0/1".parse().unwrap();
    for line in ["volume_remove p,v", "snapshot_rollback p,v,s", "volume_clone p,v,w,*", "volume_add p,v,1B"]
    {
        for facts in [there(), gone(), Facts { impossible: Some("no".into()), ..Facts::default() }] {
            let facts = Facts { changer: Some(client), ..facts };
            assert_eq!(step(&task(line, true, false), &facts), "retire 10.0.0.1:0/1");
        }
    }
    let images = changed_images(&task("snapshot_rollback p,v,s", true, false));
    assert_eq!(images, ["p/v", "p/pvc-task-1-1"].map(|name| name.parse().unwrap()));
    assert_eq!(changed_images(&task("volume_resize p,v,1B", true, false)).len(), 1);
}

#[test]
fn what_the_tree_alone_still_has_goes_from_it() {
    let tree_only = || Facts { is_in_tree: true, ..gone() };
    assert_eq!(step(&task("volume_remove p,v", false, false), &tree_only()), "done: no p/v");
    let no_snapshot = Facts { image: Some(image(100, &[])), ..there() };
    assert_eq!(step(&task("snapshot_remove p,v,s", false, false), &no_snapshot), "done: p/v 100 ");
}

#[test]
fn what_ceph_does_not_say_is_waited_for_and_what_it_refuses_to_say_ends_the_task() {
    for begun in [false, true] {
        let facts = Facts { impossible: Some("it is of an unknown format".into()), ..Facts::default() };
        assert_eq!(step(&task("volume_remove p,v", begun, false), &facts), "no: it is of an unknown format");
    }
}

#[test]
fn what_ceph_refuses_is_told_once_and_what_it_refused_before_is_forgotten() {
    let begun = task("volume_remove p,v", true, false);
    let facts = |refused: &str| Facts {
        image: Some(image(100, &[])),
        refused: vec![Refused {
            change: CephChange::RemoveImage { image: refused.parse().unwrap() },
            why: "Device or resource busy".into(),
            lasts: Duration::ZERO,
        }],
        ..there()
    };
    assert_eq!(step(&begun, &facts("p/v")), "no: Device or resource busy");
    assert_eq!(step(&begun, &facts("p/other")), "removing image p/v");
}

#[test]
fn a_pool_that_hides_something_is_not_removed() {
    for (namespaces, trash, why) in
        [(0, 1, "has 1 image in its trash"), (0, 2, "has 2 images"), (2, 1, "has 2 namespaces")]
    {
        let hidden = Hidden { namespaces, trash };
        let facts = Facts { images: Vec::new(), hidden, ..there() };
        for begun in [false, true] {
            let step = step(&task("pool_remove p", begun, false), &facts);
            assert!(step.contains(why), "{step}");
        }
    }
}

#[test]
fn a_pool_is_removed_under_a_name_of_the_tasks_own() {
    let begun = task("pool_remove p", true, false);
    let aside = PoolName::of_task(&begun.mark());
    let set_aside = || Facts { pool: None, pool_aside: Some(pool(3, true)), ..empty() };
    assert_eq!(step(&begun, &set_aside()), format!("removing pool {aside}"));
    let back = format!("renaming pool {aside} to p");
    assert_eq!(step(&begun, &Facts { images: vec!["v".into()], ..set_aside() }), back);
    assert_eq!(step(&begun, &Facts { used_by: vec!["web1".parse().unwrap()], ..set_aside() }), back);
    let forbids = |facts| Facts {
        refused: vec![Refused {
            change: CephChange::RemovePool { pool: aside.clone() },
            why: "pool deletion is disabled".into(),
            lasts: Duration::ZERO,
        }],
        ..facts
    };
    assert_eq!(step(&begun, &forbids(set_aside())), back);
    assert_eq!(step(&begun, &forbids(empty())), "no: pool deletion is disabled");
    // Another one has its name by now.
    let anew = || Facts { pool: Some(pool(3, true)), ..set_aside() };
    assert_eq!(step(&begun, &anew()), format!("removing pool {aside}"));
    let told = step(&begun, &Facts { images: vec!["v".into()], ..anew() });
    assert!(told.contains(&format!("It is called {aside} now")), "{told}");
    let told = step(&task("pool_remove p", false, false), &set_aside());
    assert!(told.contains("already, which is the name"), "{told}");
}

/// As [`there`], without an image.
fn empty() -> Facts {
    Facts { image: None, images: Vec::new(), ..there() }
}

#[test]
fn locks_are_taken_of_what_executes_nowhere_and_only_from_who_is_not_heard() {
    let client: ClientAddress = "10.0.0.1:0/1".parse().unwrap();
    let of = |locks| Facts { locks, ..Facts::default() };
    let off = || Locks { vm: Some("web1".parse().unwrap()), ..Locks::default() };
    let left = Request { recorded: [client].into(), ..Request::default() };
    let watches = |client: &str| vec![("vms/web1".parse().unwrap(), client.parse().unwrap())];
    let (open, tool) = (watches("10.0.0.1:0/1"), watches("10.0.0.1:0/2"));
    let line = "flush_locks 11111111-0000-4000-8000-000000000001";
    let shared = || Facts { used_by: vec!["web2".parse().unwrap()], ..of(off()) };
    for (facts, begun, expected) in [
        (of(Locks::default()), false, "no: there is no VM"),
        (
            of(Locks { may_execute_on: Some("hv1".into()), left: left.clone(), ..off() }),
            false,
            "no: VM web1 may be executing on hv1",
        ),
        (shared(), false, "no: the images of VM web1 may be in use by VM web2"),
        (Facts { unreadable: Some("web3".into()), ..of(off()) }, false, "perhaps VM web3"),
        (of(Locks { left: left.clone(), ..off() }), false, "begin"),
        (of(Locks { left: left.clone(), open: tool, ..off() }), true, "shut out {ClientAddress"),
        (
            of(Locks { left: left.clone(), open: open.clone(), ..off() }),
            true,
            "no: VM web1 may be executing: client 10.0.0.1:0/1, which is recorded as its own, has vms/web1 open",
        ),
        (
            of(Locks { may_execute_on: Some("hv1".into()), left, ..off() }),
            true,
            "no: VM web1 may be executing on hv1",
        ),
        (of(off()), true, "done: "),
        (of(off()), false, "done: "),
    ] {
        let step = step(&task(line, begun, false), &facts);
        assert!(step.contains(expected), "{step}");
    }
    let step = step(&task(line, true, false), &of(Locks { open, ..off() }));
    assert!(step.contains("no: client 10.0.0.1:0/1 has vms/web1 open"), "{step}");
}
