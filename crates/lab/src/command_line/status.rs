//! `lab status`: one line a node, from outside and from within.
//! Asks all nodes at once and gives up on a silent one after seconds, so that a broken lab can be looked at.

use std::{fmt::Write, thread, time::Duration};

use anyhow::Result;
use pvc_lab::{Behaviour, Lab, Node, devices::control::Machine};

const PATIENCE: Duration = Duration::from_secs(5);
const HEADINGS: [&str; 7] = ["NODE", "POWER", "NETWORK", "BMC", "ZOOKEEPER", "PVCD", "VMS"];

type Row = [String; 7];

/// The table, and what is dropped.
pub(crate) fn status(lab: &Lab) -> Result<String> {
    let machines = lab.machines()?;
    let rows: Vec<Row> = thread::scope(|scope| {
        let asked: Vec<_> = lab
            .nodes()
            .into_iter()
            .map(|node| {
                let machine = machines.nodes.get(&node.number().get()).copied().unwrap_or_default();
                scope.spawn(move || row(lab, &node, machine))
            })
            .collect();
        asked
            .into_iter()
            .map(|row| row.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    });
    let mut text = table(&rows);
    for dropped in &machines.dropped {
        writeln!(text, "{dropped}")?;
    }
    Ok(text)
}

fn row(lab: &Lab, node: &Node, machine: Machine) -> Row {
    let power = match machine {
        Machine { on: false, .. } => "off",
        Machine { paused: true, .. } => "paused",
        Machine { .. } => "on",
    };
    let awake = power == "on";
    let cable = |cut: bool| if cut { "cut" } else { "up" }.to_owned();
    let unknown = || "-".to_owned();
    let coordinator = lab.options().coordinators().any(|c| c == node.number());
    [
        node.name(),
        power.to_owned(),
        cable(machine.cut),
        if machine.bmc_cut { cable(true) } else { behaviour(machine.bmc).to_owned() },
        if coordinator && awake {
            lab.zookeeper_mode(node.number()).unwrap_or_else(|_| "down".into())
        } else {
            unknown()
        },
        if awake { daemon(node) } else { unknown() },
        if awake { vms(node) } else { unknown() },
    ]
}

fn behaviour(bmc: Behaviour) -> &'static str {
    match bmc {
        Behaviour::Honest => "up",
        Behaviour::Slow { .. } => "slow",
        Behaviour::Liar => "liar",
        Behaviour::Idle => "idle",
        Behaviour::OnlyResets => "only resets",
    }
}

fn daemon(node: &Node) -> String {
    node.exec(&["/bin/systemctl", "show", "--property=ActiveState", "--value", "pvcd.service"], PATIENCE)
        .map_or_else(|_| "no answer".into(), |seen| seen.stdout.trim().to_owned())
}

fn vms(node: &Node) -> String {
    let Ok(seen) = node.exec(&["/usr/bin/virsh", "-q", "list", "--all"], PATIENCE) else {
        return "no answer".into();
    };
    // " Id   Name   State" without its heading; the state may be two words.
    let vms: Vec<_> = seen
        .stdout
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace().skip(1);
            let name = words.next()?;
            Some(format!("{name} ({})", words.collect::<Vec<_>>().join(" ")))
        })
        .collect();
    vms.join(", ")
}

fn table(rows: &[Row]) -> String {
    let headings = HEADINGS.map(str::to_owned);
    let lines: Vec<_> = std::iter::once(&headings).chain(rows).collect();
    let mut text = String::new();
    for line in &lines {
        for (column, cell) in line.iter().enumerate() {
            let width = lines.iter().map(|line| line[column].len()).max().unwrap_or(0);
            let _ = write!(text, "{cell:width$}  ");
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_lines_end_without_blanks() {
        let row = ["node1", "on", "up", "up", "leader", "active", ""].map(str::to_owned);
        assert_eq!(
            table(&[row]),
            "NODE   POWER  NETWORK  BMC  ZOOKEEPER  PVCD    VMS\n\
             node1  on     up       up   leader     active\n"
        );
    }
}
