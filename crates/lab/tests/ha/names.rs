//! Names of guests, as they are asked for from outside: at the floating address, of the DNS server that runs on every coordinator.

use anyhow::{Result, ensure};
use pvc_lab::{Cluster, layout::Net, wait_until};

use crate::{
    fast_timings,
    networks::{GATEWAY, Port, SOON, add_network},
    on_lab, options,
};

/// What the floating address says of a name, asked from beside the nodes.
pub(crate) fn asked(cluster: &Cluster, name: &str) -> Option<String> {
    let [server, _] = Net::Upstream.floating();
    let ask = ["/usr/bin/busybox", "nslookup", name, &server.to_string()];
    let answer = cluster.lab.exec_in_switch(&ask, SOON).ok().filter(pvc_lab::Output::success)?;
    Some(answer.stdout.split_once("\n\n")?.1.to_owned())
}

pub(crate) fn wait_resolves(cluster: &Cluster, name: &str, to: &str) -> Result<()> {
    let mut seen = None;
    wait_until(&format!("{name} to be {to}"), SOON, || {
        seen = asked(cluster, name);
        seen.as_ref().is_some_and(|seen| seen.contains(to))
    })
    .map_err(|late| late.context(format!("{seen:?}")))
}

#[test]
fn a_guest_that_has_an_address_has_a_name_whoever_is_primary_and_whatever_was_away() {
    on_lab(options("ha-names").timings(fast_timings()).with_database(), |cluster| {
        let database = cluster.node("node1");
        add_network(cluster)?;
        let port = Port::plug(cluster.node("node2"), 1)?;
        wait_resolves(cluster, "gateway.web.test", GATEWAY)?;
        let first = port.lease("web1")?;
        wait_resolves(cluster, "web1.web.test", &first)?;
        wait_resolves(cluster, &first, "web1.web.test")?;
        ensure!(asked(cluster, "web9.web.test").is_none(), "nobody has that name");

        let before = cluster.primary()?;
        let next = if before == "node2" { "node3" } else { "node2" };
        cluster.pvc(&["node", "primary", next])?;
        ensure!(cluster.primary_other_than(&before)? == next);
        wait_resolves(cluster, "web1.web.test", &first)?;

        // Guests get addresses without the database, and their names when it is back.
        database.run(&["/bin/systemctl", "stop", "lab-postgres.service"], SOON)?;
        let second = port.lease("web2")?;
        ensure!(asked(cluster, "web2.web.test").is_none(), "who has told its name?");
        database.run(&["/bin/systemctl", "start", "lab-postgres.service"], SOON)?;
        wait_resolves(cluster, "web2.web.test", &second)
    });
}
