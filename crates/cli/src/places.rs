//! Where the cluster is: said on the command line, in the environment, by this node's configuration, or in the operator's own file of clusters. Pure but for reading
//! those files.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
};

use pvc_operate::Cluster;
use serde::Deserialize;

use crate::{
    connect::{self, Addresses},
    door::{
        Client, Door, client,
        endpoint::{self, Endpoint, Token},
        own,
    },
    failure::Failure,
};

/// The largest file of clusters.
const MOST: u64 = 1 << 20;

/// What was said of where the cluster is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Said {
    pub(crate) zookeeper: Option<String>,
    pub(crate) api: Option<String>,
    pub(crate) cluster: Option<String>,
    /// Who vouches for the API.
    pub(crate) ca_file: Option<PathBuf>,
    /// What is sent may be read on the way.
    pub(crate) plain_http: bool,
}

/// Where the cluster is.
#[derive(Debug)]
pub(crate) enum Place {
    ZooKeeper(Addresses),
    Api(Api),
}

/// An API, and how to get in.
#[derive(Debug)]
pub(crate) struct Api {
    pub(crate) endpoint: Endpoint,
    ca_file: Option<PathBuf>,
    plain_http: bool,
    token: Option<Token>,
}

/// The operator's file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Clusters {
    /// Which is meant if none is named.
    default: Option<String>,
    #[serde(default)]
    clusters: BTreeMap<String, Entry>,
}

/// A cluster of it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    api: String,
    ca_file: Option<PathBuf>,
    #[serde(default)]
    plain_http: bool,
    token_file: Option<PathBuf>,
}

const CHMOD: &str = "they could have your token sent to them: chmod 600 it";

/// Without the values that it quotes: a token may stand where none belongs.
fn unquoted(message: &str) -> String {
    let parts = message.split('"').enumerate();
    let parts = parts.map(|(at, part)| if at % 2 == 1 { "…" } else { part });
    parts.collect::<Vec<_>>().join("\"")
}

impl Said {
    /// What is said on the command line, else in the environment.
    pub(crate) fn or_environment(self, of: impl Fn(&str) -> Option<String>) -> Result<Self, Failure> {
        let of = |name| of(name).filter(|value| !value.trim().is_empty());
        let ca_file = self.ca_file.or_else(|| of("PVC_CA_FILE").map(PathBuf::from));
        let plain_http = self.plain_http || of("PVC_PLAIN_HTTP").is_some_and(|value| value == "1");
        if self.zookeeper.is_some() || self.api.is_some() || self.cluster.is_some() {
            return Ok(Self { ca_file, plain_http, ..self });
        }
        let (zookeeper, api, cluster) = (of("PVC_ZOOKEEPER"), of("PVC_API"), of("PVC_CLUSTER"));
        if [&zookeeper, &api, &cluster].into_iter().flatten().count() > 1 {
            return Err(Failure::Usage(
                "of PVC_ZOOKEEPER, PVC_API and PVC_CLUSTER more than one is set: which counts? Unset the others, or say -z, --api or --cluster"
                    .to_owned(),
            ));
        }
        Ok(Self { zookeeper, api, cluster, ca_file, plain_http })
    }
}

/// The folder of the operator's own files.
pub(crate) fn folder(of: impl Fn(&str) -> Option<String>) -> Option<PathBuf> {
    let of = |name| of(name).map(PathBuf::from).filter(|path: &PathBuf| path.is_absolute());
    Some(of("XDG_CONFIG_HOME").or_else(|| Some(of("HOME")?.join(".config")))?.join("pvc"))
}

impl Clusters {
    fn file(folder: &Path) -> PathBuf {
        folder.join("config.toml")
    }

    /// Reads it; what is not there says nothing.
    pub(crate) fn read(folder: &Path) -> Result<Self, Failure> {
        let file = Self::file(folder);
        let failed = |cause| Failure::Machine { doing: format!("read {}", file.display()), cause };
        own::check_folder(folder)?;
        let Some(open) = own::open(&file, 0o022, CHMOD)? else { return Ok(Self::default()) };
        let mut text = String::new();
        open.take(MOST).read_to_string(&mut text).map_err(failed)?;
        toml::from_str(&text).map_err(|error| {
            let line = error.span().and_then(|span| text.get(..span.start));
            let line = line.map_or(1, |before| before.matches('\n').count() + 1);
            let message = unquoted(error.message());
            Failure::Usage(format!("{}, line {line}: {message}", file.display()))
        })
    }

