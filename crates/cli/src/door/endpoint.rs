//! Where an API is, what is sent there to get in, and whom to believe that it is there.

use std::{
    fmt, fs,
    io::{self, Read as _, Write as _},
    net::IpAddr,
    path::Path,
};

use hyper::{Uri, header::HeaderValue};
use tokio_rustls::rustls::{
    RootCertStore,
    pki_types::{CertificateDer, pem::PemObject as _},
};

use super::own;
use crate::failure::Failure;

/// The port of the API unless another is named.
const PORT: u16 = 7370;
/// The certificates that this system trusts.
const SYSTEM: &str = "/etc/ssl/certs/ca-certificates.crt";
/// The largest file of certificates.
const MOST: u64 = 4 << 20;
/// The longest token.
const LONGEST: usize = 1024;

/// An API's address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Endpoint {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) is_tls: bool,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", if self.is_tls { "https" } else { "http" }, self.authority())
    }
}

impl Endpoint {
    /// `http://HOST[:PORT]` or `https://…`, and nothing else.
    pub(crate) fn parse(text: &str) -> Result<Self, Failure> {
        // A name, a password or a token may stand in it.
        let shown =
            if text.contains(['@', '?', '#']) { "what was given".to_owned() } else { format!("{text:?}") };
        let wrong = |why: &str| {
            Failure::Usage(format!(
                "{shown} is no address of an API: {why}; write https://HOST or https://HOST:PORT"
            ))
        };
        let uri: Uri = text.trim().parse().map_err(|_| wrong("it cannot be read"))?;
        let is_tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(wrong("it does not begin with https:// or http://")),
        };
        if uri.path() != "/" || uri.query().is_some() {
            return Err(wrong("there is a path behind it"));
        }
        if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            return Err(wrong("a name or token stands in it"));
        }
        let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(|| wrong("there is no host"))?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        Ok(Self { host, port: uri.port_u16().unwrap_or(PORT), is_tls })
    }

    /// As a request names it.
    pub(crate) fn authority(&self) -> String {
        let Self { host, port, .. } = self;
        if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
    }

    /// Whether what is sent there can be read on the way.
    pub(crate) fn is_open(&self) -> bool {
        let is_here =
            self.host == "localhost" || self.host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
        !self.is_tls && !is_here
    }
}

/// What is sent to get in. Never shown.
#[derive(Clone)]
pub(crate) struct Token(HeaderValue);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

impl Token {
    /// One that was typed or read: blanks around it do not belong to it.
    pub(crate) fn new(text: &str) -> Result<Self, Failure> {
        let text = text.trim();
        let is_plain =
            !text.is_empty() && text.len() <= LONGEST && text.bytes().all(|byte| byte.is_ascii_graphic());
        let value = HeaderValue::from_str(text).ok().filter(|_| is_plain);
        let mut value = value.ok_or_else(|| {
            Failure::Usage(format!("a token is 1 to {LONGEST} printable characters without blanks"))
        })?;
        value.set_sensitive(true);
        Ok(Self(value))
    }

    pub(crate) fn header(&self) -> HeaderValue {
        self.0.clone()
    }

    /// A text, without it.
    pub(crate) fn hidden_in(&self, text: &str) -> String {
        self.0.to_str().map_or_else(|_| String::new(), |token| text.replace(token, "…"))
    }

    /// The one in a file that only its owner can read; `None`: there is no such file.
    pub(crate) fn read(file: &Path) -> Result<Option<Self>, Failure> {
        let failed =
            |cause| Failure::Machine { doing: format!("read the token in {}", file.display()), cause };
        let advice = "chmod 600 it, and have the token replaced if somebody may have read it";
        let Some(open) = own::open(file, 0o077, advice)? else { return Ok(None) };
        let mut text = String::new();
        open.take(LONGEST as u64 + 2).read_to_string(&mut text).map_err(failed)?;
        Self::new(&text).map(Some)
    }

    /// Keeps it in a file that only its owner can read.
    pub(crate) fn write(&self, file: &Path) -> Result<(), Failure> {
        let folder = file.parent().unwrap_or(Path::new("."));
        own::folder(folder)?;
        let write = || -> io::Result<()> {
            // Whole or not at all, and with its mode from the beginning.
            let mut new = tempfile::Builder::new().prefix(".token-").tempfile_in(folder)?;
            new.write_all(self.0.as_bytes())?;
            new.write_all(b"\n")?;
            new.as_file().sync_all()?;
            new.persist(file)?;
            Ok(())
        };
        write().map_err(|cause| Failure::Machine {
            doing: format!("keep the token in {}", file.display()),
            cause,
        })
    }
}

/// Whom to believe: who is vouched for by that file, else by what this system trusts.
pub(crate) fn roots(file: Option<&Path>) -> Result<RootCertStore, Failure> {
    let file = file.unwrap_or(Path::new(SYSTEM));
    let failed =
        |cause| Failure::Machine { doing: format!("read the certificates in {}", file.display()), cause };
    let mut pem = Vec::new();
    fs::File::open(file).and_then(|open| open.take(MOST).read_to_end(&mut pem)).map_err(failed)?;
    let mut roots = RootCertStore::empty();
    // Of what a system trusts some may be of a kind that nobody here understands.
    let (good, _) =
        roots.add_parsable_certificates(CertificateDer::pem_slice_iter(&pem).filter_map(Result::ok));
    if good == 0 {
        return Err(failed(io::Error::other("there is none that can be used")));
    }
    Ok(roots)
}
