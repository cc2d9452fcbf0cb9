//! The manual's own example works unchanged, and means what the manual says.

use std::{net::Ipv4Addr, path::Path, time::Duration};

use crate::common::{EXAMPLE, edit, edited, interface};
use pvc_config::{Config, FenceAction, check};
use pvc_core::plan::{flush::Limits, placement::Selector};

fn accepted(text: &str) -> Config {
    let report = check(text, "pvcd.yaml");
    let told: Vec<String> = report.diagnostics.iter().map(|d| d.render(false)).collect();
    assert!(told.is_empty(), "{}", told.join("\n"));
    report.config.expect("no diagnostic, so a configuration")
}

#[test]
fn the_manuals_example_is_accepted_without_a_word() {
    let config = accepted(EXAMPLE);
    assert_eq!(config.node.as_str(), "pvc-hv1");
    assert!(!config.debug);
    let functions = config.functions;
    assert!(functions.hypervisor && functions.networking && functions.storage && functions.api);
    assert_eq!(config.zookeeper_connect_string(), "pvc-hv1:2181,pvc-hv2:2181,pvc-hv3:2181");
    assert!(config.is_coordinator());

    let networks = config.networks.expect("networks");
    assert_eq!(networks.upstream.domain.as_deref(), Some("mydomain.net"));
    assert_eq!(networks.upstream.network.map(|n| n.to_string()).as_deref(), Some("1.1.1.0/24"));
    assert_eq!(networks.upstream.floating_ip.map(|n| n.to_string()).as_deref(), Some("1.1.1.10/24"));
    assert_eq!(networks.upstream.gateway, Some(Ipv4Addr::new(1, 1, 1, 1)));
    assert_eq!(networks.cluster.gateway, None);

    let interfaces = config.interfaces.expect("interfaces");
    assert_eq!(interfaces.upstream.address, None);
    assert_eq!(interfaces.cluster.address.map(|a| a.to_string()).as_deref(), Some("10.255.0.1/24"));
    assert_eq!(interfaces.storage.address.map(|a| a.to_string()).as_deref(), Some("10.254.0.1/24"));
    assert_eq!((interfaces.storage.device.as_str(), interfaces.storage.mtu), ("ens4", 1500));

    let database = config.dns_database.expect("database");
    assert_eq!(
        (database.host.as_str(), database.port, database.name.as_str()),
        ("localhost", 5432, "pvcdns")
    );
    assert_eq!(database.pass.reveal(), "pvcdns");

    assert_eq!(config.intervals.keepalive(), Duration::from_secs(5));
    assert_eq!(config.intervals.fence_after(), Some(Duration::from_secs(30)));
    assert_eq!(config.intervals.suicide_after(), None);
    assert_eq!(
        (config.fencing.successful, config.fencing.failed),
        (FenceAction::Migrate, FenceAction::Nothing)
    );
    assert_eq!((config.ipmi.host.as_str(), config.ipmi.user.as_str()), ("pvc-hv1-lom", "admin"));
    assert_eq!((config.ipmi.pass.reveal(), config.ipmi.cipher_suite), ("Passw0rd", None));
    assert_eq!(config.target_selector, Selector::Mem);
    assert_eq!(config.directories.console_log, Path::new("/var/log/libvirt"));
    assert!(config.logging.file && config.logging.stdout && config.logging.keepalive_storage_details);
    assert_eq!(config.logging.console_log_lines, 1000);
}

#[test]
fn printing_a_configuration_shows_no_password() {
    let config = accepted(&edited("pass: pvcdns", "pass: hunter22"));
    let printed = format!("{config:?} {config:#?}");
    assert!(!printed.contains("hunter22") && !printed.contains("Passw0rd"), "{printed}");
    assert!(printed.contains("***"));
}

#[test]
fn metrics_are_told_on_a_loopback_address_if_one_is_given() {
    assert_eq!(accepted(EXAMPLE).metrics, None);
    for (listen, address) in [
        ("127.0.0.1:9470", Some("127.0.0.1:9470")),
        ("'[::1]:9470'", Some("[::1]:9470")),
        ("None", None),
        ("", None),
    ] {
        let with = edited(
            "      logging:\n",
            &format!("      metrics:\n        listen: {listen}\n      logging:\n"),
        );
        assert_eq!(accepted(&with).metrics, address.map(|a| a.parse().expect("an address")), "{listen:?}");
    }
}

