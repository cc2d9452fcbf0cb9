#![allow(clippy::unnecessary_wraps, reason = "facts are optional")]

use super::*;
use crate::model::{HostDevice, ceph::TaskMark, osd::OsdUuid};

const ID: OsdId = OsdId(4);

fn uuid(n: u8) -> OsdUuid {
    format!("00000000-0000-4000-8000-0000000000{n:02x}").try_into().unwrap()
}

fn osd(n: u8) -> ObservedOsd {
    ObservedOsd {
        uuid: uuid(n),
        is_in: true,
        is_up: true,
        was_up: true,
        is_destroyed: false,
        weight: Some(1.0),
        host: Some("hv1".into()),
        pgs: 8,
        kib: 4 << 20,
        kib_used: 1 << 20,
        kib_data: 1 << 20,
    }
}

fn new() -> ObservedOsd {
    ObservedOsd { is_in: false, is_up: false, was_up: false, weight: None, ..osd(9) }
}

fn taken() -> ObservedOsd {
    ObservedOsd { is_destroyed: true, uuid: OsdUuid::none(), ..new() }
}

fn blank() -> Option<ObservedDevice> {
    Some(ObservedDevice { size: 4 << 30, ..ObservedDevice::default() })
}

fn local() -> Option<LocalOsd> {
    Some(LocalOsd { uuid: Some(uuid(9)), runs: true, device: None })
}

fn own(writes: bool, id: Option<u32>) -> Option<TasksOsd> {
    Some(TasksOsd { uuid: uuid(9), id, writes, device: writes.then(String::new) })
}

fn with(osd: Option<ObservedOsd>) -> Osds {
    Osds { all: osd.map(|osd| (ID, osd)).into_iter().collect(), ..Osds::default() }
}

fn adds(wipe: bool, facts: Facts) -> Step {
    add(&"/dev/sdb".parse().unwrap(), "1.0".parse().unwrap(), wipe, &facts)
}

#[test]
fn a_device_that_anybody_uses_or_that_holds_anything_becomes_no_osd() {
    let device = |used: Option<&str>, holds: Option<&str>| {
        Some(ObservedDevice {
            used: used.map(Into::into),
            holds: holds.map(Into::into),
            size: 4 << 30,
            ..ObservedDevice::default()
        })
    };
    for (device, wipe, said) in [
        (None, false, "there is no block device /dev/sdb"),
        (device(Some("it is mounted on /srv"), None), false, "in use: it is mounted on /srv"),
        (device(Some("it is mounted on /srv"), None), true, "in use: it is mounted on /srv"),
        (device(None, Some("a partition table")), false, "holds a partition table: nothing was changed"),
        (Some(ObservedDevice { size: 1 << 20, ..ObservedDevice::default() }), true, "less than 1 GiB"),
    ] {
        let Fail(why) = adds(wipe, Facts { device: device.clone(), ..Facts::default() }) else {
            panic!("{said}")
        };
        assert!(why.contains(said), "{why}");
        // It came to be so after the task was begun: its number goes, and nothing was written.
        let later = Facts { device, own: own(false, Some(4)), osds: with(Some(taken())), ..Facts::default() };
        assert!(matches!(adds(wipe, later), GiveUp(why) if why.contains(said)));
    }
    let full = || device(None, Some("a file system"));
    assert_eq!(adds(true, Facts { device: full(), ..Facts::default() }), Begin);
    // What the task has written is its own.
    let half =
        Facts { device: full(), own: own(true, Some(4)), osds: with(Some(taken())), ..Facts::default() };
    assert_eq!(adds(false, half.clone()), Write(ID));
    // A VM was given it while the task waited.
    let named = half
        .device
        .clone()
        .map(|there| ObservedDevice { named: Some(HostDevice::Path("/dev/sdb".into())), ..there });
    let given = Facts { device: named, disk_of: Some("web".into()), ..half };
    assert!(matches!(adds(true, given), GiveUp(why) if why.contains("a disk of VM web")));
    // By that name it is another one since the node has booted, or none.
    let other = ObservedDevice { identity: "another".into(), size: 4 << 30, ..ObservedDevice::default() };
    for device in [Some(other), None] {
        for wipe in [false, true] {
            let device = device.clone();
            let later =
                Facts { device, own: own(true, Some(4)), osds: with(Some(taken())), ..Facts::default() };
            assert!(matches!(adds(wipe, later), GiveUp(why) if why.contains("may be another one now")));
        }
    }
    let unreadable = Facts { unreadable: Some("I/O error".into()), device: blank(), ..Facts::default() };
    assert!(matches!(adds(false, unreadable), Fail(why) if why.contains("I/O error")));
}

