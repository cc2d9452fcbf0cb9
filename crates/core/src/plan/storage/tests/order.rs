//! Which tasks go beside each other.

use proptest::prelude::*;

use super::*;

const VM: &str = "11111111-0000-4000-8000-000000000001";

/// Those that may go, by their places in the list.
fn go(lines: &[&str]) -> Vec<u32> {
    let tasks: Vec<Task> =
        (0..).zip(lines).map(|(id, line)| Task { id, ..task(line, false, false) }).collect();
    may_go(&tasks, |vm| (vm.to_string() == VM).then(|| vec!["p/disk".parse().unwrap()]))
}

#[test]
fn who_touches_the_same_waits_for_the_older_one_and_nobody_else_waits() {
    let flush = &format!("flush_locks {VM}");
    let clone = "volume_clone p,v,w,daily";
    for (older, later, beside) in [
        (clone, "volume_add p,x,1G", true),
        (clone, "snapshot_add p,v,weekly", true),
        (clone, "volume_clone p,v,x,daily", true),
        (clone, "volume_clone p,v,w,*", false),
        (clone, "volume_add p,w,1G", false),
        (clone, "snapshot_remove p,v,daily", false),
        (clone, "snapshot_remove p,v,weekly", true),
        (clone, "snapshot_rename p,v,weekly,daily", false),
        (clone, "volume_rename p,v,y", false),
        (clone, "volume_remove p,v", false),
        (clone, "snapshot_rollback p,v,daily", false),
        (clone, "pool_remove p", false),
        (clone, "pool_remove q", true),
        (clone, "osd_out 1", true),
        (clone, "locks *", true),
        (clone, flush, true),
        ("volume_clone p,disk,w,*", flush, true),
        ("volume_remove p,v", "volume_add p,v,1G", false),
        ("volume_remove p,v", "volume_remove q,v", true),
        ("pool_add p,8", "volume_add p,v,1G", false),
        ("snapshot_add p,v,a", "snapshot_add p,v,b", false),
        ("volume_rename p,v,w", "volume_add p,w,1G", false),
        ("snapshot_rollback p,disk,a", flush, false),
        ("snapshot_rollback p,v,a", "flush_locks 22222222-0000-4000-8000-000000000002", false),
        (flush, "fence_lift *", false),
        ("osd_out 1", "osd_in 2", false),
    ] {
        for [first, second] in [[older, later], [later, older]] {
            let expected: &[u32] = if beside { &[0, 1] } else { &[0] };
            assert_eq!(go(&[first, second]), expected, "{first}, then {second}");
        }
    }
}

#[test]
fn nobody_overtakes_one_that_waits_for_the_same() {
    let asked = ["volume_clone p,v,w,*", "volume_rename p,v,x", "volume_add p,x,1G", "volume_add p,y,1G"];
    assert_eq!(go(&asked), [0, 3]);
}

fn commands() -> impl Strategy<Value = String> {
    let of_one = prop_oneof![
        Just("volume_add p,V,1B"),
        Just("volume_remove p,V"),
        Just("snapshot_add p,V,s"),
        Just("volume_clone p,V,W,*"),
        Just("volume_rename p,V,W"),
        Just("locks *"),
        Just("pool_remove p"),
    ];
    (of_one, 0..4_u8, 0..4_u8)
        .prop_map(|(line, v, w)| line.replace('V', &format!("v{v}")).replace('W', &format!("v{w}")))
}

proptest! {
    /// What a node has begun to carry out stays its own to carry out, whoever asks for what.
    #[test]
    fn who_may_go_may_go_until_it_is_over(lines in proptest::collection::vec(commands(), 1..12), over in 0..12_usize) {
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let all = go(&lines);
        prop_assert!(all.contains(&0), "the oldest always may");
        for known in 1..lines.len() {
            let before = go(&lines[..known]);
            prop_assert!(before.iter().all(|id| all.contains(id)));
        }
        // One is over: the others may as before, and more.
        let tasks: Vec<Task> = (0..).zip(&lines).map(|(id, line)| Task { id, ..task(line, false, false) }).collect();
        let gone = u32::try_from(over).unwrap();
        let left = may_go(tasks.iter().filter(|task| task.id != gone), |_| None);
        prop_assert!(all.iter().filter(|id| **id != gone).all(|id| left.contains(id)));
    }
}
