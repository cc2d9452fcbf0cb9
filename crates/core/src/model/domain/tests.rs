use std::fmt::Write as _;

use proptest::prelude::*;

use super::*;

const ID: &str = "6f1f6c55-7b8e-4f2f-9f5e-0f2c3c1c9f00";

/// A definition with `body` between the required elements and `devices` in `<devices>`.
fn domain(body: &str, devices: &str) -> String {
    format!(
        "<domain type='kvm'>\n<uuid>{ID}</uuid>\n<name>web1</name>\n{body}\n<devices>\n{devices}\n</devices></domain>"
    )
}

fn sized(body: &str) -> Result<DomainSpec, DomainError> {
    DomainSpec::parse(&domain(body, ""))
}

const FULL: &str = "<?xml version='1.0' encoding='UTF-8'?>
<domain type='kvm' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
  <name>web1</name>
  <uuid>
    6f1f6c55-7b8e-4f2f-9f5e-0f2c3c1c9f00
  </uuid>
  <description>Web &amp; mail</description>
  <memory unit='GiB'>2</memory>
  <vcpu>4</vcpu>
  <cpu><topology sockets='1' cores='2' threads='2'/></cpu>
  <os><type arch='x86_64' machine='pc-q35-7.2'>hvm</type></os>
  <features><acpi/><apic/></features>
  <devices>
    <emulator>/usr/bin/kvm</emulator>
    <controller type='usb' model='ich9-ehci1'/>
    <disk type='network' device='disk'><source protocol='rbd' name='vms/web1_root'/><target dev='sda' bus='scsi'/></disk>
    <disk type='network' device='disk'><source protocol='rbd' name='vms/web1_data'/><target dev='sdb' bus='scsi'/></disk>
    <disk type='file' device='cdrom'><target dev='hda' bus='ide'/></disk>
    <interface type='bridge'><mac address='52:54:00:00:00:01'/><source bridge='vmbr100'/><model type='virtio'/></interface>
    <controller type='scsi' model='virtio-scsi'/>
    <serial type='pty'><log file='/var/log/libvirt/web1.log' append='on'/></serial>
    <console type='pty'/>
  </devices>
</domain>";

#[test]
fn a_definition_yields_what_the_cluster_needs_and_is_passed_on_unchanged() {
    let spec = DomainSpec::parse(FULL).unwrap();
    assert_eq!(spec.xml, FULL);
    assert_eq!((spec.id.to_string().as_str(), spec.name.as_str()), (ID, "web1"));
    assert_eq!((spec.memory_mib, spec.vcpus), (2048, 4));
    assert_eq!(spec.rbd_images, ["vms/web1_root", "vms/web1_data"]);
    assert_eq!(spec.written_images(), ["vms/web1_root".to_owned(), "vms/web1_data".to_owned()].into());
}

#[test]
fn details_describe_a_definition() {
    let details = DomainDetails::parse(FULL).unwrap();
    assert_eq!((details.description.as_str(), details.vcpu_topology.as_str()), ("Web & mail", "1/2/2"));
    assert_eq!((details.os_type.as_str(), details.arch.as_str()), ("hvm", "x86_64"));
    assert_eq!((details.machine.as_str(), details.console.as_str()), ("pc-q35-7.2", "pty"));
    assert_eq!(details.console_log.as_deref(), Some("/var/log/libvirt/web1.log"));
    assert_eq!(details.features, ["acpi", "apic"]);
    let controllers: Vec<_> = details.controllers.iter().map(|c| c.model.as_str()).collect();
    assert_eq!(controllers, ["ich9-ehci1", "virtio-scsi"], "also when other devices stand between them");
    let disks: Vec<_> =
        details.disks.iter().map(|d| [&d.kind, &d.name, &d.dev, &d.bus].map(String::as_str)).collect();
    assert_eq!(disks[0], ["rbd", "vms/web1_root", "sda", "scsi"]);
    assert_eq!(disks[2], ["file", "", "hda", "ide"]);
    let card = &details.networks[0];
    assert_eq!(
        [&card.kind, &card.mac, &card.source, &card.model].map(String::as_str),
        ["bridge", "52:54:00:00:00:01", "vmbr100", "virtio"]
    );
}

#[test]
fn a_definition_without_a_console_is_accepted_and_says_so() {
    let xml = domain("<memory>1024</memory>", "");
    assert!(DomainSpec::parse(&xml).is_ok());
    let details = DomainDetails::parse(&xml).unwrap();
    assert_eq!((details.console_log, details.vcpu_topology.as_str()), (None, "N/A"));
}

