//! The kinds of value a setting can have: how each is read, and the words for what is allowed.

mod address;

use std::{net::Ipv4Addr, ops::RangeInclusive, path::PathBuf};

use pvc_core::model::name::NodeName;

use crate::{
    config::Token,
    coordinators::{Coordinator, DEFAULT_PORT},
    scalar::NotWhole,
    secret::Secret,
    tree::Scalar,
};

pub(crate) use address::{
    AddressChoice, address, address_choice, interface, interface6, ip_address, loopback, network, network6,
    router,
};

/// Why a value is refused, continuing the setting's path, and what else helps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) problem: String,
    pub(crate) help: Vec<String>,
}

impl From<&str> for Refusal {
    fn from(problem: &str) -> Self {
        Self { problem: problem.to_owned(), help: Vec::new() }
    }
}

impl Refusal {
    fn help(problem: &str, help: impl Into<String>) -> Self {
        Self { problem: problem.to_owned(), help: vec![help.into()] }
    }
}

type Reader<T> = Box<dyn Fn(&Scalar) -> Result<Option<T>, Refusal>>;

/// A kind of value.
pub(crate) struct Kind<T> {
    /// What is allowed, in words.
    pub(crate) allowed: String,
    reader: Reader<T>,
}

impl<T: 'static> Kind<T> {
    /// A kind for which `None` is absence.
    fn new(allowed: &str, read: impl Fn(&Scalar) -> Result<T, Refusal> + 'static) -> Self {
        let reader = move |s: &Scalar| if s.is_none() { Ok(None) } else { read(s).map(Some) };
        Self { allowed: allowed.to_owned(), reader: Box::new(reader) }
    }

    /// A kind for which `None` in quotes is a text like any other.
    fn literal(allowed: &str, read: impl Fn(&Scalar) -> Result<T, Refusal> + 'static) -> Self {
        let reader = move |s: &Scalar| if s.is_unquoted_none() { Ok(None) } else { read(s).map(Some) };
        Self { allowed: allowed.to_owned(), reader: Box::new(reader) }
    }

    /// The same kind, for which a written `None` (but not an empty value) is a value of its own.
    pub(crate) fn or_none(self) -> Kind<Option<T>> {
        let Self { allowed, reader } = self;
        let reader = move |s: &Scalar| {
            if s.plain && s.text.is_empty() {
                return Ok(None);
            }
            reader(s).map(Some)
        };
        Kind { allowed: format!("{allowed}, or None"), reader: Box::new(reader) }
    }

    /// The same kind, for which nothing behind the colon is a value of its own.
    pub(crate) fn or_empty(self) -> Kind<Option<T>> {
        let Self { allowed, reader } = self;
        Kind { allowed, reader: Box::new(move |s: &Scalar| reader(s).map(Some)) }
    }
}

impl<T> Kind<T> {
    /// Reads a value; `Ok(None)` if there is none.
    pub(crate) fn read(&self, scalar: &Scalar) -> Result<Option<T>, Refusal> {
        (self.reader)(scalar)
    }
}

/// `True` or `False`.
pub(crate) fn switch() -> Kind<bool> {
    Kind::new("True or False (or yes, no, on, off)", |s| {
        s.boolean().ok_or_else(|| "is not a truth value".into())
    })
}

/// A whole number of `unit` within bounds.
pub(crate) fn whole(range: RangeInclusive<u32>, unit: &str) -> Kind<u32> {
    let allowed = format!("a whole number{unit}, {} to {}", range.start(), range.end());
    Kind::new(&allowed, move |s| {
        let number = s.whole().map_err(not_whole)?;
        match u32::try_from(number) {
            Ok(number) if range.contains(&number) => Ok(number),
            _ if number == 0 => Err("cannot be 0".into()),
            _ if number < u64::from(*range.start()) => Err("is too small".into()),
            _ => Err("is too large".into()),
        }
    })
}

