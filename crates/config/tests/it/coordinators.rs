//! The coordinators alone, as the command line wants them: from any file that still names them.

use pvc_config::{connect_string, coordinators_of};

use crate::common::{EXAMPLE, edited};

#[test]
fn coordinators_are_found_while_the_rest_of_the_file_is_broken() {
    for text in [
        EXAMPLE.to_owned(),
        edited("node: pvc-hv1", "node: not a name"),
        edited("    migration:\n", "    migration: [\n"),
        edited("      - pvc-hv2\n", "      - pvc-hv2\n      - not_a_host\n      - PVC-HV2\n"),
        "pvc: { cluster: { coordinators: [pvc-hv1, pvc-hv2, pvc-hv3] } }".to_owned(),
    ] {
        let found =
            coordinators_of(&text, "pvcd.yaml").unwrap_or_else(|d| panic!("{}\n{text}", d.render(false)));
        assert_eq!(connect_string(&found), "pvc-hv1:2181,pvc-hv2:2181,pvc-hv3:2181", "{text}");
    }
}

#[test]
fn a_file_that_names_no_coordinators_says_why() {
    for (text, headline) in [
        ("", "the file holds no settings"),
        ("pvc: {}", "cluster is missing"),
        ("pvc: { cluster: {} }", "cluster.coordinators is missing"),
        ("pvc: { cluster: { coordinators: [] } }", "cluster.coordinators is empty"),
        ("pvc: { cluster: { coordinators: [a_b] } }", "cluster.coordinators[0] is not a host name"),
    ] {
        assert_eq!(coordinators_of(text, "pvcd.yaml").unwrap_err().headline(), headline, "{text}");
    }
    let broken = coordinators_of("pvc: [\n  }", "pvcd.yaml").unwrap_err();
    assert!(
        broken.line.is_some() && broken.headline().starts_with("this is not YAML"),
        "{}",
        broken.headline()
    );
}
