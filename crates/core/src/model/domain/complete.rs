//! What a definition may leave out for libvirt, and clients of the 0.5 generation cannot do without: they read these parts of every VM for a
//! list, and end with an error at the first that lacks one.

use std::ops::Range;

use super::{
    DomainError, DomainSpec,
    read::{Definition, Element},
};

/// A definition with what was left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Completed {
    /// Its text.
    pub xml: String,
    /// What was filled in: `<vcpu>1</vcpu>`. Nothing: the text is unchanged.
    pub filled_in: Vec<String>,
}

/// Text for a place.
struct Edit {
    place: Range<usize>,
    text: String,
}

impl DomainSpec {
    /// The definition with what libvirt would fill in: one vCPU, the emulator of its architecture where Debian has it, KiB, and no features; and
    /// with a console, for which QEMU makes a serial port if there is none.
    ///
    /// # Errors
    /// If it is no definition.
    pub fn completed(&self) -> Result<Completed, DomainError> {
        let definition = Definition::parse(&self.xml)?;
        let root = definition.root()?;
        let (mut edits, mut filled_in) = (Vec::new(), Vec::new());
        let inside = root.first_inside().unwrap_or_default();
        for (name, text) in [("vcpu", "<vcpu>1</vcpu>"), ("features", "<features/>")] {
            if root.child(name).is_none() {
                edits.push(Edit { place: inside..inside, text: text.to_owned() });
                filled_in.push(text.to_owned());
            }
        }
        if let Some(memory) = root.child("memory").filter(|memory| memory.attribute("unit").is_none()) {
            let after_name = memory.range().start + "<memory".len();
            edits.push(Edit { place: after_name..after_name, text: " unit='KiB'".to_owned() });
            filled_in.push("<memory unit='KiB'>".to_owned());
        }
        if let Some(devices) = root.child("devices") {
            let missing = missing_devices(root, devices);
            if !missing.is_empty() {
                let text = missing.concat();
                edits.push(match devices.first_inside() {
                    Some(inside) => Edit { place: inside..inside, text },
                    None => Edit { place: devices.range(), text: format!("<devices>{text}</devices>") },
                });
            }
            filled_in.extend(missing);
        }
        let mut xml = self.xml.clone();
        // From the end, so that what comes before stays where it is.
        edits.sort_by_key(|edit| edit.place.start);
        for edit in edits.into_iter().rev() {
            xml.replace_range(edit.place, &edit.text);
        }
        Ok(Completed { xml, filled_in })
    }
}

fn missing_devices(root: Element<'_>, devices: Element<'_>) -> Vec<String> {
    let emulator = || {
        let program = emulator(root)?;
        Some(format!("<emulator>{program}</emulator>"))
    };
    let has = |name: &str| devices.child(name).is_some();
    let emulator = (!has("emulator")).then(emulator).flatten();
    let console = (!has("console")).then(|| "<console type='pty'/>".to_owned());
    emulator.into_iter().chain(console).collect()
}

/// `None`: nobody but libvirt knows.
fn emulator(root: Element<'_>) -> Option<&'static str> {
    let by_qemu = matches!(root.attribute("type"), Some("kvm" | "qemu"));
    let arch = root.child("os").and_then(|os| os.child("type")).and_then(|of| of.attribute("arch"));
    match arch.unwrap_or("x86_64") {
        "x86_64" if by_qemu => Some("/usr/bin/qemu-system-x86_64"),
        "aarch64" if by_qemu => Some("/usr/bin/qemu-system-aarch64"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UUID: &str = "<uuid>11111111-0000-4000-8000-000000000001</uuid>";

    fn completed(rest: &str) -> Completed {
        let xml = format!("<domain type='kvm'><name>web1</name>{UUID}{rest}</domain>");
        let completed = DomainSpec::parse(&xml).unwrap().completed().unwrap();
        let again = DomainSpec::parse(&completed.xml).unwrap().completed().unwrap();
        assert_eq!(
            again,
            Completed { xml: completed.xml.clone(), filled_in: vec![] },
            "nothing is left out any more"
        );
        completed
    }

    #[test]
    fn what_is_left_out_is_filled_in_and_the_rest_stays_as_it_is() {
        let bare = completed("<memory>65536</memory><devices/>");
        assert_eq!(
            bare.filled_in,
            [
                "<vcpu>1</vcpu>",
                "<features/>",
                "<memory unit='KiB'>",
                "<emulator>/usr/bin/qemu-system-x86_64</emulator>",
                "<console type='pty'/>"
            ]
        );
        assert_eq!(
            bare.xml,
            format!(
                "<domain type='kvm'><vcpu>1</vcpu><features/><name>web1</name>{UUID}<memory unit='KiB'>65536</memory><devices>\
                 <emulator>/usr/bin/qemu-system-x86_64</emulator><console type='pty'/></devices></domain>"
            )
        );
        let some = completed(
            "<memory unit='MiB'>64</memory><vcpu>2</vcpu><features><acpi/></features><devices><disk/><console type='pty'/></devices>",
        );
        assert_eq!(some.filled_in, ["<emulator>/usr/bin/qemu-system-x86_64</emulator>"]);
        assert!(
            some.xml.contains("<devices><emulator>/usr/bin/qemu-system-x86_64</emulator><disk/>"),
            "{}",
            some.xml
        );
    }

    #[test]
    fn an_emulator_that_only_libvirt_knows_is_left_to_it() {
        let riscv = "<os><type arch='riscv64'>hvm</type></os><memory unit='MiB'>64</memory><vcpu>1</vcpu><features/><devices/>";
        assert_eq!(completed(riscv).filled_in, ["<console type='pty'/>"]);
    }
}
