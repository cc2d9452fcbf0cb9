//! `system`: intervals, fencing, migration, directories, logging and this node's networks.

use std::{net::SocketAddr, path::PathBuf};

use pvc_core::{
    model::KEEPALIVE_INTERVAL_S,
    plan::{flush::Limits, placement::Selector},
};

use super::network::{self, DraftInterface, DraftPerNetwork};
use crate::{
    config::{FenceAction, Ipmi, Logging},
    diagnostic::{Diagnostic, Severity},
    kind::{self, Kind},
    walk::{Found, Read, Section, Told, Walk},
};

/// Bounds of the counts of intervals.
const INTERVALS: std::ops::RangeInclusive<u32> = 0..=10_000;
/// More at once only makes each slower, and each guest's memory is sent over more often.
const MIGRATIONS: std::ops::RangeInclusive<u32> = 1..=32;
/// No console log of more lines fits in a ZooKeeper key.
const CONSOLE_LOG_LINES: std::ops::RangeInclusive<u32> = 0..=1_000_000;
/// KiB a second. A log has up to 900 KiB, and is written once a second at most.
const CONSOLE_LOG_RATE: std::ops::RangeInclusive<u32> = 1..=1_000_000;
/// The numbers that IPMI 2.0 gives to cipher suites (table 22-20), without 0, which is no protection at all.
const CIPHER_SUITES: std::ops::RangeInclusive<u32> = 1..=17;
/// IPMI 2.0's longest password.
const IPMI_PASSWORD_BYTES: usize = 20;

const FENCE_ACTIONS: &[(&str, FenceAction)] =
    &[("migrate", FenceAction::Migrate), ("None", FenceAction::Nothing)];
const TARGET_SELECTORS: &[(&str, Selector)] =
    &[("mem", Selector::Mem), ("vcpus", Selector::Vcpus), ("load", Selector::Load), ("vms", Selector::Vms)];

/// Everything below `system`.
pub(crate) struct DraftSystem {
    pub(crate) intervals: DraftIntervals,
    pub(crate) successful_fence: Read<FenceAction>,
    pub(crate) failed_fence: Read<FenceAction>,
    pub(crate) ipmi: Result<Ipmi, Told>,
    pub(crate) target_selector: Read<Selector>,
    pub(crate) limits: Result<Limits, Told>,
    /// In the order of the manual: dynamic, log, console log.
    pub(crate) directories: [Read<PathBuf>; 3],
    pub(crate) logging: Result<Logging, Told>,
    pub(crate) metrics: Result<Option<SocketAddr>, Told>,
    pub(crate) interfaces: Result<Option<DraftPerNetwork<DraftInterface>>, Told>,
}

/// The intervals, from either of their two places.
pub(crate) struct DraftIntervals {
    pub(crate) keepalive: Read<u32>,
    pub(crate) fence: Read<u32>,
    pub(crate) suicide: Read<u32>,
}

pub(super) fn system(
    walk: &mut Walk<'_>,
    root: &Section,
    networking: Option<bool>,
) -> Result<DraftSystem, Told> {
    let system = walk.section(root, "system")?;
    let fencing = walk.section(&system, "fencing");
    let intervals = intervals(walk, &system, fencing.as_ref().ok());
    let (successful_fence, failed_fence, ipmi) = match fencing {
        Ok(fencing) => {
            let (successful, failed) = actions(walk, &fencing);
            (successful, failed, ipmi(walk, &fencing))
        }
        Err(told) => (Err(told), Err(told), Err(told)),
    };
    let (target_selector, limits) = match walk.section(&system, "migration") {
        Ok(migration) => (
            walk.required(&migration, "target_selector", &kind::word(TARGET_SELECTORS)),
            limits(walk, &migration),
        ),
        Err(told) => (Err(told), Err(told)),
    };
    let (directories, logging, metrics, interfaces) = match walk.section(&system, "configuration") {
        Ok(configuration) => (
            directories(walk, &configuration),
            logging(walk, &configuration),
            metrics(walk, &configuration),
            network::interfaces(walk, &configuration, networking),
        ),
        Err(told) => ([Err(told), Err(told), Err(told)], Err(told), Err(told), Err(told)),
    };
    Ok(DraftSystem {
        intervals,
        successful_fence,
        failed_fence,
        ipmi,
        target_selector,
        limits,
        directories,
        logging,
        metrics,
        interfaces,
    })
}

