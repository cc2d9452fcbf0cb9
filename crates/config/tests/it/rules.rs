//! Every rule, as a table: a change to the manual's example and the headlines of what is told about it.

use crate::common::{EXAMPLE, edit, edited, interface};
use pvc_config::{Severity, check};

/// `line:column severity headline` of all that is told.
fn told(text: &str) -> Vec<String> {
    let report = check(text, "pvcd.yaml");
    let errors = report.count(Severity::Error);
    assert_eq!(report.config.is_none(), errors > 0, "a configuration exactly if there is no error");
    report
        .diagnostics
        .iter()
        .map(|d| match (d.line, d.column) {
            (Some(line), Some(column)) => format!("{line}:{column} {} {}", d.severity, d.headline()),
            _ => format!("{} {}", d.severity, d.headline()),
        })
        .collect()
}

fn expect(cases: &[(&str, &str, &[&str])]) {
    for (from, to, expected) in cases {
        assert_eq!(told(&edited(from, to)), *expected, "{from} -> {to}");
    }
}

#[test]
fn required_settings_that_are_missing_are_named() {
    expect(&[
        ("  node: pvc-hv1\n", "", &["1:1 error node is missing"]),
        ("  node: pvc-hv1\n", "  node:\n", &["2:3 error node has no value, but is required"]),
        ("    enable_storage: True\n", "", &["3:3 error functions.enable_storage is missing"]),
        ("        name: pvcdns\n", "", &["29:7 error coordinator.dns.database.name is missing"]),
        (
            "        pass: pvcdns\n",
            "        pass: None\n",
            &["34:9 error coordinator.dns.database.pass has no value, but is required"],
        ),
        (
            "        fence_intervals: 6\n",
            "",
            &["37:7 error system.fencing.intervals.fence_intervals is missing"],
        ),
        ("        user: admin\n", "", &["44:7 error system.fencing.ipmi.user is missing"]),
        (
            "        log_directory: \"/var/log/pvc\"\n",
            "",
            &["51:7 error system.configuration.directories.log_directory is missing"],
        ),
        ("        domain: \"pvc.local\"\n", "", &["19:7 error cluster.networks.cluster.domain is missing"]),
        (
            "        domain: \"pvc.local\"\n",
            "        domain:\n",
            &["20:9 error cluster.networks.cluster.domain has no value, but is required"],
        ),
        ("    migration:\n      target_selector: mem\n", "", &["35:3 error system.migration is missing"]),
        ("pvc:\n", "pcv:\n", &["error pvc is missing", "1:1 warning pcv is not a setting"]),
    ]);
}

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
fn each_setting_refuses_what_it_cannot_be() {
    let long = format!("node: {}", "n".repeat(64));
    expect(&[
        ("node: pvc-hv1", "node: pvc_hv1", &["2:9 error node is not a short host name"]),
        ("node: pvc-hv1", "node: pvc-hv1.net", &["2:9 error node is not a short host name"]),
        ("node: pvc-hv1", &long, &["2:9 error node is not a short host name"]),
        ("node: pvc-hv1", "node: [pvc-hv1]", &["2:3 error node must be a single value"]),
        (
            "enable_storage: True",
            "enable_storage: 1",
            &["6:21 error functions.enable_storage is not a truth value"],
        ),
        ("enable_api: True", "enable_api: y", &["7:17 error functions.enable_api is not a truth value"]),
        ("port: 5432", "port: 0", &["31:15 error coordinator.dns.database.port cannot be 0"]),
        ("port: 5432", "port: 65536", &["31:15 error coordinator.dns.database.port is too large"]),
        ("port: 5432", "port: -1", &["31:15 error coordinator.dns.database.port cannot be negative"]),
        (
            "port: 5432",
            "port: 05432",
            &["31:15 error coordinator.dns.database.port is not a plain decimal number"],
        ),
        (
            "port: 5432",
            "port: 99999999999999999999",
            &["31:15 error coordinator.dns.database.port is too large"],
        ),
        (
            "host: localhost",
            "host: local_host",
            &["30:15 error coordinator.dns.database.host is not a host name"],
        ),
        (
            "host: localhost",
            "host: 10.0.0.300",
            &["30:15 error coordinator.dns.database.host is not a host name"],
        ),
        (
            "user: admin",
            "user: \"ad\\nmin\"",
            &["46:15 error system.fencing.ipmi.user contains a line break or another control character"],
        ),
        ("pass: Passw0rd", "pass: \"\"", &["47:15 error system.fencing.ipmi.pass is empty"]),
        (
            "pass: Passw0rd",
            "pass: \"a\\nb\"",
            &["47:15 error system.fencing.ipmi.pass contains a line break or another control character"],
        ),
        (
            "pass: Passw0rd",
            "pass: abcdefghijklmnopqrstu",
            &["47:15 warning system.fencing.ipmi.pass is longer than IPMI allows (20 bytes)"],
        ),
        (
            "pass: Passw0rd",
            "pass: [Passw0rd]",
            &["47:9 error system.fencing.ipmi.pass must be a single value"],
        ),
        (
            "target_selector: mem",
            "target_selector: cpus",
            &["49:24 error system.migration.target_selector is not one of the words allowed"],
        ),
        (
            "successful_fence: migrate",
            "successful_fence: restart",
            &["42:27 error system.fencing.actions.successful_fence is not one of the words allowed"],
        ),
        (
            "dynamic_directory: \"/run/pvc\"",
            "dynamic_directory: run/pvc",
            &["52:28 error system.configuration.directories.dynamic_directory is not an absolute path"],
        ),
        (
            "dynamic_directory: \"/run/pvc\"",
            "dynamic_directory: /run/../etc",
            &["52:28 error system.configuration.directories.dynamic_directory must not contain '..'"],
        ),
        (
            "console_log_lines: 1000",
            "console_log_lines: many",
            &["63:28 error system.configuration.logging.console_log_lines is not a whole number"],
        ),
        (
            "domain: \"pvc.local\"",
            "domain: pvc..local",
            &["20:17 error cluster.networks.cluster.domain is not a domain name"],
        ),
        (
            "network: \"10.255.0.0/24\"",
            "network: 10.255.0.0",
            &["21:18 error cluster.networks.cluster.network has no prefix length"],
        ),
        (
            "network: \"10.255.0.0/24\"",
            "network: 10.255.0.0/255.255.255.0",
            &["21:18 error cluster.networks.cluster.network has a netmask instead of a prefix length"],
        ),
        (
            "network: \"10.255.0.0/24\"",
            "network: 10.255.0.0/33",
            &["21:18 error cluster.networks.cluster.network has an invalid prefix length"],
        ),
        (
            "network: \"10.255.0.0/24\"",
            "network: 10.255.0.9/24",
            &["21:18 error cluster.networks.cluster.network is an address, not a network"],
        ),
        (
            "network: \"10.255.0.0/24\"",
            "network: fd00::/64",
            &["21:18 error cluster.networks.cluster.network is not in CIDR notation"],
        ),
        (
            "gateway: \"1.1.1.1\"",
            "gateway: 1.1.1.1/24",
            &["18:18 error cluster.networks.upstream.gateway must have no prefix length"],
        ),
        ("pvc:\n", "pvc:\n  debug: much\n", &["2:10 error debug is not a truth value"]),
    ]);
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
fn what_is_not_a_setting_is_a_warning_with_the_nearest_known_name() {
    let report =
        check(&edited("    enable_api: True\n", "    enable_apy: True\n    colour: red\n"), "pvcd.yaml");
    assert!(report.config.is_some(), "unknown settings are ignored");
    let help: Vec<&str> = report.diagnostics.iter().flat_map(|d| d.help.iter().map(String::as_str)).collect();
    assert_eq!(
        help,
        [
            "it is ignored; did you mean 'enable_api'?",
            "it is ignored; known here: enable_hypervisor, enable_networking, enable_storage, enable_api",
        ]
    );
    expect(&[
        (
            "    networks:\n",
            "    networks:\n      backup: {}\n",
            &["14:7 warning cluster.networks.backup is not a setting"],
        ),
        (
            "        user: admin\n",
            "        User: admin\n",
            &[
                "44:7 error system.fencing.ipmi.user is missing",
                "46:9 warning system.fencing.ipmi.User is not a setting",
            ],
        ),
    ]);
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
        ["warning functions.enable_api is True, but no network has a floating_ip"]
    );
}