#[test]
fn a_network_may_have_an_ipv6_floating_address_besides() {
    let cluster = |text: &str| accepted(text).networks.expect("networks").cluster;
    assert_eq!((cluster(EXAMPLE).network6, cluster(EXAMPLE).floating_ip6), (None, None));
    let floating_ip = "        floating_ip: \"10.255.0.254/24\"\n";
    let with = edited(
        floating_ip,
        &format!("{floating_ip}        network6: FD00:255:0::/64\n        floating_ip6: fd00:255::fe/64\n"),
    );
    let cluster = cluster(&with);
    assert_eq!(cluster.network6.map(|n| n.to_string()).as_deref(), Some("fd00:255::/64"));
    assert_eq!(cluster.floating_ip6.map(|n| n.to_string()).as_deref(), Some("fd00:255::fe/64"));
    assert_eq!(cluster.floating_ip.map(|n| n.to_string()).as_deref(), Some("10.255.0.254/24"));
}

#[test]
fn migrations_at_once_are_two_each_way_unless_the_file_says_otherwise() {
    let with = |limits: &str| {
        edited("      target_selector: mem\n", &format!("      target_selector: mem\n{limits}"))
    };
    assert_eq!(accepted(EXAMPLE).limits, Limits { outgoing: 4, incoming: 4 });
    let both = with("      outgoing_limit: 8\n      incoming_limit: 4\n");
    assert_eq!(accepted(&both).limits, Limits { outgoing: 8, incoming: 4 });
    for wrong in ["0", "33", "many"] {
        let report = check(&with(&format!("      incoming_limit: {wrong}\n")), "pvcd.yaml");
        assert!(report.config.is_none(), "{wrong}");
    }
}

#[test]
fn intervals_may_stand_where_the_manuals_reference_has_them() {
    let block = "    intervals:
        keepalive_interval: 5
        fence_intervals: 6
        suicide_intervals: 0
";
    let below_system =
        edit(&edited(&format!("  {block}"), ""), "  system:\n", &format!("  system:\n{block}"));
    assert_eq!(accepted(&below_system), accepted(EXAMPLE));
    let in_both = edited("  system:\n", &format!("  system:\n{block}"));
    assert_eq!(accepted(&in_both), accepted(EXAMPLE), "both places, one meaning");
    let split = edit(
        &edited("        fence_intervals: 6\n", ""),
        "  system:\n",
        "  system:\n    intervals: { fence_intervals: 6 }\n",
    );
    assert_eq!(accepted(&split), accepted(EXAMPLE), "some here, some there");
}

#[test]
fn pythons_spellings_mean_what_their_authors_meant() {
    for (from, to) in [
        ("port: 5432", "port: \"5432\""),
        ("console_log_lines: 1000", "console_log_lines: 1_000"),
        ("console_log_lines: 1000", "console_log_lines: '1000' # lines"),
        ("log_dates: True", "log_dates: yes"),
        ("log_dates: True", "log_dates: \"True\""),
        ("log_dates: True", "log_dates: ON"),
        ("log_dates: True", "log_dates: !!bool true"),
        ("failed_fence: None", "failed_fence: ~"),
        ("failed_fence: None", "failed_fence: null"),
        ("failed_fence: None", "failed_fence: \"None\""),
        ("target_selector: mem", "target_selector: 'mem'"),
        ("node: pvc-hv1", "node: !!str pvc-hv1"),
        ("pass: Passw0rd", "pass: !!str Passw0rd"),
        ("pass: Passw0rd", "pass: &secret \"Passw0rd\""),
        ("    enable_api: True\n", "    enable_api: on\n"),
        ("pvc:\n", "# a comment\n%YAML 1.1\n---\npvc:\n"),
        ("pvc:\n", "\u{feff}pvc:\n"),
    ] {
        assert_eq!(accepted(&edited(from, to)), accepted(EXAMPLE), "{to}");
    }
    assert_eq!(accepted(&EXAMPLE.replace('\n', "\r\n")), accepted(EXAMPLE), "line ends of another system");
    for none in ["None", "~", "null", "\"None\"", "none", "''"] {
        let config = accepted(&edited("domain: \"pvc.local\"", &format!("domain: {none}")));
        assert_eq!(config.networks.expect("networks").cluster.domain, None, "{none}");
    }
}

#[test]
fn passwords_are_taken_as_they_are_written() {
    for (written, meant) in [
        ("0123", "0123"),
        ("1e3", "1e3"),
        ("yes", "yes"),
        ("\"None\"", "None"),
        ("'a: b # c'", "a: b # c"),
        ("a#b:c", "a#b:c"),
        ("\"\\x41\"", "A"),
        ("' '", " "),
    ] {
        let config = accepted(&edited("pass: Passw0rd", &format!("pass: {written}")));
        assert_eq!(config.ipmi.pass.reveal(), meant, "{written}");
    }
}

#[test]
fn a_cipher_suite_may_be_named() {
    let config = accepted(&edited("pass: Passw0rd", "pass: Passw0rd\n        cipher_suite: 17"));
    assert_eq!(config.ipmi.cipher_suite, Some(17));
}

