//! Which machine has a node's name: what tells one machine from another, as far as firmware and installation do.
//! Decides nothing; see `plan::machine`.

use std::fmt;

use serde::{Deserialize, Serialize};

/// No firmware's text is longer; what is longer came from somewhere else.
const LONGEST: usize = 128;

/// What vendors leave in their firmware instead of a serial number, in lower case.
const NO_SERIALS: [&str; 24] = [
    "base board serial number",
    "board serial number",
    "chassis serial number",
    "default",
    "default string",
    "empty",
    "invalid",
    "mb-1234567890",
    "n/a",
    "na",
    "none",
    "not applicable",
    "not available",
    "not provided",
    "not settable",
    "not specified",
    "null",
    "o.e.m.",
    "oem",
    "serial number",
    "system serial number",
    "to be filled by o.e.m",
    "to be filled by o.e.m.",
    "unknown",
];

/// UUIDs that firmware of more than one vendor comes with: AMI's and its other byte order, and typed ones.
const NO_UUIDS: [&str; 4] = [
    "03000200-0400-0500-0006-000700080009",
    "00020003-0004-0005-0006-000700080009",
    "12345678-1234-5678-90ab-cddeefaabbcc",
    "12345678-1234-5678-1234-567812345678",
];

/// What a machine can be known by. Absent: it has none, or one that many others have, too.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct MachineId {
    /// DMI's `product_uuid`, in lower case.
    #[serde(default)]
    pub product_uuid: Option<String>,
    /// DMI's `board_serial`.
    #[serde(default)]
    pub board_serial: Option<String>,
    /// DMI's `chassis_serial`. Machines that share a chassis share it.
    #[serde(default)]
    pub chassis_serial: Option<String>,
    /// `/etc/machine-id`: of the installation. A cloned disk has it, too.
    #[serde(default)]
    pub machine_id: Option<String>,
}

impl MachineId {
    /// From what the files say, without what is known to mean nothing.
    pub fn of(
        product_uuid: Option<&str>,
        board_serial: Option<&str>,
        chassis_serial: Option<&str>,
        machine_id: Option<&str>,
    ) -> Self {
        Self {
            product_uuid: product_uuid.and_then(uuid),
            board_serial: board_serial.and_then(serial),
            chassis_serial: chassis_serial.and_then(serial),
            machine_id: machine_id.and_then(installation),
        }
    }

    /// Whether the firmware names this very board.
    pub fn has_hardware(&self) -> bool {
        self.product_uuid.is_some() || self.board_serial.is_some()
    }
}

fn uuid(text: &str) -> Option<String> {
    let text = text.trim().to_ascii_lowercase();
    let uuid = uuid::Uuid::try_parse(&text).ok()?.to_string();
    (!NO_UUIDS.contains(&uuid.as_str()) && kinds(&uuid) > 2).then_some(uuid)
}

fn serial(text: &str) -> Option<String> {
    let text = text.trim();
    let plain = text.to_ascii_lowercase();
    let counted = "0123456789".repeat(3).contains(&plain);
    let means_something = text.len() <= LONGEST
        && !text.chars().any(char::is_control)
        && kinds(text) > 1
        && !counted
        && !NO_SERIALS.contains(&plain.as_str());
    means_something.then(|| text.to_owned())
}

/// As systemd writes it; `uninitialized` and an empty file are none.
fn installation(text: &str) -> Option<String> {
    let text = text.trim().to_ascii_lowercase();
    let looks_right = text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit());
    (looks_right && kinds(&text) > 1).then_some(text)
}

/// How many different letters and digits a text has: zeros only, or `fefefe…`, are no identity.
fn kinds(text: &str) -> usize {
    let mut seen: Vec<char> = text.chars().filter(char::is_ascii_alphanumeric).collect();
    seen.sort_unstable();
    seen.dedup();
    seen.len()
}

/// A machine in one of its boots, as `/pvc/machine/<node>` records the one that has the name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineRecord {
    /// What it can be known by.
    #[serde(flatten)]
    pub id: MachineId,
    /// The boot in which it last took the name (`/proc/sys/kernel/random/boot_id`).
    pub boot: String,
    /// What it calls itself: for people.
    pub host: String,
    /// Since when it has the name, by its own clock, seconds since 1970: for people.
    #[serde(default)]
    pub since_unix_s: u64,
    /// An operator has said that it is gone for good: another machine may take the name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaced: Option<Replaced>,
}

/// An operator's word that a machine is gone for good.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replaced {
    /// Who said it.
    pub by: String,
    /// When, by that machine's clock, seconds since 1970: for people.
    pub at_unix_s: u64,
}

/// For people: its host name, and what is written on it.
impl fmt::Display for MachineRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", if self.host.is_empty() { "a machine without a name" } else { &self.host })?;
        let MachineId { product_uuid, board_serial, machine_id, .. } = &self.id;
        match (product_uuid, board_serial, machine_id) {
            (Some(uuid), ..) => write!(f, " (hardware {uuid})"),
            (None, Some(board), _) => write!(f, " (board {board})"),
            (None, None, Some(id)) => write!(f, " (machine-id {id})"),
            (None, None, None) => write!(f, " (boot {})", self.boot),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_vendors_leave_blank_is_no_identity() {
        for bogus in [
            "",
            "00000000-0000-0000-0000-000000000000",
            "FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF",
            "fefefefe-fefe-fefe-fefe-fefefefefefe",
            "03000200-0400-0500-0006-000700080009",
            "Not Settable",
        ] {
            assert_eq!(uuid(bogus), None, "{bogus}");
        }
        for bogus in [
            "",
            " ",
            "To Be Filled By O.E.M.\n",
            "Default string",
            "None",
            "0",
            "00000000",
            "........",
            "XXXXXXXX",
            "0123456789",
            "123456789",
            "1234567890",
            "a\u{7}b",
            &"ab".repeat(100),
        ] {
            assert_eq!(serial(bogus), None, "{bogus}");
        }
        for bogus in ["", "uninitialized\n", "00000000000000000000000000000000", "3d1219c7"] {
            assert_eq!(installation(bogus), None, "{bogus}");
        }
    }

    #[test]
    fn what_names_a_machine_is_read_in_one_spelling() {
        let id = MachineId::of(
            Some("4C4C4544-0042-3510-8052-B4C04F564231\n"),
            Some("/ABC123/CN7\n"),
            Some("5BRVB1\n"),
            Some("3D1219c7c4c5404aaa1f6d2a48adfda4\n"),
        );
        assert_eq!(id.product_uuid.as_deref(), Some("4c4c4544-0042-3510-8052-b4c04f564231"));
        assert_eq!(id.board_serial.as_deref(), Some("/ABC123/CN7"));
        assert_eq!(id.chassis_serial.as_deref(), Some("5BRVB1"));
        assert_eq!(id.machine_id.as_deref(), Some("3d1219c7c4c5404aaa1f6d2a48adfda4"));
    }
}
