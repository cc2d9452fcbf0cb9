//! Something dies in the middle of a live migration: the guest runs on exactly one side afterwards, whatever it is.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use pvc_lab::{LabOptions, Node, PATIENCE, Scenario, Vm, play, wait_until};
use serde_json::json;

use crate::{default, fast, kill_daemon, pass};

/// A busy machine may be slow to boot a guest anew.
const IN_THE_END: Duration = Duration::from_mins(2);

/// A VM that migrates from node1 to node3 when `what` happens.
fn migrate(
    lab: LabOptions,
    what: &str,
    act: impl FnOnce(&Scenario) -> Result<()>,
    after: impl FnOnce(&End) -> Result<()>,
) {
    play(lab, |s| {
        let vm = s.start_vms([1], "node1")?.remove(0);
        let life = s.cluster.life("node1", &vm)?;
        s.pvc(&["vm", "migrate", "--no-wait", "-t", "node3", &vm.name])?;
        // The target's process waits for the guest's memory now.
        wait_until("the migration", PATIENCE, || s.cluster.processes.of(&vm.uuid).len() == 2)?;
        let broken = s.fault(what, || act(s))?;
        let at = wait_one_side(s, &vm, IN_THE_END)?;
        s.recovered("the guest", broken.elapsed(), IN_THE_END)?;
        s.cluster.wait_counting(&at, &vm)?;
        let same = s.cluster.life(&at, &vm)? == life;
        s.note(format!("{} is on {at}, {}", vm.name, if same { "in the same life" } else { "started anew" }));
        let went_over = !vm.beats(&s.node("node3")).is_empty();
        after(&End { at, same, went_over })
    });
}

/// How it ended.
struct End {
    at: String,
    /// Whether the guest went on and did not start over.
    same: bool,
    /// Whether it ever executed on the target.
    went_over: bool,
}

/// The one node on which the VM is, once the desired state is answered and the claim names that node alone.
fn wait_one_side(s: &Scenario, vm: &Vm, within: Duration) -> Result<String> {
    let mut at = Vec::new();
    wait_until("the VM to run on one side, and the request to be answered", within, || {
        let seen = s.cluster.vm(vm);
        at = s.cluster.processes.where_is(&vm.uuid);
        at.len() == 1 && seen["state"] == "start" && seen["node"] == at[0] && seen["claim"] == json!(at)
    })
    .with_context(|| format!("{:#}", s.cluster.vm(vm)))?;
    at.pop().context("it is nowhere")
}

/// kill -9 of libvirtd alone: its guests' processes are not its own.
fn kill_libvirtd(node: &Node) -> Result<()> {
    let kill = ["/bin/systemctl", "kill", "--kill-who=main", "--signal=KILL", "libvirtd"];
    node.run(&kill, PATIENCE).map(drop)
}

#[test]
fn the_death_of_the_target_in_a_migration_leaves_the_guest_on_one_side() {
    let dies = |s: &Scenario| s.victim("node3").kill();
    migrate(fast("f-target-dies", 3), "the target node loses its power", dies, |end| {
        ensure!(end.went_over || (end.at == "node1" && end.same), "the guest started over");
        Ok(())
    });
}

#[test]
#[ignore = "the whole menu: cargo xtask faults"]
fn the_death_of_the_source_in_a_migration_leaves_the_guest_on_one_side() {
    let dies = |s: &Scenario| s.victim("node1").kill();
    migrate(fast("f-source-dies", 3), "the source node loses its power", dies, |end| {
        ensure!(end.at != "node1" || !end.same, "a dead node's guest goes on");
        Ok(())
    });
}

#[test]
#[ignore = "the whole menu: cargo xtask faults"]
fn the_death_of_the_sources_libvirtd_in_a_migration_does_not_end_the_guest() {
    let dies = |s: &Scenario| kill_libvirtd(&s.node("node1"));
    migrate(default("f-source-libvirtd", 3), "the source's libvirtd is killed", dies, |end| {
        ensure!(end.same, "the guest started over on {}", end.at);
        Ok(())
    });
}

#[test]
#[ignore = "the whole menu: cargo xtask faults"]
fn the_death_of_the_targets_libvirtd_in_a_migration_does_not_end_the_guest() {
    let dies = |s: &Scenario| kill_libvirtd(&s.node("node3"));
    migrate(default("f-target-libvirtd", 3), "the target's libvirtd is killed", dies, |end| {
        ensure!(end.same, "the guest started over on {}", end.at);
        Ok(())
    });
}

#[test]
#[ignore = "the whole menu: cargo xtask faults"]
fn the_death_of_the_sources_daemon_in_a_migration_does_not_end_the_guest() {
    let dies = |s: &Scenario| kill_daemon(&s.node("node1"));
    migrate(default("f-source-daemon", 3), "the source's pvcd is killed", dies, |end| {
        ensure!(end.same, "the guest started over on {}", end.at);
        Ok(())
    });
}

#[test]
#[ignore = "the whole menu: cargo xtask faults"]
fn the_death_of_the_targets_daemon_in_a_migration_does_not_end_the_guest() {
    let dies = |s: &Scenario| kill_daemon(&s.node("node3"));
    migrate(default("f-target-daemon", 3), "the target's pvcd is killed", dies, |end| {
        ensure!(end.same, "the guest started over on {}", end.at);
        Ok(())
    });
}