#[test]
fn memory_has_libvirts_units_and_rounds_up_to_a_mib() {
    for (element, mib) in [
        ("<memory>1048576</memory>", 1024),
        ("<memory unit='KiB'>1048577</memory>", 1025),
        ("<memory unit='k'>2048</memory>", 2),
        ("<memory unit='KB'>2048</memory>", 2),
        ("<memory unit='b'>1</memory>", 1),
        ("<memory unit='bytes'>2097152</memory>", 2),
        ("<memory unit='M'>512</memory>", 512),
        ("<memory unit='MB'>512</memory>", 489),
        ("<memory unit='MiB'>512</memory>", 512),
        ("<memory unit='gib'>1</memory>", 1024),
        ("<memory unit='GB'>1</memory>", 954),
        ("<memory unit='TiB'>1</memory>", 1_048_576),
        ("<memory unit='TB'>1</memory>", 953_675),
        ("<memory unit=''> +4096</memory>", 4),
        ("<cpu><numa><cell memory='1' unit='GiB'/><cell memory='1048576'/></numa></cpu>", 2048),
        ("<memory unit='MiB'>1<!-- not 1 but -->6</memory>", 16),
    ] {
        assert_eq!(sized(element).unwrap().memory_mib, mib, "{element}");
    }
}

#[test]
fn what_libvirt_refuses_as_a_size_is_refused_with_its_line() {
    for (body, what) in [
        ("", "there is no memory size"),
        ("<memory>0</memory>", "there is no memory size"),
        ("<memory>1024 </memory>", "no number"),
        ("<memory>1024.5</memory>", "no number"),
        ("<memory>-1</memory>", "no number"),
        ("<memory unit='parsec'>1</memory>", "unit \"parsec\" is unknown"),
        ("<memory unit='EiB'>17</memory>", "too large"),
        ("<memory>1</memory><vcpu>0</vcpu>", "<vcpu> is 0"),
        ("<memory>1</memory><vcpu> 2 </vcpu>", "no number"),
        ("<memory>1</memory><vcpu/>", "no number"),
    ] {
        let error = sized(body).unwrap_err();
        assert!(error.what.contains(what), "{body}: {error}");
        assert_eq!(error.line, if body.is_empty() { 1 } else { 4 }, "{body}: {error}");
    }
    assert_eq!(sized("<memory>1</memory>").unwrap().vcpus, 1, "libvirt's default");
}

#[test]
fn what_would_break_other_operators_lists_is_refused() {
    let ok = domain("<memory>1024</memory>", "");
    let cases = [
        (ok.replace(ID, "not-a-uuid"), "no UUID"),
        (ok.replace(&format!("<uuid>{ID}</uuid>"), ""), "<uuid> is missing"),
        (ok.replace("<name>", &format!("<uuid>{ID}</uuid><name>")), "second <uuid>"),
        (ok.replace("web1", "../../etc/passwd"), "no VM name"),
        (ok.replace("web1", " web1"), "no VM name"),
        (ok.replace("<name>web1</name>", ""), "<name> is missing"),
        (ok.replace("</name>", "</name><name>web2</name>"), "second <name>"),
        (ok.replace("devices>", "things>"), "<devices> is missing"),
        (ok.replace(" type='kvm'", ""), "no type"),
        (ok.replace("domain", "network"), "root element is \"network\""),
        (ok.replace("<domain", "<domain xmlns='urn:x'"), "in the namespace \"urn:x\""),
        ("rubbish".into(), "no well-formed XML"),
        (String::new(), "there is no XML element"),
        (ok.replace("</domain>", ""), "ends too early"),
        (ok.replace("<devices>", "<devices>&undefined;"), "no well-formed XML"),
    ];
    for (xml, what) in cases {
        let error = DomainSpec::parse(&xml).unwrap_err();
        assert!(error.what.contains(what), "{xml}: {error}");
        assert!(!error.todo.is_empty() && error.line > 0, "{error}");
    }
}

#[test]
fn document_types_and_foreign_encodings_are_refused() {
    let ok = domain("<memory>1024</memory>", "");
    let laughs = format!(
        "<?xml version='1.0'?>\n<!DOCTYPE domain [<!ENTITY a 'aaaa'>]>\n{}",
        ok.replace("web1", "&a;")
    );
    let error = DomainSpec::parse(&laughs).unwrap_err();
    assert_eq!((error.what.as_str(), error.line), ("a document type declaration", 2));
    let external = format!("<!DOCTYPE domain SYSTEM 'file:///etc/passwd'>{ok}");
    assert_eq!(DomainSpec::parse(&external).unwrap_err().what, "a document type declaration");
    for encoding in ["UTF-7", "ISO-8859-1", "utf-16"] {
        let error =
            DomainSpec::parse(&format!("<?xml version=\"1.0\" encoding = \"{encoding}\"?>{ok}")).unwrap_err();
        assert!(error.what.contains(encoding), "{error}");
    }
    assert!(DomainSpec::parse(&format!("\u{feff}<?xml version='1.0' encoding='utf-8'?>{ok}")).is_ok());
}