    /// The one that is meant, with its name.
    fn meant(&self, named: Option<&str>) -> Result<Option<(&str, &Entry)>, Failure> {
        let names = || self.clusters.keys().map(String::as_str).collect::<Vec<_>>();
        let only = || if let [only] = names()[..] { Some(only) } else { None };
        let Some(name) = named.or(self.default.as_deref()).or_else(only) else {
            return match names()[..] {
                [] => Ok(None),
                _ => Err(Failure::Usage(format!(
                    "which cluster? There are {}: say --cluster NAME, or write default = \"NAME\" into config.toml",
                    names().join(", ")
                ))),
            };
        };
        match self.clusters.get_key_value(name) {
            Some((name, entry)) => Ok(Some((name, entry))),
            None => Err(Failure::Usage(format!(
                "config.toml has no cluster {name:?}; it has {}: `pvc login --cluster {name} https://HOST` adds it",
                if names().is_empty() { "none".to_owned() } else { names().join(", ") }
            ))),
        }
    }

    fn named_for(&self, endpoint: &Endpoint) -> Option<(&str, &Entry)> {
        let is_it = |entry: &Entry| Endpoint::parse(&entry.api).is_ok_and(|known| known == *endpoint);
        self.clusters.iter().find(|(_, entry)| is_it(entry)).map(|(name, entry)| (name.as_str(), entry))
    }

    /// Adds a cluster at the end; what is there stays as it is written.
    fn add(folder: &Path, name: &str, endpoint: &Endpoint, said: &Said) -> Result<(), Failure> {
        let file = Self::file(folder);
        let quoted = |text: &str| serde_json::Value::from(text).to_string();
        let mut text = format!("\n[clusters.{}]\napi = {}\n", quoted(name), quoted(&endpoint.to_string()));
        if let Some(ca) = &said.ca_file {
            let ca = std::path::absolute(ca).unwrap_or_else(|_| ca.clone());
            text.extend(["ca_file = ", &quoted(&ca.to_string_lossy()), "\n"]);
        }
        if said.plain_http {
            text += "plain_http = true\n";
        }
        own::folder(folder)?;
        let written = own::open_to_add(&file, CHMOD)?.write_all(text.as_bytes());
        written.map_err(|cause| Failure::Machine { doing: format!("write {}", file.display()), cause })
    }
}

fn token_file(folder: &Path, name: &str) -> PathBuf {
    folder.join("tokens").join(name)
}

/// A name that can be a file's.
fn checked(name: &str) -> Result<&str, Failure> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if (1..=64).contains(&name.len()) && name.bytes().all(plain) && !name.starts_with('.') {
        return Ok(name);
    }
    Err(Failure::Usage(format!(
        "{name:?} cannot be a cluster's name: 1 to 64 letters, digits, '-', '_' and '.'"
    )))
}

fn kept_token(folder: &Path, name: &str) -> Result<Option<Token>, Failure> {
    own::check_folder(&folder.join("tokens"))?;
    Token::read(&token_file(folder, name))
}

/// The token that the environment has.
fn environment_token(of: impl Fn(&str) -> Option<String>) -> Option<Result<Option<Token>, Failure>> {
    let of = |name| of(name).filter(|value: &String| !value.trim().is_empty());
    match (of("PVC_TOKEN"), of("PVC_TOKEN_FILE")) {
        (Some(token), _) => Some(Token::new(&token).map(Some)),
        (None, Some(file)) => Some(Token::read(Path::new(&file))),
        (None, None) => None,
    }
}

/// The place that is meant.
pub(crate) fn find(
    said: Said,
    of: impl Fn(&str) -> Option<String>,
    folder: Option<&Path>,
) -> Result<Place, Failure> {
    let said = said.or_environment(&of)?;
    if said.zookeeper.is_some() {
        return Ok(Place::ZooKeeper(connect::addresses(said.zookeeper.as_deref())?));
    }
    let is_named = said.api.is_some() || said.cluster.is_some();
    if !is_named && connect::is_node() {
        return Ok(Place::ZooKeeper(connect::addresses(None)?));
    }
    let clusters = folder.map_or_else(|| Ok(Clusters::default()), Clusters::read)?;
    let (endpoint, known) = match &said.api {
        Some(api) => {
            let endpoint = Endpoint::parse(api)?;
            let known = clusters.named_for(&endpoint);
            (endpoint, known)
        }
        None => match clusters.meant(said.cluster.as_deref())? {
            Some((name, entry)) => (Endpoint::parse(&entry.api)?, Some((name, entry))),
            // This says what to do.
            None => return Ok(Place::ZooKeeper(connect::addresses(None)?)),
        },
    };
    // What the environment has is for the address that is named: a configured cluster gets its own.
    let token = match environment_token(&of).filter(|_| said.api.is_some()) {
        Some(token) => token?,
        None => match (known.and_then(|(_, entry)| entry.token_file.as_deref()), folder, known) {
            (Some(file), ..) => Token::read(file)?,
            (None, Some(folder), Some((name, _))) => kept_token(folder, checked(name)?)?,
            _ => None,
        },
    };
    let api = Api {
        endpoint,
        ca_file: said.ca_file.or_else(|| known.and_then(|(_, entry)| entry.ca_file.clone())),
        plain_http: said.plain_http || known.is_some_and(|(_, entry)| entry.plain_http),
        token,
    };
    Ok(Place::Api(api))
}