#[test]
#[ignore = "the whole menu: cargo xtask faults"]
fn a_migration_whose_target_falls_silent_goes_back_or_is_decided_by_a_fence() {
    let silent = |s: &Scenario| s.victim("node3").cut();
    migrate(fast("f-target-cut", 3), "the cables of the target are pulled", silent, |end| {
        ensure!(end.went_over || (end.at == "node1" && end.same), "the guest started over");
        Ok(())
    });
}

/// Waits on a source for the moment in which its guest is held for the last phase, and cuts the target off: not from anybody else, and not
/// from ZooKeeper. The target's last answer, some ten milliseconds later, is lost.
const CUT_AT_THE_END: &str = r#"
nft -f - <<END
table inet apart {
  chain in { type filter hook input priority 0; tcp sport {2181, 2888, 3888} accept; tcp dport {2181, 2888, 3888} accept; ip saddr @gone drop; }
  chain out { type filter hook output priority 0; tcp sport {2181, 2888, 3888} accept; tcp dport {2181, 2888, 3888} accept; ip daddr @gone drop; }
  set gone { type ipv4_addr; }
}
END
stdbuf -oL virsh -q event --domain $1 --event lifecycle --loop | while read -r line; do
  case "$line" in *Suspended*) nft add element inet apart gone "{ $2 }"; break;; esac
done
"#;

#[test]
#[ignore = "the whole menu: cargo xtask faults"]
fn a_source_and_a_target_that_lose_each_other_at_the_end_of_a_migration_never_both_execute_its_guest() {
    play(default("f-apart", 3), |s| {
        let vm = s.start_vms([1], "node1")?.remove(0);
        let life = s.cluster.life("node1", &vm)?;
        let (source, target) = (s.node("node1"), s.node("node3"));
        source.write_file("/root/cut", CUT_AT_THE_END.as_bytes())?;
        let background = format!("setsid sh /root/cut {} {} >/dev/null 2>&1 &", vm.name, target.address());
        // A loaded machine may be too slow to cut in time; then the guest has gone over, and is sent back.
        for attempt in 1..=5 {
            source.run(&["/bin/sh", "-c", &background], PATIENCE)?;
            wait_until("the watch", PATIENCE, || {
                source.run(&["/usr/bin/pgrep", "-f", "virsh -q event"], PATIENCE).is_ok()
            })?;
            s.pvc(&["vm", "migrate", "--no-wait", "-t", "node3", &vm.name])?;
            s.fault("source and target lose each other at the end of a migration", || {
                let gone =
                    || source.run(&["/usr/sbin/nft", "list", "set", "inet", "apart", "gone"], PATIENCE);
                wait_until("the cut", PATIENCE, || gone().is_ok_and(|set| set.contains("elements")))
            })?;
            // Longer than libvirt's keepalives. While it lasts the source's QEMU sticks in its last write and answers nobody: see
            // docs/manual/failure-modes.md.
            pass(Duration::from_secs(15))?;
            source.run(&["/usr/sbin/nft", "delete", "table", "inet", "apart"], PATIENCE)?;
            let healed = Instant::now();
            let at = wait_one_side(s, &vm, IN_THE_END)?;
            s.cluster.wait_counting(&at, &vm)?;
            ensure!(s.cluster.life(&at, &vm)? == life, "the guest started over on {at}");
            // It went on at its source, and was migrated again.
            let on_target = s.cluster.processes.of(&vm.uuid).into_iter().filter(|life| life.node == "node3");
            if on_target.count() > attempt {
                s.recovered("the guest", healed.elapsed(), IN_THE_END)?;
                return s.cluster.wait_settled(&vm, "node3").map(drop);
            }
            s.pvc(&["vm", "unmigrate", &vm.name])?;
            s.cluster.wait_settled(&vm, "node1")?;
        }
        anyhow::bail!("the cut came too late every time")
    });
}

#[test]
#[ignore = "the whole menu: cargo xtask faults"]
fn guests_that_migrate_one_after_the_other_while_daemons_die_are_never_lost() {
    play(default("f-migrate-kills", 3), |s| {
        let vms = s.start_vms([1, 2], "node1")?;
        let lives = vms.iter().map(|vm| s.cluster.life("node1", vm)).collect::<Result<Vec<_>>>()?;
        for (round, (from, to)) in
            [("node1", "node2"), ("node2", "node3"), ("node3", "node1")].into_iter().enumerate()
        {
            for vm in &vms {
                s.pvc(&["vm", "move", "--no-wait", "-t", to, &vm.name])?;
            }
            let began = Instant::now();
            wait_until("the migrations", PATIENCE, || {
                vms.iter().any(|vm| s.cluster.processes.of(&vm.uuid).len() > round + 1)
            })?;
            s.fault(&format!("pvcd is killed on {from} and {to}"), || {
                [from, to].into_iter().try_for_each(|name| kill_daemon(&s.node(name)))
            })?;
            for vm in &vms {
                s.cluster.wait_settled(vm, to)?;
            }
            s.note(format!("round {round}: {:?}", began.elapsed()));
        }
        for (vm, life) in vms.iter().zip(lives) {
            ensure!(s.cluster.life("node1", vm)? == life, "{} started over", vm.name);
        }
        Ok(())
    });
}