#[test]
fn a_uuid_hidden_behind_a_comment_is_read_as_libvirt_reads_it() {
    let xml = domain("<memory>1</memory>", "").replace(ID, "6f1f6c55-<!-- x -->7b8e-4f2f-9f5e-0f2c3c1c9f00");
    assert_eq!(DomainSpec::parse(&xml).unwrap().id.to_string(), ID);
}

#[test]
fn rbd_images_are_pool_and_image_and_never_confuse_the_list_of_them() {
    let disk =
        |source: &str| DomainSpec::parse(&domain("<memory>1</memory>", &format!("<disk>{source}</disk>")));
    assert_eq!(disk("<source protocol='rbd' name='p/i'/>").unwrap().rbd_images, ["p/i"]);
    assert!(disk("<source protocol='nbd' name='x'/>").unwrap().rbd_images.is_empty());
    let mirror = "<mirror><source protocol='rbd' name='other/one'/></mirror><source file='/x'/>";
    assert!(disk(mirror).unwrap().rbd_images.is_empty(), "only the disk's own source");
    for bad in ["", "x", "/x", "p/", "p/a,q/b", "p/a b"] {
        assert!(disk(&format!("<source protocol='rbd' name='{bad}'/>")).is_err(), "{bad}");
    }
    assert!(disk("<source protocol='rbd'/>").unwrap_err().what.contains("no image"));
}

#[test]
fn a_definition_must_be_the_one_of_its_key() {
    let xml = domain("<memory>1</memory>", "");
    let name = "web1".parse().unwrap();
    assert!(DomainSpec::parse_as(&xml, ID.parse().unwrap(), &name).is_ok());
    let other = "11111111-0000-4000-8000-000000000001".parse().unwrap();
    let error = DomainSpec::parse_as(&xml, other, &name).unwrap_err();
    assert_eq!(error.line, 2, "{error}");
}

#[test]
fn libvirt_is_given_the_name_and_the_uuid_of_the_key() {
    let xml = domain("<memory>1</memory>", "");
    let (id, name) = (ID.parse().unwrap(), "web2".parse().unwrap());
    assert_eq!(
        DomainSpec::parse_as(&xml, id, &"web1".parse().unwrap()).unwrap().xml,
        xml,
        "nothing to replace"
    );
    let typed = ID.to_uppercase().replace('-', "");
    for (said, spelled) in
        [("web1", ID), ("my old server!", &typed), ("<!-- x -->web3", &format!("{{{ID}}}"))]
    {
        let other = xml.replace("web1", said).replace(ID, spelled);
        let spec = DomainSpec::parse_as(&other, id, &name).unwrap();
        assert_eq!(spec.xml, xml.replace("web1", "web2"));
        assert_eq!((spec.name, spec.id), (name.clone(), id));
    }
    let twice = xml.replace("<name>", "<name>web1</name><name>");
    assert!(DomainSpec::parse_as(&twice, id, &name).unwrap_err().what.contains("second <name>"));
}

#[test]
fn hostile_sizes_are_refused_quickly() {
    let deep = format!("{}{}", "<a>".repeat(100_000), "</a>".repeat(100_000));
    let error = DomainSpec::parse(&domain("<memory>1</memory>", &deep)).unwrap_err();
    assert!(error.what.contains("256 deep"), "{error}");
    let mut attributes = String::new();
    for i in 0..90_000 {
        write!(attributes, " a{i}=''").unwrap();
    }
    assert!(
        DomainSpec::parse(&domain(&format!("<x{attributes}/>"), "")).unwrap_err().what.contains("attributes")
    );
    let namespaces = "<a xmlns:b='c'>".repeat(30_000);
    assert!(DomainSpec::parse(&domain(&namespaces, "")).unwrap_err().what.contains("namespaces"));
    assert!(DomainSpec::parse(&domain(&" ".repeat(1_000_001), "")).unwrap_err().what.contains("bytes"));
}

#[path = "../../../examples/worst_definition/texts.rs"]
mod worst;

#[test]
fn what_the_benchmark_measures_is_accepted() {
    for (what, text) in worst::texts() {
        assert_eq!(DomainSpec::parse(&text).err(), None, "{what}");
    }
}

