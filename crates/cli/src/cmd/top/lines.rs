//! What is seen of a cluster, as lines. On a screen each part has its share of it: what does not fit is counted.

use pvc_core::{command::status::Level, model::VmState};
use pvc_operate::{
    node::{Listed, NodeInfo},
    top::{Top, Waits},
};

use crate::{
    cmd::status::{line, plain_totals},
    print::table::{Cell, Look, table, words},
};

/// How long the bar of a node's memory is.
const BAR: usize = 10;

/// All lines.
pub(super) fn all(top: &Top, at_unix_s: u64, colour: bool) -> Vec<String> {
    fitting(top, at_unix_s, None, usize::MAX, colour)
}

/// Before anything is seen.
pub(super) fn waiting(trouble: Option<&str>, colour: bool) -> String {
    match trouble {
        Some(trouble) => words(&Cell::new(format!("! {trouble}; q ends"), Look::Bad), colour),
        None => "looking …".to_owned(),
    }
}

/// As many as there are rows. `trouble`: why this is old.
pub(super) fn fitting(
    top: &Top,
    at_unix_s: u64,
    trouble: Option<&str>,
    rows: usize,
    colour: bool,
) -> Vec<String> {
    let mut lines = vec![title(top, at_unix_s, colour)];
    if let Some(trouble) = trouble {
        let old = format!("! {trouble}: what is below was so at {}", time(at_unix_s));
        lines.push(words(&Cell::new(old, Look::Bad), colour));
    }
    lines.push(totals(top));
    let mut parts = [nodes(top, colour), findings(top, colour), waits(top, colour)];
    // A blank line above each part.
    let mut left = rows.saturating_sub(lines.len());
    let shares = shares(parts.each_ref().map(Part::rows), &mut left);
    for (part, share) in parts.iter_mut().zip(shares) {
        part.print(&mut lines, share);
    }
    lines
}

/// A heading, rows, and how many there are that are not among them.
struct Part {
    head: Vec<String>,
    rows: Vec<String>,
    more: usize,
    what: &'static str,
}

impl Part {
    /// With its blank line; none if there is nothing to say.
    fn rows(&self) -> usize {
        if self.rows.is_empty() {
            0
        } else {
            1 + self.head.len() + self.rows.len() + usize::from(self.more > 0)
        }
    }

    fn print(&mut self, lines: &mut Vec<String>, share: usize) {
        let room = share.saturating_sub(1 + self.head.len());
        if self.rows.is_empty() || room == 0 {
            return;
        }
        lines.push(String::new());
        lines.append(&mut self.head);
        let shown = if self.more > 0 || self.rows.len() > room {
            self.rows.len().min(room - 1)
        } else {
            self.rows.len()
        };
        let more = self.more + self.rows.len() - shown;
        lines.extend(self.rows.drain(..shown));
        if more > 0 {
            lines.push(format!("  … and {more} more {}", self.what));
        }
    }
}

/// Who needs less than an even share leaves the rest to the others.
fn shares(wanted: [usize; 3], left: &mut usize) -> [usize; 3] {
    let mut given = [0; 3];
    let mut order = [0, 1, 2];
    order.sort_by_key(|part| wanted[*part]);
    for (at, part) in order.into_iter().enumerate() {
        given[part] = wanted[part].min(*left / (3 - at));
        *left -= given[part];
    }
    given
}

fn time(unix_s: u64) -> String {
    format!("{:02}:{:02}:{:02}Z", unix_s / 3600 % 24, unix_s / 60 % 60, unix_s % 60)
}

fn title(top: &Top, at_unix_s: u64, colour: bool) -> String {
    let status = &top.status;
    let primary = match &status.primary {
        Some(node) => format!("primary {node}"),
        None => words(&Cell::new("nobody is primary", Look::Bad), colour),
    };
    let maintenance = if status.maintenance {
        words(&Cell::new("maintenance is on", Look::Busy), colour)
    } else {
        "maintenance is off".to_owned()
    };
    let wrong = status.findings.iter().filter(|found| found.level == Level::Wrong).count();
    let health = match wrong {
        0 => Cell::new("nothing is wrong", Look::Good),
        1 => Cell::new("one thing is wrong", Look::Bad),
        n => Cell::new(format!("{n} things are wrong"), Look::Bad),
    };
    format!("{}  {}  {primary}  {maintenance}", time(at_unix_s), words(&health, colour))
}