#[test]
fn faults_of_the_yaml_itself_are_told_where_they_are() {
    expect(&[
        (
            "  functions:\n",
            "  node: pvc-hv2\n  functions:\n",
            &["3:3 error node is set twice, first in line 2"],
        ),
        (
            "target_selector: mem",
            "target_selector: !!python/name:os.system mem",
            &["49:24 error system.migration.target_selector has a type tag that is not allowed"],
        ),
        ("pvc:\n", "--- {}\n---\npvc:\n", &["2:1 error a second document begins here"]),
        ("  node: pvc-hv1\n", "  node: pvc-hv1\n  ? [a, b]\n  : 1\n", &["3:5 error this key is not a name"]),
        ("  node: pvc-hv1\n", "  node: pvc-hv1\n  <<: 5\n", &["3:3 error this merges what cannot be merged"]),
    ]);
    for (text, expected) in [
        ("", "error the file holds no settings"),
        ("# nothing\n", "error the file holds no settings"),
        ("~", "error the file holds no settings"),
        ("- a\n- b\n", "error the file is not a section of settings"),
        ("pvc: 5\n", "1:1 error pvc must be a section"),
    ] {
        assert_eq!(told(text), [expected], "{text:?}");
    }
}

#[test]
fn everything_that_is_wrong_is_told_in_one_run() {
    let text = edited("node: pvc-hv1", "node: pvc_hv1");
    let text = edit(&text, "keepalive_interval: 5", "keepalive_interval: 0");
    let text = edit(&text, "floating_ip: \"1.1.1.10/24\"", "floating_ip: \"1.1.2.10/24\"");
    let text = edit(&text, "target_selector: mem", "target_selector: cpu");
    assert_eq!(told(&text).len(), 4, "{:?}", told(&text));
}

#[test]
fn a_flood_of_mistakes_is_cut_off_without_losing_an_error() {
    let flood: String = (0..5000).map(|n| format!("  unknown{n}: 1\n")).collect();
    let lines =
        told(&edited("  functions:\n", &format!("{flood}  functions:\n")).replace("mtu: 1500", "mtu: 1"));
    assert_eq!(lines.len(), 201);
    assert_eq!(lines.iter().filter(|line| line.contains("mtu is too small")).count(), 3);
    assert_eq!(lines.last().map(String::as_str), Some("warning 4803 more like these are not shown"));
}
