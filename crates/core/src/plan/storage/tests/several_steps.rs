//! Clones and rollbacks, step by step: what is there after each is what the next is planned from, as after a daemon's death.

use super::*;

const TASK: &str = "pvc-task-1-1";

/// The images and snapshots that a task is about, as Ceph would have them after each change.
#[derive(Default)]
struct World {
    facts: Facts,
    said: Vec<String>,
    /// For how long Ceph has refused what it refuses.
    lasts: Duration,
}

impl World {
    fn new(facts: Facts) -> Self {
        Self { facts, said: Vec::new(), lasts: Refused::PATIENCE }
    }

    fn slot(&mut self, volume: &str) -> &mut Option<ObservedImage> {
        match volume {
            "v" => &mut self.facts.image,
            TASK => &mut self.facts.aside,
            _ => &mut self.facts.renamed,
        }
    }

    fn make(&mut self, change: &CephChange) {
        match change {
            CephChange::CreateSnapshot { image, snapshot } => {
                let image = self.slot(image.volume.as_str()).as_mut().unwrap();
                image.snapshots.push(snapshot.to_string());
            }
            CephChange::RemoveSnapshot { image, snapshot } => {
                let image = self.slot(image.volume.as_str()).as_mut().unwrap();
                image.snapshots.retain(|name| name != snapshot.as_str());
            }
            CephChange::CopyImage { to, mark, .. } => {
                *self.slot(to.as_str()) = Some(ObservedImage {
                    id: Some("copy".into()),
                    mark: Some(mark.clone()),
                    ..image(100, &[])
                });
            }
            CephChange::RollBack { image, marks, .. } => {
                let image = self.slot(image.volume.as_str()).as_mut().unwrap();
                (image.mark, image.stats.size) = (Some(marks[1].clone()), 50);
            }
            CephChange::RenameImage { image, to } => {
                let moved = self.slot(image.volume.as_str()).take();
                assert!(self.slot(to.as_str()).is_none() && moved.is_some());
                *self.slot(to.as_str()) = moved;
            }
            CephChange::RemoveImage { image } => *self.slot(image.volume.as_str()) = None,
            other => panic!("{other}"),
        }
    }

    /// Carries it out; what begins with `refuses` Ceph refuses.
    fn runs(&mut self, line: &str, refuses: &str) -> String {
        // Something is there by the task's own name only after it has begun.
        if self.facts.aside.is_none() {
            assert_eq!(step(&task(line, false, false), &self.facts), "begin", "{line}");
        }
        for _ in 0..10 {
            let begun = task(line, true, false);
            let Step::Change(change) = plan(&begun, &self.facts) else { return step(&begun, &self.facts) };
            self.said.push(change.to_string());
            if !refuses.is_empty() && change.to_string().starts_with(refuses) {
                self.facts.refused.retain(|refused| refused.change != change);
                let why = "Ceph says no".into();
                self.facts.refused.push(Refused { change, why, lasts: self.lasts });
            } else {
                self.make(&change);
            }
        }
        panic!("it has no end: {:?}", self.said);
    }
}

#[test]
fn a_clone_has_its_name_when_it_is_whole_and_leaves_nothing_behind() {
    let mut world = World::new(there());
    assert_eq!(world.runs("volume_clone p,v,w,*", ""), "done: p/w 100 ");
    let own = format!("p/v@{TASK}");
    let steps = [
        format!("taking snapshot {own}"),
        format!("copying {own} to {TASK}"),
        format!("renaming image p/{TASK} to w"),
        format!("removing snapshot {own}"),
    ];
    assert_eq!(world.said, steps);
    assert_eq!(world.facts.image, there().image, "the other one is as it was");

    let mut world = World::new(there());
    assert_eq!(world.runs("volume_clone p,v,w,s", ""), "done: p/w 100 ");
    assert_eq!(world.said, [format!("copying p/v@s to {TASK}"), format!("renaming image p/{TASK} to w")]);
    assert_eq!(world.facts.image, there().image, "a snapshot that was named stays");
}

