//! What settings demand of each other, as tables: a change to the manual's example and what is told about it.

use crate::common::{EXAMPLE, edit, edited, expect, interface, told};

#[test]
fn sections_that_networking_needs_are_missed_only_if_it_is_on() {
    let database = "  coordinator:
    dns:
      database:
        host: localhost
        port: 5432
        name: pvcdns
        user: pvcdns
        pass: pvcdns
";
    assert_eq!(told(&edited(database, "")), ["1:1 error coordinator is missing"]);
    let without = edited(database, "");
    let off = edit(&without, "enable_networking: True", "enable_networking: False");
    assert_eq!(told(&off), [] as [&str; 0]);
    let unknown = edit(&without, "enable_networking: True", "enable_networking: maybe");
    assert_eq!(told(&unknown), ["5:24 error functions.enable_networking is not a truth value"], "told once");
    let half = edited("  coordinator:\n    dns:\n", "  coordinator:\n    dsn:\n");
    assert_eq!(
        told(&half),
        ["27:3 error coordinator.dns is missing", "28:5 warning coordinator.dsn is not a setting"]
    );
    let half = edit(&half, "enable_networking: True", "enable_networking: False");
    assert_eq!(told(&half).len(), 2, "what is there must be whole even where it could be absent");
}

#[test]
fn intervals_must_make_sense_together() {
    expect(&[
        (
            "keepalive_interval: 5",
            "keepalive_interval: 0",
            &["38:29 error system.fencing.intervals.keepalive_interval cannot be 0"],
        ),
        (
            "keepalive_interval: 5",
            "keepalive_interval: 3601",
            &["38:29 error system.fencing.intervals.keepalive_interval is too large"],
        ),
        (
            "keepalive_interval: 5",
            "keepalive_interval: 2.5",
            &["38:29 error system.fencing.intervals.keepalive_interval is not a plain decimal number"],
        ),
        ("fence_intervals: 6", "fence_intervals: 0", &[]),
        (
            "fence_intervals: 6",
            "fence_intervals: 1",
            &["39:26 warning system.fencing.intervals.fence_intervals leaves no room for a late keepalive"],
        ),
        ("suicide_intervals: 0", "suicide_intervals: 6", &[]),
        (
            "suicide_intervals: 0",
            "suicide_intervals: 7",
            &["40:28 warning system.fencing.intervals.suicide_intervals is more than \
             system.fencing.intervals.fence_intervals (6, line 39)"],
        ),
        (
            "failed_fence: None",
            "failed_fence: migrate",
            &["43:23 error system.fencing.actions.failed_fence is not safe without suicide_intervals"],
        ),
        (
            "  system:\n",
            "  system:\n    intervals: { keepalive_interval: 10 }\n",
            &["36:38 error system.intervals.keepalive_interval contradicts \
             system.fencing.intervals.keepalive_interval in line 39"],
        ),
    ]);
    let safe = edit(
        &edited("failed_fence: None", "failed_fence: migrate"),
        "suicide_intervals: 0",
        "suicide_intervals: 5",
    );
    assert_eq!(told(&safe), [] as [&str; 0]);
}