#[test]
fn a_device_that_a_definition_names_or_that_is_an_osd_becomes_none_whatever_is_said() {
    let named = HostDevice::Path("/dev/disk/by-id/scsi-1".into());
    let device = || ObservedDevice { size: 4 << 30, ..ObservedDevice::default() };
    let vm = Facts {
        device: Some(ObservedDevice { named: Some(named), ..device() }),
        disk_of: Some("web".into()),
        ..Facts::default()
    };
    let osds = || {
        let all =
            [(OsdId(7), ObservedOsd { is_up: false, ..osd(7) }), (ID, ObservedOsd { is_up: false, ..new() })];
        Osds { all: all.into(), ..Osds::default() }
    };
    let of = |n| Some(ObservedDevice { osd: Some(uuid(n)), holds: Some("an OSD".into()), ..device() });
    let known = Facts { device: of(7), osds: osds(), ..Facts::default() };
    for (facts, said) in [
        (&vm, "/dev/sdb is a disk of VM web, whose definition names /dev/disk/by-id/scsi-1"),
        (&known, "/dev/sdb is OSD 7 of this cluster: `pvc storage osd remove 7`"),
    ] {
        for wipe in [false, true] {
            assert!(matches!(adds(wipe, copy(facts)), Fail(why) if why.contains(said)), "{said}");
        }
    }
    // Another cluster's, or one that was removed.
    let strange = || Facts { device: of(8), osds: osds(), ..Facts::default() };
    assert!(matches!(adds(false, strange()), Fail(why) if why.contains("holds an OSD")));
    assert_eq!(adds(true, strange()), Begin);
    // What cannot be read may name any; who wipes says that it names none.
    let unread = || Facts { device: Some(device()), unread_vm: Some("odd".into()), ..Facts::default() };
    assert!(
        matches!(adds(false, unread()), Fail(why) if why.contains("the definition of VM odd cannot be read"))
    );
    assert_eq!(adds(true, unread()), Begin);
}

fn copy(facts: &Facts) -> Facts {
    Facts {
        device: facts.device.clone(),
        disk_of: facts.disk_of.clone(),
        osds: facts.osds.clone(),
        ..Facts::default()
    }
}

