//! What happened when, in one list for people: the faults, the machines, the state tree, QEMU processes, floating addresses.
//! Leaves out what only says that a node lives.

use std::{
    collections::BTreeMap,
    fmt::Write,
    time::{Duration, SystemTime},
};

use super::evidence::{Evidence, Happening};
use crate::observers::tree::Change;

/// Keys that change all the time, or are nobody's business.
const NOISE: &[&str] = &[
    "/keepalive",
    "/memtotal",
    "/memused",
    "/memfree",
    "/memalloc",
    "/vcpualloc",
    "/cpuload",
    "/networkscount",
    "/domainscount",
    "/consolelog",
    "/xml",
    "/staticdata",
    "/ipmihostname",
    "/ipmiusername",
    "/ipmipassword",
    "/pvc/placement",
];
/// Values beyond this are cut.
const LONGEST: usize = 200;

/// The list, in seconds since `zero`.
pub(super) fn timeline(evidence: &Evidence, notes: &[Happening], zero: SystemTime) -> String {
    let mut events: Vec<(SystemTime, &str, String)> = Vec::new();
    events.extend(notes.iter().map(|note| (note.at, "test", note.what.clone())));
    events
        .extend(evidence.machines.iter().map(|happening| (happening.at, "machines", happening.what.clone())));
    let vms = evidence.history.vms();
    let vm = |uuid: &str| vms.get(uuid).cloned().unwrap_or_else(|| uuid.to_owned());
    for life in &evidence.lives {
        let kind = if life.incoming { "for an incoming guest" } else { "" };
        events.push((life.began, "qemu", format!("{}: process on {} {kind}", vm(&life.vm), life.node)));
        if let Some(ended) = life.ended {
            events.push((ended, "qemu", format!("{}: process on {} is gone", vm(&life.vm), life.node)));
        }
    }
    for (address, tenures) in &evidence.tenures {
        for tenure in tenures {
            events.push((tenure.came, "address", format!("{address} is on {}", tenure.node)));
            if let Some(went) = tenure.went {
                events.push((went, "address", format!("{address} is gone from {}", tenure.node)));
            }
        }
    }
    events.extend(tree(evidence, &vms));
    events.sort_by_key(|(at, ..)| *at);
    let mut text = String::new();
    for (at, source, what) in events {
        let _ = writeln!(text, "{:>10.3}  {source:<8}  {}", seconds(at, zero), what.trim_end());
    }
    text
}

fn tree<'a>(
    evidence: &'a Evidence,
    vms: &'a BTreeMap<String, String>,
) -> impl Iterator<Item = (SystemTime, &'static str, String)> + 'a {
    let daemons = evidence.history.daemons();
    let shown = move |path: &str| {
        let mut path = path.to_owned();
        for (uuid, name) in vms {
            path = path.replace(uuid, name);
        }
        path
    };
    let noise =
        |change: &Change| change.before == change.after || NOISE.iter().any(|key| change.path.ends_with(key));
    evidence.history.changes().filter(move |(_, change)| !noise(change)).map(move |(transaction, change)| {
        let by = daemons.get(&transaction.session).map_or("client", String::as_str);
        let value = match &change.after {
            Some(value) => {
                format!("= {}", value.chars().take(LONGEST).collect::<String>().replace('\n', " "))
            }
            None => "is gone".to_owned(),
        };
        (transaction.at, "tree", format!("{by}: {} {}", shown(&change.path), shown(&value)))
    })
}

fn seconds(at: SystemTime, zero: SystemTime) -> f64 {
    match at.duration_since(zero) {
        Ok(later) => later.as_secs_f64(),
        Err(earlier) => -Duration::as_secs_f64(&earlier.duration()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observers::tree::{History, Transaction};

    #[test]
    fn the_list_is_in_order_names_vms_and_writers_and_leaves_out_signs_of_life() {
        let zero = SystemTime::now();
        let change =
            |path: &str, after: &str| Change { path: path.into(), before: None, after: Some(after.into()) };
        let transaction = |ms, session, changes| Transaction {
            zxid: 1,
            at: zero + Duration::from_millis(ms),
            session,
            changes,
        };
        let history = History {
            transactions: vec![
                transaction(0, 1, vec![change("/pvc/daemon/node1", "{}")]),
                transaction(0, 2, vec![change("/domains/uuid", "vm1")]),
                transaction(1500, 1, vec![change("/pvc/claim/uuid", "node1")]),
                transaction(1600, 1, vec![change("/nodes/node1/keepalive", "17")]),
            ],
        };
        let note = Happening { at: zero - Duration::from_secs(1), what: "it begins".into() };
        let evidence = Evidence { history, ..Evidence::default() };
        let text = timeline(&evidence, &[note], zero);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], "    -1.000  test      it begins");
        assert_eq!(lines[3], "     1.500  tree      node1: /pvc/claim/vm1 = node1");
        assert_eq!(lines.len(), 4, "{text}");
    }
}
