//! Guests over IPv6: without IPv4, and beside it.

use anyhow::{Context as _, Result, ensure};
use pvc_lab::{Cluster, Node, wait_until};

use super::{GATEWAY, Port, SOON, wait_bridges};
use crate::{
    fast_timings,
    names::{asked, wait_resolves},
    on_lab, options,
};

const GATEWAY6: &str = "fd00:100::1";

impl Port {
    fn inside(&self, program: &[&str]) -> Result<pvc_lab::Output> {
        let inside = ["/usr/sbin/ip", "netns", "exec", "guest"];
        self.node.exec(&[&inside[..], program].concat(), SOON)
    }

    /// Waits until the guest has made itself an address, and knows the router.
    fn wait_own_address(&self) -> Result<()> {
        wait_until("an address of its own", SOON, || {
            let shown = |what: &[&str]| {
                let shown = self.inside(&[&["/usr/sbin/ip", "-6"][..], what].concat());
                shown.map(|shown| shown.stdout).unwrap_or_default()
            };
            let addresses = shown(&["address", "show", "dev", "eth0", "scope", "global"]);
            let has = addresses.contains("fd00:100::") && !addresses.contains("tentative");
            has && shown(&["route", "show", "default"]).contains("via fe80::1")
        })
    }

    /// The address that it has made of its card.
    fn own_address(&self) -> Result<String> {
        let shown =
            self.inside(&["/usr/sbin/ip", "-6", "address", "show", "dev", "eth0", "scope", "global"])?;
        let own = shown.stdout.split("inet6 ").nth(1).and_then(|rest| rest.split('/').next());
        own.map(str::to_owned).with_context(|| format!("it has none: {}", shown.stdout))
    }

    /// Asks for an address by DHCPv6 as a guest that has forgotten all but its card.
    fn lease6(&self, name: &str) -> Result<String> {
        let script = "printf 'timeout 10;\nsend fqdn.fqdn \"%s\";\n' $0 > /run/lab-dhcp6.conf && rm -f /run/lab-dhcp6.leases && \
             ip netns exec guest dhclient -6 -1 -D LL -cf /run/lab-dhcp6.conf -lf /run/lab-dhcp6.leases -pf /run/lab-dhcp6.pid \
             -sf /bin/true eth0 && kill $(cat /run/lab-dhcp6.pid) && cat /run/lab-dhcp6.leases";
        let mut given = None;
        wait_until(&format!("an IPv6 address for {name}"), SOON, || {
            let told = self.node.run(&["/bin/sh", "-c", script, name], SOON).unwrap_or_default();
            given = told.split("iaaddr ").nth(1).and_then(|rest| rest.split(' ').next()).map(str::to_owned);
            given.is_some()
        })?;
        given.context("no address")
    }

    fn wait_pings(&self, what: &str) -> Result<()> {
        let ping = ["/usr/bin/busybox", "ping", "-6", "-c", "1", "-W", "1", GATEWAY6];
        wait_until(what, SOON, || self.inside(&ping).is_ok_and(|output| output.success()))
    }

    fn wait_resolves6(&self, name: &str, address: &str) -> Result<()> {
        let ask = ["/usr/bin/busybox", "nslookup", name, GATEWAY6];
        wait_until(&format!("{name} to be {address}"), SOON, || {
            self.inside(&ask).is_ok_and(|output| output.stdout.contains(address))
        })
    }
}

/// The nodes that have the network's gateway.
fn gateways(cluster: &Cluster) -> Vec<String> {
    let has = |node: &Node| {
        let shown = node.exec(&["/usr/sbin/ip", "-o", "addr", "show", "dev", "vmbr100"], SOON);
        shown.is_ok_and(|shown| shown.stdout.contains(GATEWAY6))
    };
    cluster.lab.nodes().into_iter().filter(has).map(|node| node.name()).collect()
}

#[test]
fn guests_without_ipv4_have_addresses_and_names_whoever_is_primary_and_ipv4_may_come_later() {
    on_lab(options("ha-ipv6").timings(fast_timings()).with_database(), |cluster| {
        let is = ["-p", "managed", "-d", "web", "-n", "web.test", "--ipnet6", "fd00:100::/64"];
        let six = ["--gateway6", GATEWAY6, "100"];
        cluster.pvc(&[&["network", "add"][..], &is, &six].concat())?;
        wait_bridges(cluster, true)?;
        let (here, there) = (Port::plug(cluster.node("node1"), 1)?, Port::plug(cluster.node("node2"), 2)?);
        for port in [&here, &there] {
            port.wait_own_address()?;
            port.wait_pings("the gateway to answer")?;
        }
        let (one, two) = (here.lease6("web1")?, there.lease6("web2")?);
        ensure!(one != two, "{one} was given out twice");
        here.wait_resolves6("web2.web.test", &two)?;
        there.wait_resolves6("web1.web.test", &one)?;
        there.wait_resolves6("gateway.web.test", GATEWAY6)?;
        wait_resolves(cluster, "web1.web.test", &one)?;
        wait_resolves(cluster, &one, "web1.web.test")?;
        // So has the address that its card makes for itself.
        let own = here.own_address()?;
        ensure!(own != one, "by DHCPv6 it has another");
        wait_resolves(cluster, "web1.web.test", &own)?;
        wait_resolves(cluster, &own, "web1.web.test")?;
        there.wait_resolves6("web1.web.test", &own)?;
        let shown = cluster.pvc(&["network", "dhcp", "list", "web"])?;
        ensure!(shown.contains(&one) && shown.contains("web2"), "{shown}");

        let first = cluster.primary()?;
        ensure!(gateways(cluster) == [first.clone()], "{:?} have the gateway", gateways(cluster));
        let next = if first == "node2" { "node3" } else { "node2" };
        cluster.pvc(&["node", "primary", next])?;
        ensure!(cluster.primary_other_than(&first)? == next);
        for port in [&here, &there] {
            port.wait_pings("the gateway to answer elsewhere")?;
        }
        // Nobody has asked it for an address yet: it knows them from the state tree.
        there.wait_resolves6("web1.web.test", &one)?;
        there.wait_resolves6("web1.web.test", &own)?;
        ensure!(there.lease6("web2")? == two && here.lease6("web1")? == one, "an address has moved");
        ensure!(gateways(cluster) == [next], "{:?} have the gateway", gateways(cluster));

        let four = ["-i", "10.100.0.0/24", "-g", GATEWAY];
        let leases = ["--dhcp", "--dhcp-start", "10.100.0.100", "--dhcp-end", "10.100.0.109", "web"];
        cluster.pvc(&[&["network", "modify"][..], &four, &leases].concat())?;
        let old = here.lease("web1")?;
        // Its name is its own in both families.
        wait_resolves(cluster, "web1.web.test", &old)?;
        wait_resolves(cluster, "web1.web.test", &one)?;
        here.wait_resolves("web1", &old)?;
        here.wait_resolves("web1", &one)?;
        let stolen = there.lease("web1")?;
        ensure!(!asked(cluster, "web1.web.test").is_some_and(|said| said.contains(&stolen)), "it was stolen");
        Ok(())
    });
}