#[test]
fn an_osd_is_made_step_by_step_and_what_is_not_known_to_be_whole_is_made_anew() {
    let facts = |id, osd, local, is_written| Facts {
        device: blank(),
        own: own(is_written, id),
        osds: with(osd),
        local,
        is_written,
        ..Facts::default()
    };
    assert_eq!(adds(false, Facts { device: blank(), ..Facts::default() }), Begin);
    assert_eq!(adds(false, facts(None, None, None, false)), TakeNumber);
    assert_eq!(adds(false, facts(None, Some(new()), None, false)), Number(ID));
    assert_eq!(adds(false, facts(Some(4), Some(new()), None, false)), TakeAway(ID));
    // It is another's by now, or nobody's.
    let other = || ObservedOsd { uuid: uuid(7), ..new() };
    assert_eq!(adds(false, facts(Some(4), Some(other()), None, false)), TakeNumber);
    assert_eq!(adds(false, facts(Some(4), None, None, false)), TakeNumber);
    assert_eq!(adds(false, facts(Some(4), Some(taken()), None, false)), Write(ID));
    assert_eq!(adds(false, facts(Some(4), Some(new()), local(), true)), Start(ID));
    let started = |starts| Facts { starts: Some(starts), ..facts(Some(4), Some(new()), local(), true) };
    assert!(matches!(adds(false, started(Duration::from_secs(1))), Wait(_)));
    assert!(matches!(adds(false, started(STARTS_WITHIN)), GiveUp(_)));
    let light = ObservedOsd { weight: Some(0.5), ..osd(9) };
    assert!(matches!(adds(false, facts(Some(4), Some(light), local(), true)), Weigh(ID, _)));
    assert_eq!(adds(false, facts(Some(4), Some(osd(9)), local(), true)), Done(ID, Some(true)));
    assert!(
        matches!(adds(false, facts(Some(4), Some(osd(8)), local(), true)), Fail(why) if why.contains("another"))
    );

    // Its daemon died before it knew that all of it was written, or before it had begun to.
    let died = Facts { own: own(true, Some(4)), ..facts(Some(4), Some(new()), local(), false) };
    assert_eq!(adds(false, died), TakeAway(ID));
    let left = Facts { own: own(true, Some(4)), ..facts(Some(4), Some(taken()), local(), false) };
    assert_eq!(adds(false, left), TakeAway(ID));
    // What ceph-volume has made Ceph forget leaves a folder.
    let forgotten = Facts { own: own(true, Some(4)), ..facts(Some(4), None, local(), false) };
    assert_eq!(adds(false, forgotten), TakeAway(ID));
    // Another's folder is left alone.
    let goes = Facts { removes_another: true, ..facts(Some(4), Some(taken()), local(), false) };
    assert!(matches!(adds(false, goes), Wait(_)));
    assert!(matches!(adds(false, facts(Some(4), Some(taken()), local(), false)), GiveUp(_)));
    // What Ceph has heard of is never taken away.
    let lost = ObservedOsd { is_up: false, ..osd(8) };
    for is_written in [false, true] {
        let lost =
            || Facts { own: own(true, Some(4)), ..facts(Some(4), Some(lost.clone()), local(), is_written) };
        assert!(matches!(adds(false, lost()), Wait(_)));
        let stopped = local().map(|local| LocalOsd { runs: false, uuid: Some(uuid(8)), ..local });
        assert_eq!(adds(false, Facts { local: stopped, ..lost() }), Start(ID));
        assert!(matches!(adds(false, Facts { silent: Some(STARTS_WITHIN), ..lost() }), Fail(_)));
    }
}

#[test]
fn what_is_given_up_leaves_nothing_behind() {
    let facts = |osd, local| Facts {
        own: own(true, Some(4)),
        osds: with(osd),
        local,
        given_up: Some("no".into()),
        ..Facts::default()
    };
    assert_eq!(adds(false, facts(Some(new()), local())), TakeAway(ID));
    assert_eq!(adds(false, facts(Some(taken()), local())), TakeAway(ID));
    assert_eq!(adds(false, facts(Some(taken()), None)), Purge(ID));
    assert_eq!(adds(false, facts(None, None)), Fail("no".into()));
    // Its number was not recorded yet, or is another's by now.
    let no_number =
        |osds| Facts { own: own(false, None), osds, given_up: Some("no".into()), ..Facts::default() };
    assert_eq!(adds(false, no_number(with(Some(new())))), Purge(ID));
    assert_eq!(adds(false, no_number(with(Some(osd(7))))), Fail("no".into()));
}