#[test]
fn a_copy_that_was_broken_off_is_made_anew_and_one_that_cannot_be_made_leaves_nothing_behind() {
    let copy = || Some(ObservedImage { id: Some("half".into()), ..image(100, &[]) });
    let mut world = World::new(Facts { aside: copy(), ..there() });
    world.runs("volume_clone p,v,w,s", "");
    assert_eq!(world.said[0], format!("removing image p/{TASK}"));

    for refuses in ["copying", "renaming"] {
        let mut world = World::new(there());
        assert_eq!(world.runs("volume_clone p,v,w,*", refuses), "no: Ceph says no");
        assert_eq!((&world.facts.image, &world.facts.aside), (&there().image, &None), "{:?}", world.said);
    }
    // Somebody has made another one of that name meanwhile, or there is no room any more.
    let half = || Facts { aside: copy(), image: Some(image(100, &["s", TASK])), ..there() };
    let full = Space { used_bytes: 90, total_bytes: 100, ..Space::default() };
    for (facts, why) in [
        (Facts { renamed: Some(image(1, &[])), ..half() }, "there is a volume p/w already"),
        (Facts { space: full, ..half() }, "80 %"),
    ] {
        let mut world = World::new(facts);
        let begun = task("volume_clone p,v,w,*", true, false);
        while let Step::Change(change) = plan(&begun, &world.facts) {
            world.make(&change);
        }
        let said = step(&begun, &world.facts);
        assert!(said.starts_with("no: ") && said.contains(why), "{said}");
        assert_eq!((&world.facts.image, &world.facts.aside), (&there().image, &None));
    }
}

#[test]
fn a_clone_is_told_though_its_snapshot_cannot_be_removed() {
    let mut world = World::new(there());
    let said = world.runs("volume_clone p,v,w,*", "removing snapshot");
    assert!(
        said.starts_with(&format!("left: p/w 100 ; p/v 100 s,{TASK}: volume p/w is made, but")),
        "{said}"
    );
}

#[test]
fn a_clone_that_cannot_be_made_is_not_begun() {
    let full = Space { used_bytes: 80, total_bytes: 100, ..Space::default() };
    for (line, facts, why) in [
        ("volume_clone p,v,w,*", gone(), "there is no volume p/v"),
        ("volume_clone p,v,w,t", there(), "there is no snapshot p/v@t"),
        ("volume_clone p,v,w,*", Facts { renamed: Some(image(1, &[])), ..there() }, "there is a volume p/w"),
        ("volume_clone p,v,w,*", Facts { space: full, ..there() }, "80 %"),
    ] {
        let said = step(&task(line, false, false), &facts);
        assert!(said.starts_with("no: ") && said.contains(why), "{line}: {said}");
    }
}

#[test]
fn a_volume_has_its_name_again_when_it_is_rolled_back() {
    let mut world = World::new(there());
    assert_eq!(world.runs("snapshot_rollback p,v,s", ""), "done: p/v 50 s");
    let steps = [
        format!("renaming image p/v to {TASK}"),
        format!("rolling p/{TASK} back to s"),
        format!("renaming image p/{TASK} to v"),
    ];
    assert_eq!(world.said, steps);
}