impl Api {
    /// A client of it. Nothing is asked yet.
    pub(crate) fn client(self) -> Result<Client, Failure> {
        let Self { endpoint, ca_file, plain_http, token } = self;
        if endpoint.is_open() && !plain_http {
            return Err(Failure::Usage(format!(
                "{endpoint} is spoken to without TLS: whoever is on the way could read the token, so nothing was sent. Use https://, or say --plain-http (plain_http = true in config.toml) if that network is yours"
            )));
        }
        let tls =
            if endpoint.is_tls { Some(client::tls(endpoint::roots(ca_file.as_deref())?)?) } else { None };
        Ok(Client::new(endpoint, token, tls))
    }
}

/// A cluster to log in at.
pub(crate) struct Login {
    pub(crate) name: String,
    pub(crate) endpoint: Endpoint,
    is_known: bool,
    folder: PathBuf,
    said: Said,
}

impl Login {
    /// The cluster that is meant: a new one by its address, a known one by its name.
    pub(crate) fn find(
        said: Said,
        of: impl Fn(&str) -> Option<String>,
        folder: PathBuf,
    ) -> Result<Self, Failure> {
        let said = said.or_environment(of)?;
        let clusters = Clusters::read(&folder)?;
        let (name, endpoint, is_known, said) = match (&said.api, &said.cluster) {
            (Some(api), name) => {
                let endpoint = Endpoint::parse(api)?;
                let name = match (name, clusters.named_for(&endpoint)) {
                    (Some(name), _) => name.clone(),
                    (None, Some((name, _))) => name.to_owned(),
                    (None, None) => endpoint.host.replace(':', "-"),
                };
                let known = clusters.clusters.get(&name);
                if known.is_some_and(|known| Endpoint::parse(&known.api).is_ok_and(|known| known != endpoint))
                {
                    return Err(Failure::Usage(format!(
                        "config.toml has a cluster {name} at another address: change it there, or choose another name with --cluster"
                    )));
                }
                let is_known = known.is_some();
                (name, endpoint, is_known, said)
            }
            (None, name) => {
                let meant = clusters.meant(name.as_deref())?;
                let none = || Failure::Usage("where? `pvc login https://HOST`".to_owned());
                let (name, entry) = meant.ok_or_else(none)?;
                let said = Said {
                    ca_file: said.ca_file.clone().or_else(|| entry.ca_file.clone()),
                    plain_http: said.plain_http || entry.plain_http,
                    ..said.clone()
                };
                (name.to_owned(), Endpoint::parse(&entry.api)?, true, said)
            }
        };
        checked(&name)?;
        if let Some(file) = clusters.clusters.get(&name).and_then(|entry| entry.token_file.as_ref()) {
            return Err(Failure::Usage(format!(
                "the token of cluster {name} is the one in {} (token_file in config.toml), which nobody writes but you: change or remove it there",
                file.display()
            )));
        }
        Ok(Self { name, endpoint, is_known, folder, said })
    }

    /// A client that gets in by this token.
    pub(crate) fn client(&self, token: Token) -> Result<Client, Failure> {
        let Said { ca_file, plain_http, .. } = self.said.clone();
        Api { endpoint: self.endpoint.clone(), ca_file, plain_http, token: Some(token) }.client()
    }

    /// Keeps the token, and where the cluster is.
    pub(crate) fn keep(&self, token: &Token) -> Result<(), Failure> {
        token.write(&token_file(&self.folder, &self.name))?;
        if self.is_known {
            Ok(())
        } else {
            Clusters::add(&self.folder, &self.name, &self.endpoint, &self.said)
        }
    }

    /// Forgets the token; whether there was one.
    pub(crate) fn forget(&self) -> Result<bool, Failure> {
        let file = token_file(&self.folder, &self.name);
        match fs::remove_file(&file) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(cause) => Err(Failure::Machine { doing: format!("remove {}", file.display()), cause }),
        }
    }
}

/// Goes there.
pub(crate) async fn enter(place: Place) -> Result<Door, Failure> {
    match place {
        Place::ZooKeeper(addresses) => Ok(Door::Direct(connect::connect(addresses).await?)),
        Place::Api(api) => Ok(Door::Api(api.client()?)),
    }
}

/// The state store itself, for what only a node does.
pub(crate) fn only_direct<'d>(door: &'d Door, what: &'static str) -> Result<&'d Cluster, Failure> {
    match door {
        Door::Direct(cluster) => Ok(cluster),
        Door::Api(_) => Err(Failure::NodeOnly(what)),
    }
}

#[cfg(test)]
mod tests;