#[test]
fn each_limit_refuses_what_exceeds_it_by_one() {
    let attributes = |n: usize| (0..n).fold(String::new(), |text, n| text + &format!(" a{n}='\"'"));
    let error = |devices: &str| {
        DomainSpec::parse(&domain("<memory>1</memory>", devices)).err().map(|e| (e.what, e.line))
    };
    let is = |what: &str, line| Some((what.to_owned(), line));
    assert_eq!(error(&format!("<a{}/>", attributes(64))), None);
    assert_eq!(
        error(&format!("\n<a{}/>", attributes(65))),
        is("an element has too many attributes, more than 64", 7)
    );
    assert_eq!(error(&"<a/>".repeat(20_000 - 10)), None);
    assert_eq!(
        error(&"<a/>".repeat(20_000 - 9)),
        is("the definition has more than 20000 tags and comments", 7)
    );
    assert_eq!(error(&"<a b='1' c='2'/>".repeat(5_000 - 1)), None);
    assert_eq!(
        error(&"<a b='1' c='2'/>".repeat(5_000)),
        is("the definition has more than 10000 attributes", 6)
    );
    // What only looks like markup counts for what it is.
    for hidden in ["<!-- x -->", "<![CDATA[ x ]]>", "<?a x ?>", "<a>x</a>"] {
        assert_eq!(error(&hidden.replace('x', &attributes(70))), None, "{hidden}");
    }
    for quoted in ["<a b='>'/>", "<a b='/>'></a>", "<a b=\"'>\" c='d'/>"] {
        assert_eq!(error(&format!("{quoted}{quoted}")), None, "{quoted}");
    }
}

#[test]
fn two_hundred_and_fifty_six_levels_are_the_last_that_is_read() {
    let nested = |levels: usize| {
        let inner = levels - 2; // <domain> and <devices>
        domain("<memory>1</memory>", &format!("{}{}", "<a>".repeat(inner), "</a>".repeat(inner)))
    };
    assert!(DomainSpec::parse(&nested(256)).is_ok());
    assert!(DomainSpec::parse(&nested(257)).is_err());
}

#[test]
fn the_mark_of_a_start_is_added_to_whatever_metadata_there_is() {
    let mark = "<unstarted xmlns='urn:pvc:unstarted'/>";
    for (metadata, marked) in [
        ("", None),
        ("<metadata/>", Some(format!("<metadata>{mark}</metadata>"))),
        ("<metadata></metadata>", Some(format!("<metadata>{mark}</metadata>"))),
        (
            "<metadata xmlns:a='urn:a'> <a:x><metadata/></a:x></metadata><metadata>second</metadata>",
            Some(format!(
                "<metadata xmlns:a='urn:a'>{mark} <a:x><metadata/></a:x></metadata><metadata>second</metadata>"
            )),
        ),
    ] {
        let xml = domain(&format!("<memory>1</memory>{metadata}"), "");
        let spec = DomainSpec::parse(&xml).unwrap();
        let with_mark = spec.marked_unstarted().unwrap();
        match marked {
            Some(marked) => assert_eq!(with_mark, xml.replacen(metadata, &marked, 1)),
            None => assert_eq!(with_mark.replacen(&format!("<metadata>{mark}</metadata>"), "", 1), xml),
        }
        assert_eq!(
            DomainSpec::parse(&with_mark).unwrap().id,
            spec.id,
            "it is as good a definition as before"
        );
        assert_eq!(marked_arriving(&xml).unwrap(), with_mark.replace("unstarted", "arriving"));
    }
}

proptest! {
    #[test]
    fn no_text_makes_the_check_panic(text in any::<String>()) {
        let _ = (DomainSpec::parse(&text), DomainDetails::parse(&text));
    }

    #[test]
    fn no_mutilated_definition_makes_the_check_panic(
        at in 0..FULL.len(), cut in 0..40usize, put in "[<>&'\"/!?=a-zA-Z0-9\\[\\] \u{0}é-]{0,12}",
    ) {
        let end = (at + cut).min(FULL.len());
        let (head, tail) = (&FULL[..at], &FULL[end..]);
        let text = format!("{head}{put}{tail}");
        let _ = DomainDetails::parse(&text);
        if let Ok(spec) = DomainSpec::parse(&text) {
            prop_assert!(spec.memory_mib > 0 && spec.vcpus > 0);
            prop_assert!(spec.rbd_images.iter().all(|image| image.contains('/') && !image.contains(',')));
        }
    }

    #[test]
    fn every_valid_size_is_read(mib in 1u64..100_000_000, vcpus in 1u32..1000) {
        let spec = sized(&format!("<memory unit='MiB'>{mib}</memory><vcpu>{vcpus}</vcpu>")).unwrap();
        prop_assert_eq!((spec.memory_mib, spec.vcpus), (mib, vcpus));
    }
}