#[test]
fn addresses_lie_in_their_networks_and_have_one_holder() {
    expect(&[
        (
            "floating_ip: \"1.1.1.10/24\"",
            "floating_ip: 1.1.2.10/24",
            &["17:22 error cluster.networks.upstream.floating_ip is outside its network"],
        ),
        (
            "floating_ip: \"1.1.1.10/24\"",
            "floating_ip: 1.1.1.0/24",
            &["17:22 error cluster.networks.upstream.floating_ip is the network's own address"],
        ),
        (
            "floating_ip: \"1.1.1.10/24\"",
            "floating_ip: 1.1.1.255/24",
            &["17:22 error cluster.networks.upstream.floating_ip is the network's broadcast address"],
        ),
        (
            "floating_ip: \"1.1.1.10/24\"",
            "floating_ip: 1.1.1.10/32",
            &["17:22 warning cluster.networks.upstream.floating_ip has another prefix length than \
             cluster.networks.upstream.network"],
        ),
        (
            "floating_ip: \"1.1.1.10/24\"",
            "floating_ip: 1.1.1.1/24",
            &["17:22 error cluster.networks.upstream.floating_ip is the address of the gateway"],
        ),
        (
            "gateway: \"1.1.1.1\"",
            "gateway: 1.1.0.1",
            &["18:18 error cluster.networks.upstream.gateway is outside its network"],
        ),
        (
            "        network: \"1.1.1.0/24\"\n",
            "",
            &[
                "16:22 error cluster.networks.upstream.floating_ip has no network to lie in",
                "17:18 error cluster.networks.upstream.gateway has no network to lie in",
            ],
        ),
        (
            "floating_ip: \"10.255.0.254/24\"",
            "floating_ip: 10.255.0.1/24",
            &["72:20 error system.configuration.networking.cluster.address gives this node the address of \
             cluster.networks.cluster.floating_ip"],
        ),
        (
            "floating_ip: \"10.255.0.254/24\"",
            "floating_ip: 10.255.0.3/24",
            &["22:22 error cluster.networks.cluster.floating_ip is the by-id address of coordinator pvc-hv3"],
        ),
        (
            "network: \"10.254.0.0/24\"",
            "network: 10.254.0.0/15",
            &[
                "25:18 error cluster.networks.storage.network overlaps cluster.networks.cluster.network",
                "26:22 warning cluster.networks.storage.floating_ip has another prefix length than \
             cluster.networks.storage.network",
            ],
        ),
        (
            "network: \"10.255.0.0/24\"",
            "network: 1.1.1.0/24",
            &[
                "21:18 error cluster.networks.cluster.network overlaps cluster.networks.upstream.network",
                "22:22 error cluster.networks.cluster.floating_ip is outside its network",
            ],
        ),
    ]);
}

/// The manual's example with IPv6 on its cluster network, in lines 23 and 24.
fn with_ipv6(network6: &str, floating_ip6: &str) -> String {
    let floating_ip = "        floating_ip: \"10.255.0.254/24\"\n";
    let ours = format!("        network6: {network6}\n        floating_ip6: {floating_ip6}\n");
    edited(floating_ip, &format!("{floating_ip}{ours}"))
}

#[test]
fn ipv6_floats_as_ipv4_does() {
    let network = |problem: &str| format!("23:19 error cluster.networks.cluster.network6 {problem}");
    let floating = |problem: &str| format!("24:23 error cluster.networks.cluster.floating_ip6 {problem}");
    for (network6, floating_ip6, expected) in [
        ("fd00:255::/64", "fd00:255::fe/64", vec![]),
        ("fd00:255::/64", "fd00:255::/64", vec![floating("is the network's own address")]),
        ("fd00:255::/64", "fd00:254::fe/64", vec![floating("is outside its network")]),
        ("fd00:255::/64", "fd00:255::fe", vec![floating("has no prefix length")]),
        ("fd00:255::/64", "fd00:255::fe/129", vec![floating("has an invalid prefix length")]),
        ("fd00:255::/64", "10.255.0.253/24", vec![floating("is IPv4, not IPv6")]),
        ("fd00:255::/64", "fd00:255:::/64", vec![floating("is not in CIDR notation")]),
        ("None", "fd00:255::fe/64", vec![floating("has no network to lie in")]),
        ("fd00:255::1/64", "None", vec![network("is an address, not a network")]),
        ("fe80::/64", "None", vec![network("is link-local: it means another network on every wire")]),
        ("ff02::/64", "None", vec![network("is multicast")]),
        ("::ffff:10.0.0.0/104", "None", vec![network("is reserved")]),
        (
            "fd00:255::/64",
            "fd00:255::fe/128",
            vec![
                "24:23 warning cluster.networks.cluster.floating_ip6 has another prefix length than \
                 cluster.networks.cluster.network6"
                    .to_owned(),
            ],
        ),
    ] {
        assert_eq!(told(&with_ipv6(network6, floating_ip6)), expected, "{network6} {floating_ip6}");
    }
}

