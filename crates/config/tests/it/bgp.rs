//! The site's routers, which only some sites have.

use std::net::IpAddr;

use pvc_config::check;

use crate::common::{EXAMPLE, edit, interface, told};

/// The manual's example, whose coordinator has an address in the routers' network, with this section.
fn with(section: &str) -> String {
    let reached = interface("upstream", "address: None", "address: 1.1.1.4/24");
    edit(&reached, "        pass: pvcdns\n", &format!("        pass: pvcdns\n    bgp:\n{section}"))
}

#[test]
fn routers_are_read_with_what_is_usual() {
    let report =
        check(&with("      routers: [1.1.1.5, '2001:db8::1']\n      routers_asn: 65001\n"), "pvcd.yaml");
    assert_eq!(report.diagnostics, []);
    let site = report.config.unwrap().bgp.unwrap();
    let routers: Vec<String> = site.routers.iter().map(IpAddr::to_string).collect();
    assert_eq!(routers, ["1.1.1.5", "2001:db8::1"]);
    assert_eq!((site.asn, site.routers_asn, site.bfd), (65_500, 65_001, false));
    assert_eq!(check(EXAMPLE, "pvcd.yaml").config.unwrap().bgp, None);
}

#[test]
fn routers_that_cannot_be_are_refused() {
    let list = |routers: &str| format!("      routers: [{routers}]\n      routers_asn: 65001\n");
    let asn = |lines: &str| format!("      routers: [1.1.1.5]\n{lines}");
    let many: Vec<String> = (20..40).map(|last| format!("1.1.1.{last}")).collect();
    for (section, expected) in [
        (list("9.9.9.9"), "coordinator.bgp.routers[0] is on no wire on which this node has an address"),
        (list("1.1.1.1, 1.1.1.1"), "coordinator.bgp.routers[1] is named in line 36 already"),
        (list("10.255.0.1"), "coordinator.bgp.routers[0] is this node's own address"),
        (list("fe80::1"), "coordinator.bgp.routers[0] is link-local"),
        (list("'::ffff:1.1.1.5'"), "coordinator.bgp.routers[0] is an IPv4 address in IPv6's notation"),
        (list("224.0.0.5"), "coordinator.bgp.routers[0] is no address of a router"),
        (list("router1"), "coordinator.bgp.routers[0] is not an IP address"),
        (list(""), "coordinator.bgp.routers is empty"),
        (list(&many.join(", ")), "coordinator.bgp.routers has 20 entries"),
        (asn(""), "coordinator.bgp.routers_asn is missing"),
        (asn("      routers_asn: 0\n"), "coordinator.bgp.routers_asn cannot be 0"),
        (asn("      routers_asn: 65500\n"), "coordinator.bgp.routers_asn is the cluster's own"),
        (
            asn("      routers_asn: 65500\n      asn: 64999\n"),
            "coordinator.bgp.routers_asn is what the nodes are among themselves",
        ),
        (asn("      routers_asn: 4294967295\n"), "coordinator.bgp.routers_asn is too large"),
    ] {
        let said = told(&with(&section));
        assert!(said.len() == 1 && said[0].ends_with(&format!("error {expected}")), "{section}: {said:?}");
    }
    // A node that is no coordinator does not speak with them.
    let elsewhere = edit(&with(&list("9.9.9.9")), "  node: pvc-hv1\n", "  node: pvc-hv7\n");
    assert_eq!(told(&elsewhere), [""; 0]);
}
