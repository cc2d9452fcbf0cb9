//! `pvc doctor` on a real node, beside real neighbours that have something wrong with them.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use pvc_lab::{Node, PATIENCE, layout::Net, wait_until};
use serde_json::Value;

use crate::{default_timings, on_lab, options};

const SOON: Duration = Duration::from_mins(1);

/// Exit code, and what was found.
fn doctor(node: &Node) -> Result<(Option<i32>, Value)> {
    let seen = node.exec(&["/usr/bin/pvc", "doctor", "--format", "json"], SOON)?;
    let found = serde_json::from_str(&seen.stdout).with_context(|| seen.to_string())?;
    Ok((seen.code, found))
}

fn wrong(found: &Value) -> Vec<String> {
    let of = |path: &str| found.pointer(path).and_then(Value::as_array).cloned().unwrap_or_default();
    let findings = of("/node/findings").into_iter().chain(of("/cluster"));
    findings.filter(|finding| finding["level"] == "wrong").map(|finding| finding.to_string()).collect()
}

#[test]
fn the_doctor_names_what_a_node_does_not_reach_and_what_mends_it() {
    on_lab(options("ha-doctor").timings(default_timings()).with_database(), |cluster| {
        let (one, two, three) = (cluster.node("node1"), cluster.node("node2"), cluster.node("node3"));
        let mut found = Value::Null;
        // The zones are made once the database is up.
        let well = wait_until("all to be well", PATIENCE, || {
            doctor(&one).is_ok_and(|(code, now)| {
                found = now;
                code == Some(0) && wrong(&found).is_empty()
            })
        });
        well.with_context(|| format!("{found:#}"))?;
        let fine = found["node"]["fine"].to_string();
        for looked in
            ["ZooKeeper at", "libvirt, with 0 guests", "the BMC of node3", "packets of 1500 bytes to node2"]
        {
            ensure!(fine.contains(looked), "{looked} was not looked at: {fine}");
        }

        // One switch port of another size, one BMC cable, one service.
        let port = two.number().port(Net::Cluster);
        cluster.lab.exec_in_switch(&["/bin/ip", "link", "set", &port, "mtu", "1400"], SOON)?.ok()?;
        three.cut_bmc()?;
        three.run(
            &[
                "/bin/systemctl",
                "stop",
                "zookeeper",
                "libvirtd-tcp.socket",
                "libvirtd.socket",
                "libvirtd-ro.socket",
                "libvirtd-admin.socket",
                "libvirtd",
            ],
            SOON,
        )?;
        let (code, found) = doctor(&one)?;
        let told = wrong(&found).join("\n");
        ensure!(code == Some(1), "{code:?}: {told}");
        for words in [
            "packets of 1500 bytes do not reach node2, smaller ones do",
            "node3 cannot be fenced from here",
            "no VM can be migrated to node3",
            "on node3: systemctl status zookeeper",
        ] {
            ensure!(told.contains(words), "{words} is not in\n{told}");
        }

        // A daemon whose file is spoilt cannot look; the cluster is asked all the same.
        one.run(&["/bin/sed", "-i", "s/^ *node:.*//", "/etc/pvc/pvcd.yaml"], SOON)?;
        let (code, found) = doctor(&one)?;
        let told = wrong(&found).join("\n");
        ensure!(code == Some(1) && found["node"].is_null(), "{found:#}");
        ensure!(
            told.contains("this node was not looked at") && told.contains("pvcd --check-config"),
            "{told}"
        );
        Ok(())
    });
}