#[test]
fn ipv6_networks_are_apart_and_their_devices_carry_them() {
    let text = with_ipv6("fd00:255::/64", "fd00:255::fe/64");
    let storage = "        floating_ip: \"10.254.0.254/24\"\n";
    let overlapping = edit(&text, storage, &format!("{storage}        network6: fd00:255::/48\n"));
    assert_eq!(
        told(&overlapping),
        ["29:19 error cluster.networks.storage.network6 overlaps cluster.networks.cluster.network6"]
    );
    assert_eq!(
        told(&text.replace("mtu: 1500", "mtu: 1279")),
        [
            "73:16 error system.configuration.networking.cluster.mtu is too small for \
             cluster.networks.cluster.network6 in line 23",
            "73:16 warning system.configuration.networking.cluster.mtu leaves client networks less than IPv6 needs",
        ]
    );
}

#[test]
fn by_id_needs_a_number_that_has_an_address() {
    let both = |problem: &str| {
        ["72:20", "76:20"].map(|at| {
            let network = if at == "72:20" { "cluster" } else { "storage" };
            format!("{at} error system.configuration.networking.{network}.address {problem}")
        })
    };
    for node in ["alpha", "hv99999999999"] {
        let text = edited("node: pvc-hv1", &format!("node: {node}"));
        assert_eq!(told(&text), both("needs a number in the node's name"), "{node}");
    }
    for node in ["hv0", "hv255"] {
        let text = edited("node: pvc-hv1", &format!("node: {node}"));
        assert_eq!(told(&text), both("gives this node no address"), "{node}");
    }
    let without =
        edited("        network: \"10.255.0.0/24\"\n        floating_ip: \"10.255.0.254/24\"\n", "");
    assert_eq!(
        told(&without),
        [
            "70:20 error system.configuration.networking.cluster.address has no network to take an address from",
        ]
    );
}

#[test]
fn interfaces_are_checked_against_their_networks_and_each_other() {
    for (text, expected) in [
        (
            interface("cluster", "address: by-id", "address: 10.254.0.9/24"),
            "72:20 error system.configuration.networking.cluster.address is outside its network",
        ),
        (
            interface("cluster", "address: by-id", "address: 10.255.0.9/16"),
            "72:20 warning system.configuration.networking.cluster.address has another prefix length than \
             cluster.networks.cluster.network",
        ),
        (
            interface("cluster", "address: by-id", "address: 10.255.0.9"),
            "72:20 error system.configuration.networking.cluster.address has no prefix length",
        ),
        (
            interface("cluster", "address: by-id", "address: by_id"),
            "72:20 error system.configuration.networking.cluster.address is not in CIDR notation",
        ),
        (
            interface("upstream", "address: None", "address: 1.1.1.1/24"),
            "68:20 error system.configuration.networking.upstream.address gives this node the address of \
             cluster.networks.upstream.gateway",
        ),
        (
            interface("upstream", "mtu: 1500", "mtu: 575"),
            "67:16 error system.configuration.networking.upstream.mtu is too small",
        ),
        (
            interface("upstream", "mtu: 1500", "mtu: 65536"),
            "67:16 error system.configuration.networking.upstream.mtu is too large",
        ),
        (
            interface("storage", "mtu: 1500", "mtu: 9000"),
            "75:16 error system.configuration.networking.storage.mtu contradicts \
             system.configuration.networking.upstream.mtu in line 67",
        ),
        (
            interface("upstream", "device: ens4", "device: ens4/1"),
            "66:19 error system.configuration.networking.upstream.device is not a device name",
        ),
        (
            interface("upstream", "device: ens4", "device: a-very-long-name"),
            "66:19 error system.configuration.networking.upstream.device is not a device name",
        ),
    ] {
        assert_eq!(told(&text), [expected]);
    }
    let own_device =
        interface("cluster", "device: ens4\n          mtu: 1500", "device: ens5\n          mtu: 1300");
    assert_eq!(
        told(&own_device),
        [
            "71:16 warning system.configuration.networking.cluster.mtu leaves client networks less than IPv6 needs"
        ]
    );
}

