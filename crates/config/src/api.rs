//! `pvc-api.yaml`: what the service of the HTTP API is told. Read and diagnosed as `pvcd.yaml` is.

use std::{
    net::{IpAddr, SocketAddr},
    path::Path,
};

use crate::{
    check::{Checked, check_file_of},
    config::{ApiConfig, ApiToken, Authentication, Role, TlsFiles, Token},
    diagnostic::{Diagnostic, Severity},
    files::{self, File},
    kind, read, settings,
    walk::{Found, Section, Setting, Told, Walk},
};

/// No cluster has so many people and programs.
const MOST_TOKENS: usize = 1000;

/// A token that is shorter can be guessed, and its hash be found by trying.
pub const SHORT_TOKEN: usize = 16;

const ROLES: &[(&str, Role)] = &[("read", Role::Read), ("operate", Role::Operate), ("admin", Role::Admin)];

/// What came of reading a `pvc-api.yaml`.
pub type ApiReport = Checked<ApiConfig>;

/// The file's own words when it cannot be read.
const FILE: File = File {
    missing: "PVC_CONFIG_FILE names the configuration file of the API; without it /etc/pvc/pvc-api.yaml is read",
    denied: "the service's user must be able to read it: give it that user's group",
    empty: "packaging/pvc-api.yaml is a file to begin with",
};

/// Checks the text of a `pvc-api.yaml`; `file` is its name for the diagnostics.
pub fn check_api(text: &str, file: &str) -> ApiReport {
    check_file_of(settings::API, text, file, config)
}

/// Reads and checks the configuration file of the API.
pub fn load_api(path: &Path) -> ApiReport {
    files::load_with(path, &FILE, |text, name, warn| {
        check_file_of(settings::API, text, name, |walk| {
            warn(walk);
            config(walk)
        })
    })
}

fn config(walk: &mut Walk<'_>) -> Result<ApiConfig, Told> {
    let root = read::root(walk)?;
    let debug = walk.defaulted(&root, "debug", &kind::switch());
    let coordinators = read::coordinators(walk, &root);
    let api = walk.section(&root, "api")?;
    let address = walk.required(&api, "listen_address", &kind::ip_address());
    let port = walk.defaulted(&api, "listen_port", &kind::short(1..=65535, ""));
    let authentication =
        walk.section(&api, "authentication").and_then(|s| authentication(walk, &s, &address));
    let ssl = ssl(walk, &api);
    let listen = SocketAddr::new(address?.value, port?);
    let coordinators = coordinators?.into_iter().map(|found| found.value).collect();
    Ok(ApiConfig { debug: debug?, coordinators, listen, authentication: authentication?, tls: ssl? })
}

fn authentication(
    walk: &mut Walk<'_>,
    section: &Section,
    address: &Result<Found<IpAddr>, Told>,
) -> Result<Option<Authentication>, Told> {
    let enabled = walk.required(section, "enabled", &kind::switch());
    let secret_key = walk.optional(section, "secret_key", &kind::maybe_secret());
    let open = walk.defaulted(section, "open", &kind::switch());
    if !enabled?.value {
        if let Ok(address) = address {
            mind_the_open_door(walk, address, open?)?;
        }
        // The tokens of an example, which may be empty, are nobody's business.
        return Ok(None);
    }
    let mut tokens = Vec::new();
    let mut refused = None;
    let items = walk.list(section, "tokens", "tokens, each with description and token")?;
    if let Some(beyond) = items.get(MOST_TOKENS) {
        let problem = format!("has more than {MOST_TOKENS} entries");
        let diagnostic = walk.about_key(Severity::Error, beyond, problem);
        return Err(walk.tell(diagnostic));
    }
    for at in items {
        match token(walk, at) {
            Ok(token) => tokens.push(token),
            Err(told) => refused = Some(told),
        }
    }
    refused.map_or(Ok(()), Err)?;
    let secret_key = secret_key?.and_then(|found| found.value);
    Ok(Some(Authentication { secret_key, tokens }))
}

fn mind_the_open_door(walk: &mut Walk<'_>, address: &Found<IpAddr>, open: bool) -> Result<(), Told> {
    if address.value.is_loopback() {
        return Ok(());
    }
    let severity = if open { Severity::Warning } else { Severity::Error };
    let problem = "is open to others than this machine, and authentication is off";
    let help = "whoever reaches the port commands the cluster: enable api.authentication, or listen on 127.0.0.1; to have it so, \
         set api.authentication.open to True";
    let diagnostic = Diagnostic { help: vec![help.to_owned()], ..walk.about(severity, &address.at, problem) };
    let told = walk.tell(diagnostic);
    if open { Ok(()) } else { Err(told) }
}

fn token(walk: &mut Walk<'_>, at: Setting) -> Result<ApiToken, Told> {
    let entry = walk.entry(&at)?;
    let description = walk.required(&entry, "description", &kind::name("words for who has the token"));
    let role = role(walk, &entry);
    let token = walk.required(&entry, "token", &kind::token())?;
    if let Token::Plain(plain) = &token.value
        && plain.reveal().chars().count() < SHORT_TOKEN
    {
        let diagnostic = Diagnostic {
            help: vec!["make one with `openssl rand -hex 32`".to_owned()],
            ..walk.about(Severity::Warning, &token.at, "is so short that it can be guessed")
        };
        walk.tell(diagnostic);
    }
    Ok(ApiToken { description: description?.value, role: role?, token: token.value })
}

/// Old files have none: their tokens may do everything. An empty one is nobody's wish for that.
fn role(walk: &mut Walk<'_>, entry: &Section) -> Result<Role, Told> {
    let Some(found) = walk.optional(entry, "role", &kind::word(ROLES).or_empty())? else {
        return Ok(Role::Admin);
    };
    found.value.ok_or_else(|| {
        let help = vec!["write read, operate or admin".to_owned()];
        walk.tell(Diagnostic { help, ..walk.about(Severity::Error, &found.at, "is empty") })
    })
}

fn ssl(walk: &mut Walk<'_>, api: &Section) -> Result<Option<TlsFiles>, Told> {
    let Some(ssl) = walk.optional_section(api, "ssl")? else { return Ok(None) };
    if !walk.defaulted(&ssl, "enabled", &kind::switch())? {
        return Ok(None);
    }
    let certificate = walk.required(&ssl, "cert_file", &kind::file());
    let key = walk.required(&ssl, "key_file", &kind::file());
    Ok(Some(TlsFiles { certificate: certificate?.value, key: key?.value }))
}