/// The same for what fits in 16 bits: ports and MTUs.
pub(crate) fn short(range: RangeInclusive<u16>, unit: &str) -> Kind<u16> {
    let wide = whole(u32::from(*range.start())..=u32::from(*range.end()), unit);
    let allowed = wide.allowed.clone();
    let too_large = || Refusal::from("is too large");
    Kind::new(&allowed, move |s| {
        let number = wide.read(s)?.ok_or_else(|| Refusal::from("is not a number"))?;
        u16::try_from(number).map_err(|_| too_large())
    })
}

fn not_whole(error: NotWhole) -> Refusal {
    match error {
        NotWhole::NoNumber => "is not a whole number".into(),
        NotWhole::Negative => "cannot be negative".into(),
        NotWhole::TooLarge => "is too large".into(),
        NotWhole::WriteAs(notation, Some(number)) => {
            Refusal::help("is not a plain decimal number", format!("this is {notation}; write {number}"))
        }
        NotWhole::WriteAs(notation, None) => {
            Refusal::help("is not a plain decimal number", format!("this is {notation}; write plain digits"))
        }
    }
}

/// One of some words.
pub(crate) fn word<T: Copy + 'static>(words: &'static [(&'static str, T)]) -> Kind<T> {
    let allowed = words.iter().map(|(word, _)| *word).collect::<Vec<_>>().join(", ");
    let reader = move |s: &Scalar| {
        let none = s.is_none();
        if none && s.text.is_empty() {
            return Ok(None);
        }
        let text = if none { "None" } else { s.text.trim() };
        match words.iter().find(|(word, _)| word.eq_ignore_ascii_case(text)) {
            Some(&(_, value)) => Ok(Some(value)),
            None if none => Ok(None),
            None => {
                let near = words.iter().map(|(word, _)| *word).min_by_key(|w| strsim::osa_distance(w, text));
                let near = near.filter(|w| text.len() <= 16 && strsim::osa_distance(w, text) <= 2);
                let help = near.map(|w| format!("did you mean '{w}'?")).into_iter().collect();
                Err(Refusal { problem: "is not one of the words allowed".to_owned(), help })
            }
        }
    };
    Kind { allowed: format!("one of {allowed}"), reader: Box::new(reader) }
}

/// A name that is not interpreted: users, databases.
pub(crate) fn name(what: &str) -> Kind<String> {
    Kind::literal(
        what,
        |s| if is_printable(&s.text) { Ok(s.text.clone()) } else { Err(unprintable(&s.text)) },
    )
}

/// A password.
pub(crate) fn secret() -> Kind<Secret> {
    Kind::literal("a password (in quotes if it is a word like None or has special characters)", |s| {
        if is_printable(&s.text) { Ok(Secret::new(s.text.clone())) } else { Err(unprintable(&s.text)) }
    })
}

/// The same, or nothing.
pub(crate) fn maybe_secret() -> Kind<Option<Secret>> {
    let kind = secret();
    let allowed = kind.allowed.clone();
    Kind::literal(&allowed, move |s| if s.text.is_empty() { Ok(None) } else { kind.read(s) })
}

/// A token for the API, or its hash.
pub(crate) fn token() -> Kind<Token> {
    const HASH: &str = "sha256:";
    Kind::literal("a token, or sha256: and 64 hexadecimal digits", |s| match s.text.strip_prefix(HASH) {
        Some(digits) => sha256(digits).map(Token::Sha256).ok_or_else(|| "is no SHA-256".into()),
        None if !is_printable(&s.text) => Err(unprintable(&s.text)),
        // What HTTP trims would never be sent.
        None if s.text.trim() != s.text => Err("begins or ends with a space".into()),
        None => Ok(Token::Plain(Secret::new(s.text.clone()))),
    })
}

fn sha256(digits: &str) -> Option<[u8; 32]> {
    let mut hash = [0; 32];
    if digits.len() != 2 * hash.len() || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    for (byte, at) in hash.iter_mut().zip((0..digits.len()).step_by(2)) {
        *byte = u8::from_str_radix(&digits[at..at + 2], 16).ok()?;
    }
    Some(hash)
}

fn is_printable(text: &str) -> bool {
    !text.is_empty() && !text.chars().any(char::is_control)
}

fn unprintable(text: &str) -> Refusal {
    if text.is_empty() {
        "is empty".into()
    } else {
        "contains a line break or another control character".into()
    }
}

/// A short host name.
pub(crate) fn node_name() -> Kind<NodeName> {
    let allowed = "a short host name: letters, digits and inner hyphens, at most 63";
    Kind::new(allowed, |s| {
        s.text.parse().map_err(|_| match s.text.split_once('.') {
            Some((short, _)) if short.parse::<NodeName>().is_ok() => {
                Refusal::help("is not a short host name", format!("leave the domain away: {short}"))
            }
            _ => "is not a short host name".into(),
        })
    })
}

/// A host name (with or without domain) or an address.
pub(crate) fn host() -> Kind<String> {
    Kind::new("a host name or an IP address", |s| {
        let ok = is_host_name(&s.text) || s.text.parse::<std::net::IpAddr>().is_ok();
        if ok { Ok(s.text.clone()) } else { Err("is not a host name".into()) }
    })
}

/// A domain name.
pub(crate) fn domain() -> Kind<String> {
    Kind::new("a domain name such as example.net", |s| {
        if is_host_name(&s.text) { Ok(s.text.clone()) } else { Err("is not a domain name".into()) }
    })
}

/// RFC 1123, and not something that only looks like an address.
fn is_host_name(text: &str) -> bool {
    let label = |label: &str| {
        let inner = label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        inner && (1..=63).contains(&label.len()) && !label.starts_with('-') && !label.ends_with('-')
    };
    let numeric_end = text.rsplit('.').next().is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit()));
    text.len() <= 253 && text.split('.').all(label) && !(numeric_end && text.contains('.'))
}