#[test]
fn an_osd_goes_when_its_data_is_elsewhere_and_no_other_one_with_its_number() {
    let begun = |osd, local, why: Option<&str>| Facts {
        own: own(true, Some(4)),
        osds: with(osd),
        local,
        unsafe_since: why.map(Into::into),
        ..Facts::default()
    };
    let [there, out, down] = [(true, true), (false, true), (false, false)]
        .map(|(is_in, is_up)| ObservedOsd { is_in, is_up, ..osd(9) });
    let stopped = || local().map(|local| LocalOsd { runs: false, ..local });
    let first = |osd| Facts { own: own(false, Some(4)), ..begun(Some(osd), local(), None) };
    assert_eq!(remove(ID, &first(there.clone())), Out(ID));
    assert_eq!(remove(ID, &first(out.clone())), IsOut);
    assert!(
        matches!(remove(ID, &begun(Some(there.clone()), local(), None)), Fail(why) if why.contains("it stays"))
    );
    assert_eq!(remove(ID, &begun(Some(there), stopped(), None)), Start(ID));
    assert!(
        matches!(remove(ID, &begun(Some(out.clone()), local(), Some("not yet"))), Wait(why) if why.contains("8 placement groups: not yet"))
    );
    assert_eq!(remove(ID, &begun(Some(out.clone()), local(), None)), Stop(ID));
    assert!(matches!(remove(ID, &begun(Some(out), stopped(), None)), Wait(_)));
    // It was stopped, and somebody else has died since.
    assert!(matches!(remove(ID, &begun(Some(down.clone()), stopped(), Some("not any more"))), Wait(_)));
    assert_eq!(remove(ID, &begun(Some(down), stopped(), None)), Purge(ID));
    assert_eq!(remove(ID, &begun(None, stopped(), None)), Clear(ID));
    assert_eq!(remove(ID, &begun(None, None, None)), Done(ID, Some(false)));
    let broken = |local| Facts { given_up: Some("EIO".into()), ..begun(None, local, None) };
    assert_eq!(remove(ID, &broken(stopped())), Forget(ID));
    assert_eq!(remove(ID, &broken(None)), Left(ID, "EIO".into()));

    // Another one has the number, here or elsewhere.
    let others = || local().map(|local| LocalOsd { uuid: Some(uuid(7)), ..local });
    assert_eq!(remove(ID, &begun(Some(osd(7)), others(), None)), Done(ID, None));
    assert_eq!(remove(ID, &begun(Some(osd(7)), stopped(), None)), Clear(ID));
}

#[test]
fn an_osd_whose_data_would_find_no_place_is_not_removed() {
    let all = |others: u32| {
        let mut all = with(Some(osd(9)));
        all.all.extend((10..10 + others).map(|id| (OsdId(id), osd(1))));
        all.most_copies = Some((3, "vms".into()));
        Facts { osds: all, local: local(), ..Facts::default() }
    };
    assert_eq!(remove(ID, &all(3)), Begin);
    assert!(
        matches!(remove(ID, &all(2)), Fail(why) if why.contains("2 OSDs would be left, and pool vms keeps 3"))
    );
    // Each copy is on another host, and they would be full.
    let mut one_host = all(3);
    one_host.osds.most_hosts = Some((2, "vms".into()));
    assert!(matches!(remove(ID, &one_host), Fail(why) if why.contains("1 host would be left")));
    let mut full = all(3);
    full.osds.all.values_mut().for_each(|osd| (osd.kib_used, osd.kib_data) = (3 << 20, 3 << 20));
    assert!(matches!(remove(ID, &full), Fail(why) if why.contains("used to 100 %")));
    assert!(matches!(remove(ID, &Facts { local: None, ..all(3) }), Fail(why) if why.contains("ceph-volume")));
    assert!(matches!(remove(ID, &Facts::default()), Fail(why) if why.contains("no OSD 4")));
    assert_eq!(remove(ID, &Facts { is_in_tree: true, ..Facts::default() }), Done(ID, Some(false)));
}

#[test]
fn how_far_it_is_and_whose_a_number_is() {
    assert_eq!(
        [percent(0, 0), percent(8, 8), percent(8, 2), percent(8, 0), percent(2, 8)],
        [100, 0, 75, 100, 0]
    );
    let of = |id| OsdUuid::of_task(&TaskMark { id, asked_unix_s: 1_796_000_000 });
    assert_eq!(of(7), of(7));
    assert_ne!(of(7), of(8));
    assert!(OsdUuid::try_from(of(7).to_string()).is_ok());
}