/// The manual's example has the intervals under `system.fencing`, its reference under `system`: either will do.
fn intervals(walk: &mut Walk<'_>, system: &Section, fencing: Option<&Section>) -> DraftIntervals {
    let below_fencing = fencing.map(|f| walk.optional_section(f, "intervals"));
    let below_system = walk.optional_section(system, "intervals");
    let told = [below_fencing.as_ref(), Some(&below_system)]
        .into_iter()
        .flatten()
        .find_map(|s| s.as_ref().err().copied());
    let sections: Vec<Section> =
        [below_fencing, Some(below_system)].into_iter().flatten().filter_map(|s| s.ok().flatten()).collect();
    if sections.is_empty() {
        let told = told.unwrap_or_else(|| {
            let allowed = walk.schema.a_section("system.intervals");
            match fencing {
                Some(fencing) => walk.missing(fencing, "intervals", &allowed),
                None => walk.missing(system, "intervals", &allowed),
            }
        });
        return DraftIntervals { keepalive: Err(told), fence: Err(told), suicide: Err(told) };
    }
    let count = |what: &str| kind::whole(INTERVALS, what);
    DraftIntervals {
        keepalive: interval(
            walk,
            &sections,
            "keepalive_interval",
            &kind::whole(KEEPALIVE_INTERVAL_S, " of seconds"),
        ),
        fence: interval(walk, &sections, "fence_intervals", &count(" of keepalives (0 = never fence)")),
        suicide: interval(walk, &sections, "suicide_intervals", &count(" of keepalives (0 = never)")),
    }
}

fn interval(walk: &mut Walk<'_>, sections: &[Section], name: &str, kind: &Kind<u32>) -> Read<u32> {
    let mut first: Option<Found<u32>> = None;
    let mut told = None;
    for section in sections {
        match (walk.optional(section, name, kind), &first) {
            (Ok(Some(found)), None) => first = Some(found),
            (Ok(Some(found)), Some(earlier)) if found.value != earlier.value => {
                let problem = format!("contradicts {} in line {}", earlier.at.path, earlier.at.line());
                let help = format!("that one says {}; keep one of the two", earlier.value);
                let diagnostic =
                    Diagnostic { help: vec![help], ..walk.about(Severity::Error, &found.at, problem) };
                told = Some(walk.tell(diagnostic));
            }
            (Ok(_), _) => {}
            (Err(error), _) => told = Some(error),
        }
    }
    match (told, first) {
        (Some(told), _) => Err(told),
        (None, Some(found)) => Ok(found),
        (None, None) => Err(walk.missing(&sections[0], name, &kind.allowed)),
    }
}

fn actions(walk: &mut Walk<'_>, fencing: &Section) -> (Read<FenceAction>, Read<FenceAction>) {
    let actions = match walk.section(fencing, "actions") {
        Ok(actions) => actions,
        Err(told) => return (Err(told), Err(told)),
    };
    let mut action = |name| walk.required(&actions, name, &kind::word(FENCE_ACTIONS));
    (action("successful_fence"), action("failed_fence"))
}