#[test]
fn coordinators_are_at_least_one_and_no_two_the_same() {
    let list = "      - pvc-hv1\n      - pvc-hv2\n      - pvc-hv3\n";
    expect(&[
        (list, "", &["9:5 error cluster.coordinators is empty"]),
        (
            "coordinators:\n      - pvc-hv1\n      - pvc-hv2\n      - pvc-hv3\n",
            "coordinators: []\n",
            &["9:5 error cluster.coordinators is empty"],
        ),
        (
            "coordinators:\n      - pvc-hv1\n      - pvc-hv2\n      - pvc-hv3\n",
            "coordinators: pvc-hv1\n",
            &["9:5 error cluster.coordinators must be a list"],
        ),
        (
            "    coordinators:\n      - pvc-hv1\n      - pvc-hv2\n      - pvc-hv3\n",
            "",
            &["8:3 error cluster.coordinators is missing"],
        ),
        (
            "      - pvc-hv2\n",
            "      - pvc-hv1\n",
            &["11:9 error cluster.coordinators[1] names the same coordinator as line 10"],
        ),
        (
            "      - pvc-hv2\n",
            "      - Pvc-HV1.pvc.local:2182\n",
            &["11:9 error cluster.coordinators[1] names the same coordinator as line 10"],
        ),
        (
            "      - pvc-hv2\n",
            "      - pvc hv2\n",
            &["11:9 error cluster.coordinators[1] is not a host name"],
        ),
        (
            "      - pvc-hv2\n",
            "      - pvc-hv2:0\n",
            &["11:9 error cluster.coordinators[1] has no valid port after ':'"],
        ),
        ("      - pvc-hv2\n", "      -\n", &["11:8 error cluster.coordinators[1] is empty"]),
        (
            "      - pvc-hv2\n",
            "      - name: pvc-hv2\n",
            &["11:9 error cluster.coordinators[1] must be a single value"],
        ),
        (
            "      - pvc-hv2\n",
            "      - rack2-hv1\n",
            &["11:9 error cluster.coordinators[1] has the same number as pvc-hv1 in line 10"],
        ),
        (list, "      - 127.0.0.1:2181\n      - 127.0.0.1:2182\n", &[]),
    ]);
}

#[test]
fn a_hundred_coordinators_are_a_mistake() {
    let many: String = (1..=100).map(|n| format!("      - hv{n}\n")).collect();
    let text = edited("      - pvc-hv1\n      - pvc-hv2\n      - pvc-hv3\n", &many);
    assert_eq!(told(&text), ["109:9 error cluster.coordinators has 100 entries"]);
}

#[test]
fn switches_that_leave_the_operator_in_the_dark_are_warned_of() {
    let silent = edit(
        &edited("file_logging: True", "file_logging: False"),
        "stdout_logging: True",
        "stdout_logging: off",
    );
    assert_eq!(
        told(&silent),
        [
            "57:25 warning system.configuration.logging.stdout_logging is False, and so is file_logging: nothing is logged",
        ]
    );
    let lines = EXAMPLE.lines().filter(|line| !line.contains("floating_ip"));
    let no_floating = lines.map(|line| format!("{line}\n")).collect::<String>();
    assert_eq!(
        told(&no_floating),
        ["warning functions.enable_api is True, but no network has a floating_ip or floating_ip6"]
    );
}
