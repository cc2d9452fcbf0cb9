//! A device, as it is named in a command: untrusted until it is one of these.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{NameError, invalid};

/// A block device below `/dev`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Device(pub(super) String);

impl TryFrom<String> for Device {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<Device> for String {
    fn from(device: Device) -> Self {
        device.0
    }
}

impl FromStr for Device {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let parts_ok = text.strip_prefix("/dev/").is_some_and(|rest| {
            rest.split('/').all(|part| {
                !matches!(part, "" | "." | "..")
                    && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"._:+-".contains(&b))
            })
        });
        if parts_ok && text.len() <= 255 {
            return Ok(Self(text.to_owned()));
        }
        Err(invalid("device", text, "an absolute path below /dev, such as /dev/sdb"))
    }
}

impl Device {
    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
