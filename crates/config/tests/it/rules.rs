//! Every setting's own rule, as tables: a change to the manual's example and the headlines of what is told about it.

use pvc_config::check;

use crate::common::{edit, edited, expect, told};

/// The example has no `metrics`, which are ours.
const METRICS_GO_HERE: &str = "      networking:\n        upstream:\n          device";

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
    ]);
}

#[test]
#[allow(clippy::too_many_lines, reason = "one row a case")]
fn each_kind_of_value_below_system_and_networks_refuses_what_it_cannot_be() {
    expect(&[
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
            "pass: Passw0rd",
            "pass: Passw0rd\n        cipher_suite: 0",
            &["48:23 error system.fencing.ipmi.cipher_suite cannot be 0"],
        ),
        (
            "pass: Passw0rd",
            "pass: Passw0rd\n        cipher_suite: 18",
            &["48:23 error system.fencing.ipmi.cipher_suite is too large"],
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
            METRICS_GO_HERE,
            "      metrics:\n        listen: 127.0.0.1\n      networking:\n        upstream:\n          device",
            &["65:17 error system.configuration.metrics.listen has no port"],
        ),
        (
            METRICS_GO_HERE,
            "      metrics:\n        listen: 10.255.0.11:9470\n      networking:\n        upstream:\n          device",
            &["65:17 error system.configuration.metrics.listen is not a loopback address"],
        ),
        (
            METRICS_GO_HERE,
            "      metrics:\n        listen: localhost:9470\n      networking:\n        upstream:\n          device",
            &["65:17 error system.configuration.metrics.listen is not an IP address with port"],
        ),
        (
            METRICS_GO_HERE,
            "      metrics:\n        listen: '[::1]:0'\n      networking:\n        upstream:\n          device",
            &["65:17 error system.configuration.metrics.listen has port 0"],
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
            &["21:18 error cluster.networks.cluster.network is IPv6, not IPv4"],
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