fn totals(top: &Top) -> String {
    let by_state = VmState::ALL.iter().filter_map(|state| {
        let count = top.vms.get(state)?;
        Some(format!("{count} {}", state.as_str()))
    });
    let by_state: Vec<String> = by_state.collect();
    let vms = if by_state.is_empty() { "none".to_owned() } else { by_state.join(", ") };
    format!("{}; VMs: {vms}", plain_totals(&top.status.totals))
}

fn nodes(top: &Top, colour: bool) -> Part {
    let header = ["node", "daemon", "VMs go there", "load", "memory used", "allocated", "MiB", "VMs", ""];
    let rows: Vec<Vec<Cell>> = top.nodes.iter().map(|listed| node(top, listed)).collect();
    let mut text = table(&header, &rows, colour).lines().map(str::to_owned).collect::<Vec<_>>().into_iter();
    let head: Vec<String> = text.by_ref().take(1).collect();
    Part { head, rows: text.collect(), more: 0, what: "nodes" }
}

fn node(top: &Top, listed: &Listed) -> Vec<Cell> {
    let node = match listed {
        Listed::Good(node) => node,
        Listed::Bad { name, problems } => {
            let mut row = vec![Cell::from(name), Cell::state("?")];
            row.extend((0..6).map(|_| Cell::from("")));
            row.push(Cell::new(problems.join("; "), Look::Bad));
            return row;
        }
    };
    let memory = &node.memory;
    vec![
        node.name.as_str().into(),
        Cell::state(node.daemon_state.as_str()),
        Cell::state(node.domain_state.as_str()),
        Cell::new(format!("{:.2}", node.load), loaded(node)),
        bar(memory.used, memory.total).into(),
        bar(memory.allocated, memory.total).into(),
        memory.total.to_string().into(),
        node.domains_count.to_string().into(),
        remark(top, node),
    ]
}

/// What is special about a node.
fn remark(top: &Top, node: &NodeInfo) -> Cell {
    if let Some(silence) = top.silent_s.get(node.name.as_str()) {
        return Cell::new(format!("nothing heard for {silence} s"), Look::Bad);
    }
    if let Some(why) = &node.cannot_start_because {
        return Cell::new(format!("starts no VMs: {why}"), Look::Bad);
    }
    if top.status.primary.as_ref() == Some(&node.name) { Cell::new("primary", Look::Good) } else { "".into() }
}

/// More wants to execute than can.
fn loaded(node: &NodeInfo) -> Look {
    let is_more = node.cpu_count.is_some_and(|cpus| node.load > f64::from(cpus));
    if is_more { Look::Busy } else { Look::Plain }
}

/// `#####····· 52 %`.
fn bar(part: u64, of: u64) -> String {
    let Some(percent) = part.saturating_mul(100).checked_div(of) else { return "-".to_owned() };
    let full = usize::try_from(percent).unwrap_or(usize::MAX).saturating_mul(BAR).div_ceil(100).min(BAR);
    format!("{}{} {percent} %", "#".repeat(full), ".".repeat(BAR - full))
}

fn findings(top: &Top, colour: bool) -> Part {
    let rows = top.status.findings.iter().map(|found| line(found, colour).trim_end().to_owned()).collect();
    Part { head: Vec::new(), rows, more: 0, what: "things to know: `pvc status`" }
}

fn waits(top: &Top, colour: bool) -> Part {
    let row = |waits: &Waits| {
        let Waits { vm, because } = waits;
        let asked = vm.state.map_or("?", VmState::as_str);
        vec![
            Cell::from(&vm.name),
            Cell::state(asked),
            vm.node.as_deref().unwrap_or_default().into(),
            because.as_deref().unwrap_or(&vm.what).into(),
        ]
    };
    let rows: Vec<Vec<Cell>> = top.waits.iter().map(row).collect();
    let mut text = table(&["VM", "asked", "node", "because"], &rows, colour)
        .lines()
        .map(str::to_owned)
        .collect::<Vec<_>>()
        .into_iter();
    let head: Vec<String> = text.by_ref().take(1).collect();
    Part { head, rows: text.collect(), more: top.more_wait, what: "VMs that are not as asked" }
}
