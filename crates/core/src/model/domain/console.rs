//! Whether a guest has a console that can be typed on.

use super::read::{Definition, Element, excerpt};

/// What stands in the way of who wants to type on a guest's serial console, and what to write in its definition; `None`: nothing in there.
///
/// libvirt opens the first `<console>`, where there is none the first `<serial>`, and can do so if that is a pseudo-terminal.
pub fn no_console(xml: &str) -> Option<String> {
    let definition = Definition::parse(xml).ok()?;
    let devices = definition.root().ok()?.child("devices");
    let first = |name: &'static str| devices.and_then(|devices| devices.child(name));
    let lack = match first("console").or_else(|| first("serial")).map(kind) {
        Some(kind) if kind == "pty" => return None,
        Some(kind) => format!("the guest's serial console is a {}, on which nobody can type", excerpt(&kind)),
        None => "the guest has no serial console".to_owned(),
    };
    Some(format!(
        "{lack}: give it <serial type='pty'><target port='0'/></serial> (with <log file='…' append='on'/> in it for `pvc vm log`) by `pvc vm modify`, \
         and restart it"
    ))
}

fn kind(element: Element<'_>) -> String {
    element.attribute("type").unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_console_that_nobody_can_type_on_says_what_to_write() {
        let with = |devices: &str| no_console(&format!("<domain><devices>{devices}</devices></domain>"));
        let log = "<serial type='pty'><log file='/x'/></serial>";
        for fine in [log, "<console type='pty'/>", "<serial type='file'/><console type='pty'/>"] {
            assert_eq!(with(fine), None, "{fine}");
        }
        let says = |devices: &str, words: &str| {
            let lack = with(devices).unwrap();
            assert!(lack.contains(words) && lack.contains("<serial type='pty'>"), "{lack}");
        };
        says("", "has no serial console");
        says("<serial type='file'><source path='/x'/></serial>", "is a \"file\", on which");
        says("<serial type='pty'/><console type='tcp'/>", "is a \"tcp\", on which");
        assert_eq!(no_console("no definition"), None, "then it says nothing");
    }
}
