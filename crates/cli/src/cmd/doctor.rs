//! `pvc doctor`: what is wrong, as this node sees it (`pvcd --examine`), and as the cluster says (`pvc status`). The node comes first and needs no
//! cluster: where nothing answers, that is what is asked about.

use std::{path::Path, process::Stdio, time::Duration};

use pvc_core::command::{
    checkup::Checkup,
    status::{Finding, Level},
};
use serde::Serialize;
use tokio::{process::Command, time::timeout};

use super::{now_unix_s, status};
use crate::{
    connect,
    failure::Failure,
    print::{
        Out,
        table::{Cell, Look, printable, words},
    },
};

/// Where the package has it.
const PVCD: &str = "/usr/sbin/pvcd";

/// Longer than all of the daemon's looks one after the other, beside eight dead BMCs at once.
const WITHIN: Duration = Duration::from_mins(3);

/// What was found.
#[derive(Serialize)]
struct Doctor {
    /// `None`: this is no node.
    node: Option<Checkup>,
    cluster: Vec<Finding>,
}

pub(super) async fn doctor(zookeeper: Option<&str>, out: &Out) -> Result<(), Failure> {
    out.progress("looking at this node, its neighbours and its services; a BMC may take 12 s");
    let node = checkup(Path::new(PVCD)).await;
    out.progress_done();
    let mut cluster = cluster(zookeeper).await.unwrap_or_else(|error| {
        vec![Finding {
            level: Level::Wrong,
            what: format!("the cluster was not asked: {}", error.with_causes()),
            todo: Some("pvc -z HOST:PORT status".into()),
        }]
    });
    let node = node.unwrap_or_else(|finding| {
        cluster.push(finding);
        None
    });
    let doctor = Doctor { node, cluster };
    if out.is_json() {
        out.json(&doctor)?;
    } else {
        out.write(&people(&doctor, out.colour()))?;
    }
    match doctor.findings().filter(|finding| finding.level == Level::Wrong).count() {
        0 => Ok(()),
        wrong => Err(Failure::Found(wrong)),
    }
}

impl Doctor {
    fn findings(&self) -> impl Iterator<Item = &Finding> {
        self.node.iter().flat_map(|node| &node.findings).chain(&self.cluster)
    }
}

async fn cluster(zookeeper: Option<&str>) -> Result<Vec<Finding>, Failure> {
    let cluster = connect::connect(connect::addresses(zookeeper)?).await?;
    let status = pvc_operate::status::status(&cluster, now_unix_s()).await;
    connect::close(cluster).await;
    Ok(status?.findings)
}

/// What this node finds; `None` where there is no daemon; or why it was not looked at.
#[allow(clippy::disallowed_methods, reason = "the daemon's own program, with a deadline")]
async fn checkup(pvcd: &Path) -> Result<Option<Checkup>, Finding> {
    if !pvcd.exists() {
        return Ok(None);
    }
    let failed = |why: &str| Finding {
        level: Level::Wrong,
        what: format!("this node was not looked at: {}", printable(why.trim())),
        todo: Some("run this as root; pvcd --check-config".into()),
    };
    let run = Command::new(pvcd).arg("--examine").stdin(Stdio::null()).kill_on_drop(true).output();
    let ended = match timeout(WITHIN, run).await {
        Ok(ended) => ended.map_err(|error| failed(&error.to_string()))?,
        Err(_) => return Err(failed(&format!("pvcd --examine did not end within {} s", WITHIN.as_secs()))),
    };
    if !ended.status.success() {
        return Err(failed(&String::from_utf8_lossy(&ended.stderr)));
    }
    serde_json::from_slice(&ended.stdout).map(Some).map_err(|error| failed(&error.to_string()))
}

fn people(doctor: &Doctor, colour: bool) -> String {
    let plus = words(&Cell::new("+", Look::Good), colour);
    let well = |what: &str| format!("  {plus} {}\n", printable(what));
    let findings =
        |of: &[Finding]| of.iter().map(|finding| status::line(finding, colour)).collect::<String>();
    let node = match &doctor.node {
        Some(node) => {
            let headline = format!("This node, {}. As it should be: {}.\n", node.node, node.fine.len());
            let fine = node.fine.iter().map(|fine| well(fine)).collect::<String>();
            headline + &fine + &findings(&node.findings)
        }
        None => "This machine is no node: only the cluster was asked.\n".to_owned(),
    };
    let cluster = if doctor.cluster.is_empty() { well("all is well") } else { findings(&doctor.cluster) };
    format!("{node}\nThe cluster:\n{cluster}")
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::*;

    /// A program in the daemon's place.
    fn program(script: &str) -> tempfile::TempPath {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(file.path(), fs::Permissions::from_mode(0o700)).unwrap();
        file.into_temp_path()
    }

    #[tokio::test]
    async fn what_the_node_found_is_shown_before_what_the_cluster_says() {
        let pvcd = program(
            r#"[ "$1" = --examine ] && echo '{"node": "hv1", "fine": ["Ceph"], "findings": [{"level": "wrong", "what": "no ipmitool", "todo": "apt install ipmitool"}]}'"#,
        );
        let node = checkup(&pvcd).await.unwrap();
        let cluster = vec![Finding { level: Level::Notice, what: "maintenance is on".into(), todo: None }];
        assert_eq!(
            people(&Doctor { node, cluster }, false),
            "This node, hv1. As it should be: 1.\n  + Ceph\n  ! no ipmitool  (apt install ipmitool)\n\n\
             The cluster:\n  - maintenance is on\n"
        );
    }

    #[tokio::test]
    async fn a_daemon_that_cannot_look_is_a_finding_and_a_machine_without_one_is_none() {
        let pvcd = program("echo 'error: pvc.node is missing' >&2; exit 78");
        let finding = checkup(&pvcd).await.unwrap_err();
        assert_eq!(finding.what, "this node was not looked at: error: pvc.node is missing");
        let finding = checkup(&program("echo nonsense")).await.unwrap_err();
        assert!(finding.what.starts_with("this node was not looked at: expected"), "{finding:?}");
        assert_eq!(checkup(Path::new("/nowhere/pvcd")).await, Ok(None));
    }
}
