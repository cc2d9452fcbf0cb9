//! A VM's UUID, and how the key below `/domains` spells it.
//!
//! Old clients name the key by what the definition says, as it was typed: in upper case, without hyphens, in braces, with spaces.
//! libvirt and we know one UUID. So all spellings are equal, and an id that was read from a key remembers that key's.

use std::{
    cmp::Ordering,
    fmt,
    hash::{Hash, Hasher},
    str::FromStr,
};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use uuid::Uuid;

use super::name::NameError;

/// A virtual machine's identity: the libvirt domain UUID, shown in lower case with hyphens as libvirt prints it.
#[derive(Clone, Copy)]
pub struct VmId {
    uuid: Uuid,
    spelling: Spelling,
}

/// How a key deviates from lower case with hyphens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Spelling {
    /// One bit for each of the 32 digits, the first in the lowest: it is in upper case.
    upper: u32,
    form: Form,
    spaces_before: u8,
    spaces_after: u8,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Form {
    #[default]
    Hyphenated,
    Simple,
    Braced,
}

impl VmId {
    /// The nil UUID, for questions about no VM in particular.
    pub const NIL: Self = Self {
        uuid: Uuid::nil(),
        spelling: Spelling { upper: 0, form: Form::Hyphenated, spaces_before: 0, spaces_after: 0 },
    };

    /// The UUID itself.
    pub fn uuid(self) -> Uuid {
        self.uuid
    }

    /// The id of the VM whose key is called so.
    ///
    /// # Errors
    /// If that is no UUID, or one in a spelling that [`Self::key`] could not give back.
    pub fn of_key(key: &str) -> Result<Self, NameError> {
        let Self { uuid, .. } = key.parse()?;
        let inner = key.trim_matches(' ');
        let digits = inner.chars().filter(char::is_ascii_hexdigit);
        let upper = digits.zip(0..).filter(|(digit, _)| digit.is_ascii_uppercase());
        let spaces = |text: &str| u8::try_from(text.len() - text.trim_matches(' ').len()).unwrap_or(u8::MAX);
        let spelling = Spelling {
            upper: upper.fold(0, |bits, (_, i): (_, u32)| bits | 1u32.checked_shl(i).unwrap_or_default()),
            form: match (inner.starts_with('{'), inner.contains('-')) {
                (true, _) => Form::Braced,
                (false, true) => Form::Hyphenated,
                (false, false) => Form::Simple,
            },
            spaces_before: spaces(key.trim_end_matches(' ')),
            spaces_after: spaces(key.trim_start_matches(' ')),
        };
        let id = Self { uuid, spelling };
        if id.key() == key { Ok(id) } else { Err(refused(key)) }
    }

    /// The name of the VM's key below `/domains`: as it was read, else as the id is shown.
    pub fn key(self) -> String {
        let Spelling { upper, form, spaces_before, spaces_after } = self.spelling;
        let text = match form {
            Form::Hyphenated => self.uuid.hyphenated().to_string(),
            Form::Simple => self.uuid.simple().to_string(),
            Form::Braced => self.uuid.braced().to_string(),
        };
        let mut digit = 0;
        let spelled = text.chars().map(|c| {
            let is_digit = c.is_ascii_hexdigit();
            let is_upper = is_digit && upper >> digit & 1 == 1;
            digit += u32::from(is_digit);
            if is_upper { c.to_ascii_uppercase() } else { c }
        });
        let spaces = |n: u8| std::iter::repeat_n(' ', n.into());
        spaces(spaces_before).chain(spelled).chain(spaces(spaces_after)).collect()
    }

    /// Whether both spell the key in the same way.
    pub fn is_spelled_as(self, other: Self) -> bool {
        self == other && self.spelling == other.spelling
    }

    /// Whether its key is spelled as the id is shown.
    pub fn is_canonical(self) -> bool {
        self.spelling == Spelling::default()
    }
}

impl PartialEq for VmId {
    fn eq(&self, other: &Self) -> bool {
        self.uuid == other.uuid
    }
}

impl Eq for VmId {}

impl PartialOrd for VmId {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for VmId {
    fn cmp(&self, other: &Self) -> Ordering {
        self.uuid.cmp(&other.uuid)
    }
}

impl Hash for VmId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.uuid.hash(state);
    }
}

impl From<Uuid> for VmId {
    fn from(uuid: Uuid) -> Self {
        Self { uuid, spelling: Spelling::default() }
    }
}

impl FromStr for VmId {
    type Err = NameError;

    /// Accepts what libvirt and old clients do: upper case, braces, no hyphens, spaces around it. The key's spelling is not
    /// remembered: see [`VmId::of_key`].
    fn from_str(text: &str) -> Result<Self, NameError> {
        let inner = text.trim();
        match (inner.len(), Uuid::try_parse(inner)) {
            (32 | 36 | 38, Ok(uuid)) => Ok(uuid.into()),
            _ => Err(refused(text)),
        }
    }
}

fn refused(found: &str) -> NameError {
    NameError {
        what: "VM UUID",
        found: found.to_owned(),
        allowed: "a UUID such as 6f1f6c55-7b8e-4f2f-9f5e-0f2c3c1c9f00",
    }
}

impl<'de> Deserialize<'de> for VmId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

impl Serialize for VmId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl fmt::Debug for VmId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VmId({:?})", self.key())
    }
}

impl fmt::Display for VmId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.uuid.hyphenated().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CANONICAL: &str = "1a1a1a1a-00bc-4000-8000-00000000d0e1";

    #[test]
    fn a_key_is_spelled_as_it_was_typed_and_the_id_is_one() {
        let canonical: VmId = CANONICAL.parse().unwrap();
        for key in [
            CANONICAL,
            "1A1A1A1A-00BC-4000-8000-00000000D0E1",
            "1a1A1a1A-00bC-4000-8000-00000000D0e1",
            "1a1a1a1a00bc4000800000000000d0e1",
            "{1A1A1A1A-00BC-4000-8000-00000000D0E1}",
            " 1A1a1a1a-00bc-4000-8000-00000000d0e1  ",
        ] {
            let id = VmId::of_key(key).unwrap();
            assert_eq!(id.key(), key);
            assert_eq!((id, id.to_string().as_str()), (canonical, CANONICAL), "{key:?}");
            assert_eq!(key.parse::<VmId>().unwrap().key(), CANONICAL, "what is no key has no spelling");
            assert_eq!(id.is_canonical(), key == CANONICAL);
            assert_eq!(id.is_spelled_as(canonical), key == CANONICAL);
        }
    }

    #[test]
    fn what_is_no_uuid_or_could_not_be_spelled_again_is_no_key() {
        for bad in
            ["", "x", "urn:uuid:1a1a1a1a-00bc-4000-8000-00000000d0e1", "{1a1a1a1a00bc4000800000000000d0e1}"]
        {
            assert!(bad.parse::<VmId>().is_err(), "{bad:?}");
            assert!(VmId::of_key(bad).is_err(), "{bad:?}");
        }
        let tab = format!("\t{CANONICAL}");
        assert!(tab.parse::<VmId>().is_ok() && VmId::of_key(&tab).is_err());
        let far = format!("{}{CANONICAL}", " ".repeat(300));
        assert!(VmId::of_key(&far).is_err());
    }
}
