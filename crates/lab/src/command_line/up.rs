//! `lab up`: from nothing to a VM that prints on its console, with a line for everything done on the way.
//! Ends with an error and the logs that tell why as soon as something is not up in time.

use std::{
    fmt::Write,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use pvc_lab::{
    Lab, LabOptions, Lifetime, Node, Timings, door, guest,
    layout::{API_PORT, API_TOKEN, Net},
    program::wait_until,
};

use crate::command_line::arguments;

const DEADLINE: Duration = Duration::from_mins(1);

/// Lines with the time since the start.
struct Progress(Instant);

impl Progress {
    fn say(&self, what: &str) {
        println!("{:6.1} s  {what}", self.0.elapsed().as_secs_f32());
    }
}

/// Brings the lab called `name` up and starts the guest.
pub(crate) fn up(name: &str, wanted: &arguments::Up) -> Result<()> {
    let progress = Progress(Instant::now());
    let mut options = LabOptions::new(name, std::env::current_exe()?).nodes(wanted.nodes);
    options.timings = Timings {
        keepalive_interval_s: wanted.keepalive_interval,
        fence_intervals: wanted.fence_intervals,
        suicide_intervals: wanted.suicide_intervals,
        ..Timings::default()
    };
    options.enable_api = true;
    options.storage = wanted.storage;
    options.database = !wanted.no_database;
    options.boot_deadline = Duration::from_secs(wanted.deadline);
    if let Some(binaries) = &wanted.binaries {
        options.binaries.clone_from(binaries);
    }
    let lab = Lab::start(options, Lifetime::UntilDown, &mut |what| progress.say(what))?;
    let cluster =
        cluster(&lab, &progress).and_then(|()| if wanted.no_demo { Ok(()) } else { demo(&lab, &progress) });
    cluster.map_err(|e| {
        let logs = lab.collect_logs();
        for node in lab.nodes() {
            eprintln!("--- {}: the last of pvcd\n{}", node.name(), daemon_log(&node));
        }
        e.context(format!("the lab is left as it is; all its logs: {}", logs.display()))
    })?;
    let page = door::open(lab.layout())?;
    println!("\n{}", hints(name, !wanted.no_demo));
    println!("\nIn a browser on this machine: http://{page}/ with the token {API_TOKEN}");
    Ok(())
}

fn cluster(lab: &Lab, progress: &Progress) -> Result<()> {
    lab.node("node1").run(&["/usr/bin/pvc", "init"], DEADLINE)?;
    progress.say("state tree prepared");
    for node in lab.nodes() {
        node.wait_active("pvcd.service", lab.options().boot_deadline)?;
    }
    progress.say("pvcd runs on every node");
    Ok(())
}

fn demo(lab: &Lab, progress: &Progress) -> Result<()> {
    let node = lab.node("node1");
    for taker in lab.nodes() {
        node.run(&["/usr/bin/pvc", "node", "ready", "--wait", &taker.name()], DEADLINE)?;
    }
    progress.say("every node takes VMs");
    let definition = Path::new(pvc_lab::layout::GUEST_IN_NODE).join("demo.xml");
    node.run(&["/usr/bin/pvc", "vm", "define", &definition.to_string_lossy()], DEADLINE)?;
    node.run(&["/usr/bin/pvc", "vm", "start", guest::DEMO], DEADLINE)?;
    progress.say("VM demo started");
    // Read as any operator would, so that this shows the whole way from the guest through the state tree.
    let mut seen = String::new();
    wait_until("the guest's console", lab.options().boot_deadline, || {
        seen = node
            .run(&["/usr/bin/pvc", "vm", "log", guest::DEMO], DEADLINE)
            .unwrap_or_else(|e| format!("{e:#}"));
        seen.contains(guest::READY_LINE)
    })
    .with_context(|| format!("its console so far:\n{seen}"))?;
    progress.say("its system runs");
    println!("\n{}", node.run(&["/usr/bin/pvc", "vm", "list"], DEADLINE)?.trim_end());
    Ok(())
}

/// Gives the nodes new binaries: those beside this program, which `./lab update` has just built, be it optimised or not; of a lab that was brought up
/// with `--binaries` those that are in that folder now.
pub(crate) fn update(lab: &Lab) -> Result<()> {
    let progress = Progress(Instant::now());
    let folder = newest(lab.options(), &std::env::current_exe()?).to_owned();
    lab.copy_binaries(&folder)?;
    progress.say(&format!("pvcd, pvc and pvc-api are those of {}", folder.display()));
    for node in lab.nodes() {
        if !node.machine()?.on {
            continue;
        }
        node.run(&["/bin/systemctl", "restart", "--no-block", "pvcd.service"], DEADLINE)?;
        node.wait_active("pvcd.service", DEADLINE)?;
        progress.say(&format!("pvcd restarted on {}", node.name()));
    }
    Ok(())
}

fn newest<'a>(options: &'a LabOptions, program: &'a Path) -> &'a Path {
    let chosen = options.executable.parent() != Some(&options.binaries);
    program.parent().filter(|_| !chosen).unwrap_or(&options.binaries)
}

fn daemon_log(node: &Node) -> String {
    node.exec(&["/bin/journalctl", "--no-pager", "--quiet", "--unit=pvcd", "--lines=20"], DEADLINE)
        .map_or_else(|e| format!("{e:#}"), |seen| seen.stdout)
}

fn hints(name: &str, demo: bool) -> String {
    let lab = if name == "main" { "sudo ./lab".to_owned() } else { format!("sudo ./lab --name {name}") };
    let [floating, _] = Net::Upstream.floating();
    let ask =
        format!("exec switch curl -sH 'X-Api-Key: {API_TOKEN}' http://{floating}:{API_PORT}/api/v1/node");
    let mut hints = vec![
        ("status", "nodes, services, VMs"),
        ("exec node1 pvc vm list", "the VMs, as the cluster sees them"),
    ];
    if demo {
        hints.extend([
            ("exec node1 pvc vm log -f demo", "what the guest prints"),
            ("exec node1 pvc vm explain demo", "why it is in the state it is in"),
            ("console demo", "its serial console; Ctrl-] leaves"),
        ]);
    }
    hints.push((&ask, "the HTTP API, where the primary is, with this lab's token"));
    hints.extend([
        ("log -f -u pvcd node1", "what the daemon says"),
        ("exec node1 bash", "a shell on a node"),
        ("kill node1", "cut a node's power: the others fence it, and its VM runs elsewhere"),
        ("down", "remove everything"),
    ]);
    let hints: Vec<_> = hints.into_iter().map(|(command, what)| (format!("{lab} {command}"), what)).collect();
    let width = hints.iter().map(|(command, _)| command.len()).max().unwrap_or(0);
    let mut text = String::from("Up. Try:\n");
    for (command, what) in hints {
        let _ = writeln!(text, "  {command:<width$}  {what}");
    }
    text.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_update_takes_what_was_built_with_it_or_what_is_where_the_labs_binaries_came_from() {
        let mut options = LabOptions::new("main", "/target/debug/pvc-lab");
        let release = Path::new("/target/release/pvc-lab");
        assert_eq!(newest(&options, release), Path::new("/target/release"));
        options.binaries = "/elsewhere".into();
        assert_eq!(newest(&options, release), Path::new("/elsewhere"));
    }
}
