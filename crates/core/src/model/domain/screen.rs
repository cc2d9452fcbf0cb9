//! Which of a guest's displays is a screen that can be shown elsewhere.

use super::read::{Definition, Element, excerpt};

/// The number of a guest's VNC display among all its displays, as libvirt counts them; or what it lacks, and what to write in its definition.
///
/// Only its number: where QEMU listens is nobody's business, since libvirt hands out a connection to it.
pub fn screen(xml: &str) -> Result<u32, String> {
    let definition =
        Definition::parse(xml).map_err(|error| format!("its definition cannot be read: {error}"))?;
    let devices = definition.root().ok().and_then(|root| root.child("devices"));
    let kinds: Vec<&str> =
        devices.into_iter().flat_map(|devices| devices.children("graphics")).map(kind).collect();
    if let Some(number) = kinds.iter().position(|kind| *kind == "vnc") {
        return u32::try_from(number).map_err(|error| error.to_string());
    }
    let lack = match kinds.first() {
        Some(kind) => format!("the guest's screen is a {}, and only VNC is shown", excerpt(kind)),
        None => "the guest has no screen".to_owned(),
    };
    Err(format!(
        "{lack}: give it <graphics type='vnc' listen='127.0.0.1' autoport='yes' sharePolicy='force-shared'/> among its <devices> by `pvc vm modify`, and restart it"
    ))
}

fn kind(element: Element<'_>) -> &str {
    element.attribute("type").unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_vnc_display_is_the_screen_wherever_it_claims_to_listen() {
        let with = |devices: &str| screen(&format!("<domain><devices>{devices}</devices></domain>"));
        for (devices, number) in [
            ("<graphics type='vnc'/>", 0),
            ("<graphics type='spice'/><graphics type='vnc' port='22' listen='0.0.0.0'/>", 1),
            ("<graphics type='vnc' socket='/etc/shadow'/><graphics type='vnc'/>", 0),
        ] {
            assert_eq!(with(devices), Ok(number), "{devices}");
        }
        for (devices, words) in [
            ("", "has no screen"),
            ("<video><graphics type='vnc'/></video>", "has no screen"),
            ("<graphics xmlns='x' type='vnc'/>", "has no screen"),
            ("<graphics type='spice'/>", "is a \"spice\", and only VNC"),
        ] {
            let lack = with(devices).unwrap_err();
            assert!(lack.contains(words) && lack.contains("<graphics type='vnc'"), "{lack}");
        }
        assert!(screen("no definition").unwrap_err().contains("cannot be read"));
    }
}
