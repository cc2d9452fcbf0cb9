//! What settings demand of each other, and the configuration that comes out when all is well.
//!
//! A rule whose settings were themselves wrong says nothing: one mistake is told once.

mod bgp;
mod interface;
mod network;

use crate::{
    config::{Config, Directories, FenceAction, FenceActions, Intervals, PerNetwork},
    diagnostic::{Diagnostic, Severity},
    read::{Draft, DraftIntervals},
    walk::{Found, Read, Told, Walk},
};

/// Checks the draft and makes the configuration of it, if nothing is wrong.
pub(crate) fn settle(walk: &mut Walk<'_>, draft: Draft) -> Result<Config, Told> {
    let networks = network::networks(walk, &draft);
    let interfaces = interface::interfaces(walk, &draft);
    let bgp = bgp::site(walk, &draft, &interfaces);
    warn_of_an_unreachable_api(walk, &draft);
    let Draft { debug, node, functions, coordinators, dns_database, system, .. } = draft;
    let system = system?;
    let fencing = fencing(walk, &system.intervals, system.successful_fence, system.failed_fence);
    let intervals = intervals(&system.intervals);
    let [dynamic, log, console_log] = system.directories;
    let directories =
        || Ok(Directories { dynamic: dynamic?.value, log: log?.value, console_log: console_log?.value });
    Ok(Config {
        debug: debug?,
        node: node?.value,
        functions: functions?,
        coordinators: coordinators?.into_iter().map(|found| found.value).collect(),
        networks: networks?,
        dns_database: dns_database?,
        bgp: bgp?,
        intervals: intervals?,
        fencing: fencing?,
        ipmi: system.ipmi?,
        target_selector: system.target_selector?.value,
        limits: system.limits?,
        directories: directories()?,
        logging: system.logging?,
        metrics: system.metrics?,
        interfaces: interfaces?,
    })
}

fn intervals(draft: &DraftIntervals) -> Result<Intervals, Told> {
    let value = |read: &Read<u32>| read.as_ref().map(|found| found.value).map_err(|told| *told);
    Ok(Intervals {
        keepalive_interval_s: value(&draft.keepalive)?,
        fence_intervals: value(&draft.fence)?,
        suicide_intervals: value(&draft.suicide)?,
    })
}

fn fencing(
    walk: &mut Walk<'_>,
    intervals: &DraftIntervals,
    successful: Read<FenceAction>,
    failed: Read<FenceAction>,
) -> Result<FenceActions, Told> {
    let mut refused = None;
    if let (Ok(failed), Ok(suicide)) = (&failed, &intervals.suicide)
        && failed.value == FenceAction::Migrate
        && suicide.value == 0
    {
        let diagnostic = Diagnostic {
            allowed: Some(format!("None, or migrate together with {} above 0", suicide.at.path)),
            help: vec![
                format!("{} is 0 in line {}", suicide.at.path, suicide.at.line()),
                "a node whose fencing failed may still be running its VMs; only its resetting itself ends them, and \
                 starting them twice destroys their disks"
                    .to_owned(),
            ],
            ..walk.about(Severity::Error, &failed.at, "is not safe without suicide_intervals")
        };
        refused = Some(walk.tell(diagnostic));
    }
    if let (Ok(fence), Ok(suicide)) = (&intervals.fence, &intervals.suicide) {
        if fence.value > 0 && suicide.value > fence.value {
            let problem =
                format!("is more than {} ({}, line {})", fence.at.path, fence.value, fence.at.line());
            let help = "a silent node should reset itself before, not after, the others fence it".to_owned();
            let diagnostic =
                Diagnostic { help: vec![help], ..walk.about(Severity::Warning, &suicide.at, problem) };
            walk.tell(diagnostic);
        }
        for found in [fence, suicide].into_iter().filter(|found| found.value == 1) {
            warn_of_haste(walk, found);
        }
    }
    refused.map_or(Ok(()), Err)?;
    Ok(FenceActions { successful: successful?.value, failed: failed?.value })
}

fn warn_of_haste(walk: &mut Walk<'_>, found: &Found<u32>) {
    let help = "a single keepalive that comes late resets a healthy node; 6 is usual".to_owned();
    let problem = "leaves no room for a late keepalive";
    let diagnostic = Diagnostic { help: vec![help], ..walk.about(Severity::Warning, &found.at, problem) };
    walk.tell(diagnostic);
}

/// The API listens on the floating addresses: without any it listens nowhere.
fn warn_of_an_unreachable_api(walk: &mut Walk<'_>, draft: &Draft) {
    let (Ok(functions), Ok(networks)) = (&draft.functions, &draft.networks) else { return };
    let has_floating = |networks: &PerNetwork<Result<crate::read::DraftNetwork, Told>>| {
        networks.iter().any(|(_, n)| {
            n.as_ref().map_or(true, |n| !matches!((&n.floating_ip, &n.floating_ip6), (Ok(None), Ok(None))))
        })
    };
    if functions.api && !networks.as_ref().is_some_and(has_floating) {
        let problem =
            "functions.enable_api is True, but no network has a floating_ip or floating_ip6".to_owned();
        let help = "the API is served on the floating addresses, so nobody will reach it".to_owned();
        let diagnostic = Diagnostic { help: vec![help], ..walk.whole_file(Severity::Warning, problem) };
        walk.tell(diagnostic);
    }
}
