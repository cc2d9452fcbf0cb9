use super::*;
use crate::{
    command::testing::node,
    model::{
        osd::{ObservedOsd, OsdUuid},
        task::Cancel,
    },
};

fn uuid(n: u8) -> OsdUuid {
    format!("00000000-0000-4000-8000-0000000000{n:02x}").try_into().unwrap()
}

fn osd(host: &str) -> ObservedOsd {
    ObservedOsd {
        uuid: uuid(3),
        is_in: false,
        is_up: false,
        was_up: true,
        is_destroyed: false,
        weight: Some(1.0),
        host: Some(host.to_owned()),
        pgs: 0,
        kib: 1,
        kib_used: 0,
        kib_data: 0,
    }
}

fn osds(host: Option<&str>) -> Osds {
    Osds { all: host.map(|host| (OsdId(3), osd(host))).into_iter().collect(), ..Osds::default() }
}

fn task(line: &str, runs: Option<&str>) -> Task {
    let waiting = TaskState::Waiting;
    Task {
        id: 12,
        command: line.parse().unwrap(),
        force: false,
        by: "root".into(),
        asked_unix_s: 1,
        state: runs.map_or(waiting, |node| TaskState::Running { node: node.to_owned(), since_unix_s: 1 }),
        trouble: None,
        progress: None,
        changer: None,
        osd: runs.map(|_| TasksOsd { uuid: uuid(3), id: Some(3), writes: true, device: None }),
        cancel: None,
        found: None,
    }
}

fn forced(task: Task) -> Task {
    Task { force: true, ..task }
}

fn cancelled(task: Task) -> Task {
    Task { cancel: Some(Cancel { by: "ann".into(), at_unix_s: 2, refused: None }), ..task }
}

/// hv1 and hv2 serve, hv3 is dead, hv4 stopped, hv5 without storage; there is no hv9.
fn nodes() -> Vec<Node> {
    let mut all: Vec<Node> = (1..=5).map(|n| node(&format!("hv{n}"))).collect();
    all[2].daemon_state.value = DaemonState::Dead;
    all[3].daemon_state.value = DaemonState::Stop;
    all[4].storage = Some(false);
    all
}

/// Of hv1, in one word, with what is said.
fn of(task: &Task, osds: &Osds, is_primary: bool) -> (&'static str, String) {
    match whose(task, osds, ("hv1", is_primary), &nodes()) {
        Whose::Mine => ("mine", String::new()),
        Whose::MineToEnd(why) => ("to end", why),
        Whose::Others => ("others", String::new()),
        Whose::Back(node) => ("back", node),
        Whose::Waits(why) => ("waits", why),
    }
}

fn check(rows: Vec<(Task, Option<&str>, [&str; 2], &str)>) {
    for (task, host, expected, said) in rows {
        for (is_primary, expected) in [true, false].into_iter().zip(expected) {
            let (found, why) = of(&task, &osds(host), is_primary);
            assert_eq!(found, expected, "primary: {is_primary}; {task:?} on {host:?}: {why}");
            assert!(expected == "others" || why.contains(said), "{task:?}: {why}");
        }
    }
}

#[test]
fn a_new_osd_is_its_nodes_and_what_a_node_leaves_of_one_the_primary_ends() {
    let add = |node: &str, runs: Option<&str>| task(&format!("osd_add {node},/dev/sdb,1"), runs);
    let (others, ends, waits) = (["others", "others"], ["to end", "others"], ["waits", "others"]);
    check(vec![
        // Task, the OSD's host; as primary, and not; what is said.
        (add("hv1", None), None, ["mine", "mine"], ""),
        (add("hv1", Some("hv1")), None, ["mine", "mine"], ""),
        // hv1 was away, and is back.
        (add("hv1", Some("hv2")), None, ["mine", "mine"], ""),
        (cancelled(add("hv1", Some("hv2"))), None, ["mine", "mine"], ""),
        (add("hv2", None), None, others, ""),
        (add("hv2", Some("hv2")), None, others, ""),
        (cancelled(add("hv2", Some("hv2"))), None, others, ""),
        // Nobody has begun it: the primary's other row refuses it.
        (add("hv9", None), None, others, ""),
        (add("hv9", Some("hv9")), None, ends, "hv9, which carried it out, is no node"),
        // A primary had begun to end it, and died.
        (add("hv9", Some("hv3")), None, ends, "hv9"),
        (add("hv3", None), None, waits, "node hv3 is dead: it goes on when"),
        (add("hv3", Some("hv3")), None, waits, "`pvc task cancel 12` ends it"),
        (add("hv4", Some("hv4")), None, waits, "has its daemon stopped"),
        (add("hv5", Some("hv5")), None, waits, "does not manage storage any more"),
        (cancelled(add("hv3", Some("hv3"))), None, ends, "cancelled by ann, while node hv3 is dead"),
        (forced(add("hv3", Some("hv3"))), None, waits, "is dead"),
    ]);
}

