//! The whole file, read section by section into a draft in which every value still knows its place.
//!
//! Nothing here looks from one section to another: that is `relations`' business.

mod bgp;
mod network;
mod system;

use pvc_core::model::name::NodeName;

use crate::{
    config::{DnsDatabase, Functions},
    coordinators::Coordinator,
    diagnostic::{Diagnostic, Severity},
    kind,
    tree::Content,
    walk::{Found, Section, Setting, Told, Walk},
};

pub(crate) use bgp::DraftSite;
pub(crate) use network::{DraftInterface, DraftNetwork, DraftPerNetwork};
pub(crate) use system::{DraftIntervals, DraftSystem};

/// ZooKeeper's ensembles are far smaller.
pub(crate) const MOST_COORDINATORS: usize = 99;

/// What was read. A part that was wrong or is missing is `Err`: it has been told.
pub(crate) struct Draft {
    pub(crate) debug: Result<bool, Told>,
    pub(crate) node: Result<Found<NodeName>, Told>,
    pub(crate) functions: Result<Functions, Told>,
    pub(crate) coordinators: Result<Vec<Found<Coordinator>>, Told>,
    /// Absent ones are `Ok(None)`; whether they may be is checked here.
    pub(crate) networks: Result<Option<DraftPerNetwork<DraftNetwork>>, Told>,
    pub(crate) dns_database: Result<Option<DnsDatabase>, Told>,
    pub(crate) bgp: Result<Option<DraftSite>, Told>,
    pub(crate) system: Result<DraftSystem, Told>,
}

/// Reads everything below `pvc:`.
pub(crate) fn draft(walk: &mut Walk<'_>) -> Result<Draft, Told> {
    let root = root(walk)?;
    let debug = walk.defaulted(&root, "debug", &kind::switch());
    let node = walk.required(&root, "node", &kind::node_name());
    let (functions, networking) = functions(walk, &root);
    let (coordinators, networks) = match walk.section(&root, "cluster") {
        Ok(cluster) => (coordinators(walk, &cluster), network::networks(walk, &cluster, networking)),
        Err(told) => (Err(told), Err(told)),
    };
    let (dns_database, bgp) = match optional_unless(walk, &root, "coordinator", networking) {
        Ok(Some(coordinator)) => (dns_database(walk, &coordinator).map(Some), bgp::bgp(walk, &coordinator)),
        Ok(None) => (Ok(None), Ok(None)),
        Err(told) => (Err(told), Err(told)),
    };
    let system = system::system(walk, &root, networking);
    Ok(Draft { debug, node, functions, coordinators, networks, dns_database, bgp, system })
}

/// The section `pvc`, which holds everything.
pub(crate) fn root(walk: &mut Walk<'_>) -> Result<Section, Told> {
    let problem = match walk.tree.root.map(|top| (top, walk.tree.content(top))) {
        Some((top, Content::Map(_))) => return walk.root(top),
        None => "the file holds no settings",
        Some((_, Content::Scalar(scalar))) if scalar.is_none() => "the file holds no settings",
        Some(_) => "the file is not a section of settings",
    };
    let diagnostic = Diagnostic {
        allowed: Some("the sections of the manual below 'pvc:'".to_owned()),
        ..walk.whole_file(Severity::Error, problem.to_owned())
    };
    Err(walk.tell(diagnostic))
}

/// The switches, and whether networking is on as far as is known: it decides what may be absent.
fn functions(walk: &mut Walk<'_>, root: &Section) -> (Result<Functions, Told>, Option<bool>) {
    let section = match walk.section(root, "functions") {
        Ok(section) => section,
        Err(told) => return (Err(told), None),
    };
    let mut required = |name| walk.required(&section, name, &kind::switch()).map(|f| f.value);
    let hypervisor = required("enable_hypervisor");
    let networking = required("enable_networking");
    let storage = required("enable_storage");
    let api = walk.defaulted(&section, "enable_api", &kind::switch());
    let all =
        || Ok(Functions { hypervisor: hypervisor?, networking: networking?, storage: storage?, api: api? });
    (all(), networking.ok())
}

/// The list `coordinators`: those that could be read, or `Err` if one could not.
pub(crate) fn coordinators(walk: &mut Walk<'_>, parent: &Section) -> Result<Vec<Found<Coordinator>>, Told> {
    let items = walk.list(parent, "coordinators", "coordinator hosts")?;
    if items.len() > MOST_COORDINATORS {
        let whole = Setting { path: parent.path_of("coordinators"), item: items[MOST_COORDINATORS].item };
        let problem = format!("has {} entries", items.len());
        let diagnostic = Diagnostic {
            allowed: Some(format!("at most {MOST_COORDINATORS}; 3 or 5 are usual")),
            ..walk.about(Severity::Error, &whole, problem)
        };
        return Err(walk.tell(diagnostic));
    }
    let mut all = Ok(Vec::new());
    let mut seen: Vec<Found<Coordinator>> = Vec::new();
    for at in items {
        let found = match walk.value(at.clone(), &kind::coordinator()) {
            Ok(Some(found)) => found,
            Ok(None) => {
                let diagnostic = Diagnostic {
                    allowed: Some(kind::coordinator().allowed),
                    ..walk.about(Severity::Error, &at, "is empty")
                };
                all = Err(walk.tell(diagnostic));
                continue;
            }
            Err(told) => {
                all = Err(told);
                continue;
            }
        };
        if let Some(earlier) = seen.iter().find(|c| c.value.is_same_host(&found.value)) {
            let problem = format!("names the same coordinator as line {}", earlier.at.line());
            let help = "remove one: a coordinator has one vote".to_owned();
            let diagnostic =
                Diagnostic { help: vec![help], ..walk.about(Severity::Error, &found.at, problem) };
            all = Err(walk.tell(diagnostic));
        }
        seen.push(found);
    }
    all.map(|_: Vec<()>| seen)
}

fn dns_database(walk: &mut Walk<'_>, coordinator: &Section) -> Result<DnsDatabase, Told> {
    let dns = walk.section(coordinator, "dns")?;
    let database = walk.section(&dns, "database")?;
    let host = walk.required(&database, "host", &kind::host());
    let port = walk.required(&database, "port", &kind::short(1..=65535, ""));
    let name = walk.required(&database, "name", &kind::name("the name of a PostgreSQL database"));
    let user = walk.required(&database, "user", &kind::name("a user of the PostgreSQL database"));
    let pass = walk.required(&database, "pass", &kind::secret());
    Ok(DnsDatabase {
        host: host?.value,
        port: port?.value,
        name: name?.value,
        user: user?.value,
        pass: pass?.value,
    })
}

/// A section that may be absent only if networking is off; unknown (because that switch is wrong) counts as off, so that
/// one mistake is not told as several.
pub(crate) fn optional_unless(
    walk: &mut Walk<'_>,
    parent: &Section,
    name: &str,
    networking: Option<bool>,
) -> Result<Option<Section>, Told> {
    let section = walk.optional_section(parent, name)?;
    if section.is_none() && networking == Some(true) {
        let allowed = format!(
            "{}; optional only if functions.enable_networking is False",
            walk.schema.a_section(&parent.path_of(name))
        );
        return Err(walk.missing(parent, name, &allowed));
    }
    Ok(section)
}
