//! What an operator reads, to the letter.

use pvc_config::check;

use crate::common::{edit, edited, interface};

fn rendered(text: &str) -> String {
    let report = check(text, "/etc/pvc/pvcd.yaml");
    report.diagnostics.iter().map(|d| d.render(false)).collect::<Vec<_>>().join("\n")
}

macro_rules! snapshots {
    ($($name:ident: $text:expr;)+) => { $(
        #[test]
        fn $name() {
            insta::with_settings!({ prepend_module_to_snapshot => false, omit_expression => true }, {
                insta::assert_snapshot!(stringify!($name), rendered(&$text));
            });
        }
    )+ };
}

snapshots! {
    an_address_outside_its_network: edited("floating_ip: \"1.1.1.10/24\"", "floating_ip: \"1.1.2.10/24\" # moved");
    an_unsafe_failed_fence: edited("failed_fence: None", "failed_fence: migrate");
    a_contradiction_between_both_places: edited("  system:\n", "  system:\n    intervals: { keepalive_interval: 10 }\n");
    a_missing_setting: edited("        user: admin\n", "");
    a_missing_section: edited("    migration:\n      target_selector: mem\n", "");
    a_setting_without_a_value: edited("target_selector: mem", "target_selector:");
    an_unknown_setting: edited("enable_api: True", "enable_ap1: True");
    a_setting_in_another_section: edited("    fencing:\n", "    keepalive_interval: 5\n    fencing:\n");
    a_setting_twice: edited("        user: admin\n", "        user: admin\n        user: root\n");
    a_password_that_is_too_long: edited("pass: Passw0rd", "pass: \"a password of far too many letters\"");
    a_password_that_is_a_settings_name: edit(&edited("pass: Passw0rd", "pass: mtu"), "target_selector: mem", "target_selector: mtu");
    a_misspelt_password: edited("pass: Passw0rd", "pas: Passw0rd");
    a_password_twice: edited("        pass: Passw0rd\n", "        pass: Passw0rd\n        pass: hunter22\n");
    a_password_in_braces: edited(
        "      ipmi:\n        host: pvc-hv1-lom\n        user: admin\n        pass: Passw0rd\n",
        "      ipmi: { hots: x, host: pvc_lom, user: admin, pass: Passw0rd }\n",
    );
    a_password_where_the_text_breaks: edited("pass: Passw0rd", "pass: \"Passw0rd");
    a_password_where_a_colon_is_too_many: edited("pass: Passw0rd", "pass: Pass: w0rd");
    broken_yaml: edited("    enable_storage: True", "    enable_storage: [True");
    a_tab_for_indentation: edited("    enable_storage: True", "\tenable_storage: True");
    an_octal_number: edited("port: 5432", "port: 0o12470");
    an_empty_list: edited("      - pvc-hv1\n      - pvc-hv2\n      - pvc-hv3\n", "");
    a_coordinator_twice: edited("      - pvc-hv2\n", "      - PVC-HV1.pvc.local\n");
    a_list_for_a_value: edited("node: pvc-hv1", "node: [pvc-hv1]");
    a_value_for_a_section: edited("      actions:\n        successful_fence: migrate\n        failed_fence: None\n", "      actions: migrate\n");
    a_value_over_several_lines: edited("target_selector: mem", "target_selector: >\n        mem\n        ory");
    control_characters_and_long_values: edited("node: pvc-hv1", &format!("node: \"\\e[2J{}\"", "x".repeat(300)));
    an_address_that_is_a_coordinators: edit(
        &interface("upstream", "address: None", "address: by-id"),
        "node: pvc-hv1", "node: pvc-hv2",
    );
    an_ipv6_address_in_the_setting_for_ipv4: edited("floating_ip: \"10.255.0.254/24\"", "floating_ip: fd00:255::fe/64");
    an_ipv6_address_without_a_network: edited(
        "        floating_ip: \"10.255.0.254/24\"\n",
        "        floating_ip: \"10.255.0.254/24\"\n        floating_ip6: fd00:255::fe/64\n",
    );
    an_ipv6_address_outside_its_network: edited(
        "        floating_ip: \"10.255.0.254/24\"\n",
        "        network6: fd00:255::/64\n        floating_ip6: fd00:254::fe/64\n",
    );
    a_file_of_something_else: "listen: 80\nworkers: 4\n";
}

#[test]
fn colours_only_decorate() {
    let report = check(&edited("target_selector: mem", "target_selector: cpu"), "pvcd.yaml");
    let coloured = report.diagnostics[0].render(true);
    assert!(coloured.starts_with("\u{1b}[1;31merror\u{1b}[0m"), "{coloured:?}");
    let mut plain = String::new();
    for part in coloured.split('\u{1b}') {
        plain.push_str(
            part.split_once('m').filter(|(code, _)| code.starts_with('[')).map_or(part, |(_, text)| text),
        );
    }
    assert_eq!(plain, report.diagnostics[0].render(false));
}