#[test]
fn a_removal_is_its_nodes_and_goes_on_without_one_that_is_gone() {
    let remove = |runs: Option<&str>| task("osd_remove 3", runs);
    let (others, mine, waits) = (["others", "others"], ["mine", "others"], ["waits", "others"]);
    check(vec![
        (remove(None), Some("hv1"), ["mine", "mine"], ""),
        (remove(Some("hv1")), Some("hv1"), ["mine", "mine"], ""),
        // Ceph has forgotten it: its device is still to be cleared.
        (remove(Some("hv1")), None, ["mine", "mine"], ""),
        (remove(None), Some("hv2"), others, ""),
        (remove(Some("hv2")), Some("hv2"), others, ""),
        (remove(Some("hv2")), None, others, ""),
        (forced(remove(Some("hv2"))), Some("hv2"), others, ""),
        // The primary refuses it in its other row.
        (remove(None), Some("hv9"), others, ""),
        (remove(None), None, others, ""),
        (forced(remove(None)), Some("hv9"), mine, ""),
        (remove(Some("hv9")), Some("hv9"), mine, ""),
        (remove(Some("hv9")), None, mine, ""),
        (cancelled(remove(Some("hv9"))), Some("hv9"), ["to end", "others"], "cancelled by ann"),
        (remove(None), Some("hv3"), waits, "node hv3, which has OSD 3, is dead"),
        (remove(Some("hv3")), Some("hv3"), waits, "`pvc storage osd remove --force 3`"),
        // It may come back and clear the device.
        (remove(Some("hv3")), None, waits, "is dead"),
        (forced(remove(None)), Some("hv3"), mine, ""),
        (forced(remove(Some("hv3"))), Some("hv3"), mine, ""),
        (cancelled(remove(Some("hv3"))), Some("hv3"), ["to end", "others"], "while node hv3 is dead"),
        (cancelled(remove(Some("hv4"))), None, ["to end", "others"], "has its daemon stopped"),
        // hv1 stands in for who is away, whoever is primary by now; then its node is back.
        (remove(Some("hv1")), Some("hv3"), ["mine", "mine"], ""),
        (remove(Some("hv1")), Some("hv9"), ["mine", "mine"], ""),
        (cancelled(remove(Some("hv1"))), Some("hv9"), ["to end", "to end"], "cancelled by ann"),
        (remove(Some("hv1")), Some("hv2"), ["back", "back"], "hv2"),
        // Who stood in has died, too.
        (remove(Some("hv3")), Some("hv9"), mine, ""),
        (remove(Some("hv3")), Some("hv4"), mine, ""),
        (remove(Some("hv9")), Some("hv3"), mine, ""),
    ]);
}

#[test]
fn what_is_left_of_a_new_osd_is_purged_unless_ceph_has_heard_of_it() {
    let own = |id: Option<u32>, writes| TasksOsd { uuid: uuid(9), id, writes, device: None };
    let with = |osd: ObservedOsd| Osds { all: [(OsdId(3), osd)].into(), ..Osds::default() };
    let new = || ObservedOsd { uuid: uuid(9), was_up: false, host: None, ..osd("hv9") };
    let taken = || ObservedOsd { uuid: OsdUuid::none(), is_destroyed: true, ..new() };
    let other = || ObservedOsd { uuid: uuid(7), ..new() };
    let end =
        |own: Option<TasksOsd>, osds: Osds, others| leave_add("it is gone", own.as_ref(), &osds, others);
    for (own, osds) in [
        (own(None, false), with(new())),
        (own(Some(3), false), with(new())),
        (own(Some(3), false), with(taken())),
        (own(Some(3), true), with(taken())),
        // ceph-volume has given it a UUID of its own.
        (own(Some(3), true), with(other())),
    ] {
        assert_eq!(end(Some(own), osds, false), Step::Purge(OsdId(3)));
    }
    let told =
        |step: Step, said: &str| assert!(matches!(&step, Step::Fail(why) if why.contains(said)), "{step:?}");
    for (own, osds) in [
        (None, with(new())),
        (Some(own(None, false)), Osds::default()),
        (Some(own(Some(3), true)), Osds::default()),
        (Some(own(Some(3), false)), with(other())),
    ] {
        told(end(own, osds, false), "it is gone. Its device may hold a part of an OSD");
    }
    // Another task has the number by now.
    told(end(Some(own(Some(3), true)), with(other()), true), "it is gone");
    let heard = ObservedOsd { was_up: true, ..other() };
    told(end(Some(own(Some(3), true)), with(heard), false), "`pvc storage osd remove --force 3`");
}

#[test]
fn a_removal_that_is_left_says_how_the_osd_is() {
    let own = TasksOsd { uuid: uuid(3), id: Some(3), writes: true, device: None };
    let end = |osd: Option<ObservedOsd>| {
        let osds = Osds { all: osd.map(|osd| (OsdId(3), osd)).into_iter().collect(), ..Osds::default() };
        leave_removal("cancelled", OsdId(3), Some(&own), &osds)
    };
    let told =
        |step: Step, said: &str| assert!(matches!(&step, Step::Fail(why) if why.contains(said)), "{step:?}");
    told(end(Some(osd("hv9"))), "OSD 3 is out of use: `pvc storage osd in 3`");
    told(end(Some(ObservedOsd { is_in: true, ..osd("hv9") })), "OSD 3 is in use as before");
    told(end(Some(ObservedOsd { uuid: uuid(7), ..osd("hv9") })), "the one that was meant is removed");
    assert_eq!(end(None), Step::Left(OsdId(3), "cancelled".into()));
}