#[test]
fn anchors_aliases_and_merges_read_as_in_python() {
    let text = interface(
        "upstream",
        "upstream:\n          device: ens4\n          mtu: 1500\n",
        "upstream: &port\n          device: ens4\n          mtu: 1500\n",
    );
    let merged = edit(
        &text,
        "        cluster:\n          device: ens4\n          mtu: 1500\n",
        "        cluster:\n          <<: *port\n",
    );
    assert_eq!(accepted(&merged), accepted(EXAMPLE));
    let alias =
        edit(&edited("console_log_lines: 1000", "console_log_lines: &n 1000"), "port: 5432", "port: 5432");
    assert_eq!(accepted(&alias), accepted(EXAMPLE));
}

#[test]
fn by_id_gives_each_node_the_address_of_its_number() {
    for (node, address) in
        [("pvc-hv2", "10.255.0.2/24"), ("rack3-hv200", "10.255.0.200/24"), ("hv07", "10.255.0.7/24")]
    {
        let config = accepted(&edited("node: pvc-hv1", &format!("node: {node}")));
        let cluster = config.interfaces.expect("interfaces").cluster;
        assert_eq!(cluster.address.map(|a| a.to_string()).as_deref(), Some(address), "{node}");
    }
}

#[test]
fn a_static_address_is_taken_as_it_is() {
    let config = accepted(&interface("cluster", "address: by-id", "address: 10.255.0.77/24"));
    let cluster = config.interfaces.expect("interfaces").cluster;
    assert_eq!(cluster.address.map(|a| a.to_string()).as_deref(), Some("10.255.0.77/24"));
}

#[test]
fn a_node_is_a_coordinator_by_its_name_with_or_without_domain_or_by_an_address_of_its_own() {
    for (entry, is) in [
        ("pvc-hv1", true),
        ("PVC-HV1", true),
        ("pvc-hv1.pvc.local", true),
        ("pvc-hv1:2281", true),
        ("10.255.0.1", true),
        ("10.255.0.9", false),
        ("pvc-hv11", false),
    ] {
        let config = accepted(&edited("      - pvc-hv1\n", &format!("      - {entry}\n")));
        assert_eq!(config.is_coordinator(), is, "{entry}");
    }
    let config = accepted(&edited("      - pvc-hv1\n", "      - 10.255.0.1:2281\n"));
    assert_eq!(config.zookeeper_connect_string(), "10.255.0.1:2281,pvc-hv2:2181,pvc-hv3:2181");
}

#[test]
fn a_node_without_networking_needs_no_networks() {
    let cut = |text: &str, from: &str, to: &str| {
        let start = text.find(from).expect("start");
        let end = text[start..].find(to).map_or(text.len(), |n| start + n);
        format!("{}{}", &text[..start], &text[end..])
    };
    let text = edited("enable_networking: True", "enable_networking: False");
    let text = edit(&text, "    enable_api: True\n", "");
    let text = cut(&text, "    networks:\n", "  coordinator:\n");
    let text = cut(&text, "  coordinator:\n", "  system:\n");
    let text = cut(&text, "      networking:\n", "(to the end)");
    let config = accepted(&text);
    assert!(!config.functions.networking && !config.functions.api, "enable_api is False where it is absent");
    assert!(config.networks.is_none() && config.dns_database.is_none() && config.interfaces.is_none());
    assert!(config.is_coordinator(), "by its name alone");
}

#[test]
fn debug_is_honoured() {
    assert!(accepted(&edited("pvc:\n", "pvc:\n  debug: True\n")).debug);
    assert!(!accepted(&edited("pvc:\n", "pvc:\n  debug: False\n")).debug);
}

#[test]
fn the_packaged_sample_is_the_manuals_example_with_other_passwords() {
    let sample = accepted(include_str!("../../../../packaging/pvcd.yaml"));
    let example = edit(&edited("pass: pvcdns", "pass: change-me"), "pass: Passw0rd", "pass: change-me");
    assert_eq!(sample, accepted(&example));
}

#[test]
fn a_default_that_is_written_changes_nothing() {
    let mut text = EXAMPLE.replace("    enable_api: True\n", "");
    let absent = accepted(&text);
    for (after, written) in [
        ("pvc:\n", "  debug: False\n"),
        ("    enable_storage: True\n", "    enable_api: False\n"),
        ("      target_selector: mem\n", "      outgoing_limit: 4\n      incoming_limit: 4\n"),
        (
            "        console_log_lines: 1000\n",
            "        console_log_vm_rate: 64\n        console_log_node_rate: 256\n",
        ),
    ] {
        text = edit(&text, after, &format!("{after}{written}"));
    }
    assert_eq!(accepted(&text), absent);
    assert_eq!(absent.limits, Limits::default());
}
