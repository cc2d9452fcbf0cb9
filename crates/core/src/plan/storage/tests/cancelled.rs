//! Tasks that were begun, and are to end before they are done.

use super::*;
use crate::model::task::Cancel;

const TASK: &str = "pvc-task-1-1";
const ENDED: &str = "no: cancelled by root";

fn to_end(line: &str) -> Task {
    let cancel = Cancel { by: "root".into(), at_unix_s: 2, refused: None };
    Task { cancel: Some(cancel), ..task(line, true, true) }
}

fn aside(mark: &str) -> ObservedImage {
    let mark = Some(mark.to_owned()).filter(|mark| !mark.is_empty());
    ObservedImage { id: Some("aside".into()), mark, ..image(70, &["s"]) }
}

#[test]
fn what_has_changed_nothing_yet_ends_where_it_is() {
    let small = || Facts { image: Some(image(50, &[])), ..there() };
    for (line, facts) in [
        ("volume_add p,v,100B", gone()),
        ("volume_resize p,v,100B", small()),
        ("volume_rename p,v,w", there()),
        ("volume_remove p,v", small()),
        ("snapshot_add p,v,t", there()),
        ("snapshot_rename p,v,s,t", there()),
        ("snapshot_remove p,v,s", there()),
        ("snapshot_rollback p,v,s", there()),
        ("volume_clone p,v,w,s", there()),
        ("volume_clone p,v,w,*", there()),
    ] {
        assert_eq!(step(&to_end(line), &facts), ENDED, "{line}");
    }
}

#[test]
fn what_is_done_is_done_and_what_another_one_changes_is_waited_for() {
    for (line, facts, told) in [
        ("volume_add p,v,100B", there(), "done: p/v 100 s"),
        ("snapshot_add p,v,s", there(), "done: p/v 100 s"),
        ("volume_remove p,v", gone(), "done: no p/v"),
    ] {
        assert_eq!(step(&to_end(line), &facts), told, "{line}");
        let changer: ClientAddress = "10.0.0.1:0/4".parse().unwrap();
        let facts = Facts { changer: Some(changer), ..facts };
        assert_eq!(step(&to_end(line), &facts), format!("retire {changer}"), "{line}");
    }
}

#[test]
fn what_is_lost_by_now_goes_on_and_says_why() {
    let broken = ObservedImage { id: None, ..image(0, &[]) };
    let rolled = Facts { image: None, aside: Some(aside("1-1 begun")), ..there() };
    for (line, facts, why) in [
        ("volume_remove p,v", Facts { image: Some(broken), ..there() }, "does not come back"),
        ("snapshot_rollback p,v,s", rolled, "would hold neither"),
        ("pool_add p,8", Facts::default(), "never left half made"),
        ("osd_out 1", there(), "ask for the opposite"),
    ] {
        let said = step(&to_end(line), &facts);
        assert!(said.starts_with("goes on: ") && said.contains(why), "{line}: {said}");
        // Told once, it goes on as any other.
        let mut told = to_end(line);
        told.cancel.as_mut().unwrap().refused = Some("so".into());
        assert!(!step(&told, &facts).starts_with("goes on"), "{line}");
    }
}

/// Nobody knows whether it has begun.
#[test]
fn a_volume_that_is_not_to_become_smaller_after_all_stays_and_what_may_be_lost_is_told() {
    let told = step(&to_end("volume_resize p,v,10B"), &there());
    assert!(told.starts_with(ENDED) && told.contains("beyond 10B may be lost"), "{told}");
}

#[test]
fn a_renaming_that_was_cut_off_is_ended_by_the_next_though_it_is_to_end() {
    let two = || Facts { renamed: there().image, ..there() };
    assert_eq!(step(&to_end("volume_rename p,v,w"), &two()), "renaming image p/v to w");
    let refused = Refused {
        change: CephChange::RenameImage { image: "p/v".parse().unwrap(), to: "w".parse().unwrap() },
        why: "no".into(),
        lasts: Duration::ZERO,
    };
    let told = step(&to_end("volume_rename p,v,w"), &Facts { refused: vec![refused], ..two() });
    assert!(told.contains("two names, w and v: no. Remove neither"), "{told}");
}

#[test]
fn a_clone_that_is_to_end_leaves_nothing_and_one_that_is_whole_stays() {
    let line = "volume_clone p,v,w,*";
    let source = || Some(image(100, &["s", TASK]));
    for mark in ["", "1-1"] {
        let facts = Facts { aside: Some(aside(mark)), image: source(), ..there() };
        assert_eq!(step(&to_end(line), &facts), format!("removing image p/{TASK}"), "{mark}");
    }
    let facts = Facts { image: source(), ..there() };
    assert_eq!(step(&to_end(line), &facts), format!("removing snapshot p/v@{TASK}"));
    let whole = ObservedImage { mark: Some("1-1".into()), ..image(100, &[]) };
    let facts = Facts { renamed: Some(whole), ..there() };
    assert_eq!(step(&to_end(line), &facts), "done: p/w 100 ");
}

#[test]
fn a_volume_that_was_not_rolled_back_yet_has_its_name_again() {
    let line = "snapshot_rollback p,v,s";
    for mark in ["", "0-0 done"] {
        let facts = Facts { image: None, aside: Some(aside(mark)), ..there() };
        assert_eq!(step(&to_end(line), &facts), format!("renaming image p/{TASK} to v"), "{mark}");
    }
    let facts = Facts { image: None, aside: Some(aside("1-1 done")), ..there() };
    assert_eq!(step(&to_end(line), &facts), format!("renaming image p/{TASK} to v"));
    let back = Facts { image: Some(aside("1-1 done")), ..there() };
    assert_eq!(step(&to_end(line), &back), "done: p/v 70 s");
}

#[test]
fn a_change_that_is_under_way_is_ended_only_if_nobody_loses_anything() {
    let image: ImageName = "p/v".parse().unwrap();
    let remove = CephChange::RemoveImage { image: image.clone() };
    let copy = CephChange::CopyImage {
        image: image.clone(),
        snapshot: "s".parse().unwrap(),
        to: "w".parse().unwrap(),
        mark: "1-1".into(),
    };
    let roll = CephChange::RollBack {
        image: image.clone(),
        snapshot: "s".parse().unwrap(),
        marks: Default::default(),
    };
    let clone = task("volume_clone p,v,w,*", true, false);
    let removal = task("volume_remove p,v", true, false);
    let rollback = task("snapshot_rollback p,v,s", true, false);
    for begun in [false, true] {
        assert_eq!(under_way(&clone, &copy, begun), UnderWay::IsEnded);
        assert_eq!(under_way(&clone, &remove, begun), UnderWay::Ends, "its own half-made copy");
        for (task, change) in [(&removal, &remove), (&rollback, &roll)] {
            assert_eq!(matches!(under_way(task, change, begun), UnderWay::GoesOn(_)), begun);
        }
    }
}