fn ipmi(walk: &mut Walk<'_>, fencing: &Section) -> Result<Ipmi, Told> {
    let ipmi = walk.section(fencing, "ipmi")?;
    let host = walk.required(&ipmi, "host", &kind::host());
    let user = walk.required(&ipmi, "user", &kind::name("a user of the IPMI interface"));
    let pass = walk.required(&ipmi, "pass", &kind::secret());
    if let Ok(pass) = &pass
        && pass.value.reveal().len() > IPMI_PASSWORD_BYTES
    {
        let problem = format!("is longer than IPMI allows ({IPMI_PASSWORD_BYTES} bytes)");
        let help = "fencing this node would fail: set a shorter one in the BMC".to_owned();
        let diagnostic = Diagnostic { help: vec![help], ..walk.about(Severity::Warning, &pass.at, problem) };
        walk.tell(diagnostic);
    }
    let cipher_suite =
        walk.optional(&ipmi, "cipher_suite", &kind::whole(CIPHER_SUITES, " (IPMI cipher suite)"));
    let cipher_suite = cipher_suite.map(|found| found.and_then(|found| u8::try_from(found.value).ok()));
    Ok(Ipmi { host: host?.value, user: user?.value, pass: pass?.value, cipher_suite: cipher_suite? })
}

fn directories(walk: &mut Walk<'_>, configuration: &Section) -> [Read<PathBuf>; 3] {
    match walk.section(configuration, "directories") {
        Ok(section) => ["dynamic_directory", "log_directory", "console_log_directory"]
            .map(|name| walk.required(&section, name, &kind::directory())),
        Err(told) => [Err(told), Err(told), Err(told)],
    }
}

fn limits(walk: &mut Walk<'_>, migration: &Section) -> Result<Limits, Told> {
    let mut limit = |name| {
        let limit = walk.defaulted(migration, name, &kind::whole(MIGRATIONS, " of migrations at once"))?;
        usize::try_from(limit).map_err(|_| Told)
    };
    let (outgoing, incoming) = (limit("outgoing_limit"), limit("incoming_limit"));
    Ok(Limits { outgoing: outgoing?, incoming: incoming? })
}

fn metrics(walk: &mut Walk<'_>, configuration: &Section) -> Result<Option<SocketAddr>, Told> {
    let Some(section) = walk.optional_section(configuration, "metrics")? else {
        return Ok(None);
    };
    Ok(walk.optional(&section, "listen", &kind::loopback())?.map(|found| found.value))
}

fn logging(walk: &mut Walk<'_>, configuration: &Section) -> Result<Logging, Told> {
    let section = walk.section(configuration, "logging")?;
    let mut switch = |name| walk.required(&section, name, &kind::switch());
    let file = switch("file_logging");
    let stdout = switch("stdout_logging");
    let colours = switch("log_colours");
    let dates = switch("log_dates");
    let keepalives = switch("log_keepalives");
    let cluster_details = switch("log_keepalive_cluster_details");
    let storage_details = switch("log_keepalive_storage_details");
    let lines = walk.required(&section, "console_log_lines", &kind::whole(CONSOLE_LOG_LINES, " of lines"));
    let mut rate = |name| {
        let kib = walk.defaulted(&section, name, &kind::whole(CONSOLE_LOG_RATE, " of KiB a second"));
        kib.map(|kib| u64::from(kib) * 1024)
    };
    let (vm_rate, node_rate) = (rate("console_log_vm_rate"), rate("console_log_node_rate"));
    if let (Ok(file), Ok(stdout)) = (&file, &stdout)
        && !file.value
        && !stdout.value
    {
        let problem = "is False, and so is file_logging: nothing is logged";
        let help = "enable one of them to learn what the daemon does".to_owned();
        let diagnostic =
            Diagnostic { help: vec![help], ..walk.about(Severity::Warning, &stdout.at, problem) };
        walk.tell(diagnostic);
    }
    Ok(Logging {
        file: file?.value,
        stdout: stdout?.value,
        colours: colours?.value,
        dates: dates?.value,
        keepalives: keepalives?.value,
        keepalive_cluster_details: cluster_details?.value,
        keepalive_storage_details: storage_details?.value,
        console_log_lines: lines?.value,
        console_log_vm_rate: vm_rate?,
        console_log_node_rate: node_rate?,
    })
}