/// One coordinator.
pub(crate) fn coordinator() -> Kind<Coordinator> {
    Kind::new("a host name or an IPv4 address, with :port if it is not 2181", |s| {
        let (host, port) = match s.text.split_once(':') {
            None => (s.text.as_str(), DEFAULT_PORT),
            Some((host, port)) => {
                let digits = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
                match port.parse() {
                    Ok(port) if digits && port > 0 => (host, port),
                    _ => return Err("has no valid port after ':'".into()),
                }
            }
        };
        if is_host_name(host) || host.parse::<Ipv4Addr>().is_ok() {
            Ok(Coordinator { host: host.to_owned(), port })
        } else {
            Err("is not a host name".into())
        }
    })
}

/// The name of a Linux network device, by the kernel's own rule (`dev_valid_name`).
pub(crate) fn device() -> Kind<String> {
    Kind::new("a Linux network device such as ens4: at most 15 characters, no '/', ':' or space", |s| {
        let text = &s.text;
        let ok = (1..=15).contains(&text.len())
            && text != "."
            && text != ".."
            && !text.chars().any(|c| c == '/' || c == ':' || c.is_whitespace() || c.is_control());
        if ok { Ok(text.clone()) } else { Err("is not a device name".into()) }
    })
}

/// An absolute directory.
pub(crate) fn directory() -> Kind<PathBuf> {
    path("an absolute path such as /var/log/pvc")
}

/// An absolute path of a file.
pub(crate) fn file() -> Kind<PathBuf> {
    path("an absolute path such as /etc/pvc/api.pem")
}

fn path(allowed: &'static str) -> Kind<PathBuf> {
    Kind::new(allowed, |s| {
        if s.text.chars().any(char::is_control) {
            return Err("contains a control character".into());
        }
        let path = PathBuf::from(&s.text);
        if !path.is_absolute() {
            return Err(Refusal::help(
                "is not an absolute path",
                "a daemon has no directory of its own to start from",
            ));
        }
        if path.components().any(|c| c == std::path::Component::ParentDir) {
            return Err("must not contain '..'".into());
        }
        Ok(path)
    })
}