#[test]
fn a_volume_that_cannot_be_rolled_back_is_as_it_was_and_one_that_is_in_part_is_no_vms() {
    let mut world = World::new(there());
    assert_eq!(world.runs("snapshot_rollback p,v,s", "rolling"), "no: Ceph says no");
    assert_eq!((&world.facts.image, &world.facts.aside), (&there().image, &None));

    let begun = |mark: &str| Facts {
        image: None,
        aside: Some(ObservedImage { mark: Some(mark.into()), ..image(70, &["s"]) }),
        ..there()
    };
    let refused = |change: &str, facts: Facts| {
        let begun = task("snapshot_rollback p,v,s", true, false);
        let Step::Change(next) = plan(&begun, &facts) else { panic!("{}", step(&begun, &facts)) };
        assert!(next.to_string().starts_with(change), "{next}");
        let refused = |lasts| vec![Refused { change: next.clone(), why: "Ceph says no".into(), lasts }];
        let passes = Facts { refused: refused(Refused::PATIENCE / 2), ..facts };
        assert_eq!(step(&begun, &passes), next.to_string(), "it is tried again for a while");
        step(&begun, &Facts { refused: refused(Refused::PATIENCE), ..passes })
    };
    for (change, mark, why) in [
        ("rolling", "1-1 begun", "rolled back in part, and then Ceph says no"),
        ("renaming", "1-1 done", "cannot have its name again, since Ceph says no"),
    ] {
        let said = refused(change, begun(mark));
        assert!(said.starts_with(&format!("left: no p/v; p/{TASK} 70 s: ")) && said.contains(why), "{said}");
    }
    // It does not pass: another volume has the name, or the snapshot is gone.
    let taken =
        Facts { image: Some(ObservedImage { id: Some("2".into()), ..image(1, &[]) }), ..begun("1-1 done") };
    let gone = ObservedImage { mark: Some("1-1 begun".into()), ..image(70, &[]) };
    let gone = Facts { aside: Some(gone), ..begun("1-1 begun") };
    for (facts, why) in
        [(taken, "somebody has made another p/v"), (gone, "somebody has removed the snapshot")]
    {
        let said = step(&task("snapshot_rollback p,v,s", true, false), &facts);
        assert!(said.starts_with("left: ") && said.contains(why), "{said}");
    }
    // Another task's.
    let earlier = ObservedImage { mark: Some("0-1 done".into()), ..image(70, &["s"]) };
    let said =
        step(&task("snapshot_rollback p,v,s", true, false), &Facts { image: Some(earlier), ..there() });
    assert!(said.starts_with("renaming image p/v"), "{said}");
}

#[test]
fn no_volume_is_rolled_back_that_anybody_uses() {
    let client: ClientAddress = "10.0.0.1:0/1".parse().unwrap();
    for begun in [false, true] {
        for (facts, why) in [
            (gone(), "there is no volume p/v"),
            (Facts { image: Some(image(100, &[])), ..there() }, "there is no snapshot p/v@s"),
            (Facts { used_by: vec!["web1".parse().unwrap()], ..there() }, "used by VM web1"),
            (Facts { unreadable: Some("web1".into()), ..there() }, "perhaps VM web1"),
            (Facts { open: vec![client], ..there() }, "client 10.0.0.1:0/1 has p/v open"),
        ] {
            let said = step(&task("snapshot_rollback p,v,s", begun, false), &facts);
            assert!(said.starts_with("no: ") && said.contains(why), "{said}");
        }
    }
}

#[test]
fn an_image_with_two_names_gets_one_and_a_name_that_is_taken_is_left_alone() {
    let named = |id: &str| {
        Some(ObservedImage { id: Some(id.into()), mark: Some("1-1 begun".into()), ..image(100, &["s"]) })
    };
    let own = format!("renaming image p/{TASK} to ");
    for (line, to) in [("snapshot_rollback p,v,s", "v"), ("volume_clone p,v,w,s", "w")] {
        let facts = |aside| {
            let other = named("one");
            let (image, renamed) = if to == "v" { (other, None) } else { (named("source"), other) };
            Facts { image, renamed, aside, ..there() }
        };
        let twice = facts(named("one"));
        let said = step(&task(line, true, false), &twice);
        assert_eq!(said, format!("{own}{to}"));
        let Step::Change(change) = plan(&task(line, true, false), &twice) else { panic!("{said}") };
        let refused = Refused { change, why: "Ceph says no".into(), lasts: Duration::ZERO };
        let said = step(&task(line, true, false), &Facts { refused: vec![refused], ..twice });
        assert!(said.starts_with("no: ") && said.contains("one image has two names"), "{said}");
        let said = step(&task(line, false, false), &facts(named("two")));
        assert!(said.starts_with("no: ") && said.contains("already"), "{said}");
        let refused = Facts { impossible: Some("Ceph says no".into()), ..facts(None) };
        assert!(step(&task(line, true, false), &refused).contains(&format!("may be called {TASK} now")));
        assert!(!step(&task(line, false, false), &refused).contains(TASK));
    }
    let facts = |renamed| Facts { image: named("one"), renamed, ..there() };
    let line = "volume_rename p,v,w";
    assert_eq!(step(&task(line, true, false), &facts(named("one"))), "renaming image p/v to w");
    for (begun, other) in [(true, "two"), (false, "one")] {
        let said = step(&task(line, begun, false), &facts(named(other)));
        assert!(said.contains("there is a volume p/w already"), "{said}");
    }
}
