//! The worked example of docs/manual/networks.md, as it is printed there: from a cluster without networks to two guests that have addresses, and
//! find each other by name. Nothing that an operator types stands here.

use anyhow::{Context as _, Result, bail, ensure};
use pvc_lab::{Cluster, PATIENCE, Vm};

use crate::{console, fast_timings, on_lab, options};

const PAGE: &str = include_str!("../../../../docs/manual/networks.md");
const SECTION: &str = "## A worked example\n";

/// The VMs that the example speaks of, by the names of their files.
const VMS: [(&str, &str); 2] =
    [("web1", "4a000000-0000-4000-8000-0000000000e1"), ("db", "4a000000-0000-4000-8000-0000000000e2")];

/// One thing that the page has somebody do.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    /// Commands, one after the other, beside the nodes.
    Commands(String),
    /// The network card that a definition has.
    Card { file: String, xml: String },
    /// What is typed on a guest's console.
    Typed { guest: String, what: String },
}

/// What the section's indented lines say, in their order.
fn steps(page: &str) -> Result<Vec<Step>> {
    let (_, section) = page.split_once(SECTION).context("the manual has no worked example")?;
    let section = section.split("\n## ").next().unwrap_or_default();
    let (mut steps, mut file) = (Vec::new(), None);
    for paragraph in section.split("\n\n") {
        let lines: Vec<&str> = paragraph.lines().filter_map(|line| line.strip_prefix("    ")).collect();
        let Some(first) = lines.first() else {
            let named = paragraph.split('`').find_map(|word| word.strip_suffix(".xml"));
            file = named.map(str::to_owned).or(file);
            continue;
        };
        if first.starts_with("pvc ") {
            steps.push(Step::Commands(lines.join("\n")));
        } else if first.starts_with('<') {
            let file = file.take().context("a card of which definition?")?;
            steps.push(Step::Card { file, xml: lines.concat() });
        } else {
            for line in lines {
                let Some((guest, what)) = line.split_once("# ") else { bail!("who does {line:?}?") };
                steps.push(Step::Typed { guest: guest.to_owned(), what: what.to_owned() });
            }
        }
    }
    Ok(steps)
}

fn vm(name: &str) -> Result<Vm> {
    let (name, uuid) = VMS.iter().find(|(vm, _)| *vm == name).context("a VM that the test does not know")?;
    Ok(Vm { name: (*name).to_owned(), uuid: (*uuid).to_owned() })
}

/// Types a line on the guest's console once the guest has its address; fails if it does.
fn type_on(cluster: &Cluster, guest: &str, what: &str) -> Result<()> {
    let vm = vm(guest)?;
    console::wait_address(cluster, &vm, "10.100.0.")?;
    let answer = console::type_on(cluster, &vm, what)?;
    ensure!(answer.success(), "{what:?} on {guest} failed:\n{}{}", answer.stdout, answer.stderr);
    Ok(())
}

fn follow(cluster: &Cluster, steps: &[Step]) -> Result<String> {
    let folder = cluster.lab.layout().state().to_owned();
    let pvc = cluster.lab.layout().binaries().join("pvc");
    let mut printed = String::new();
    for step in steps {
        match step {
            Step::Card { file, xml } => {
                std::fs::write(folder.join(format!("{file}.xml")), console::definition(&vm(file)?, xml)?)?;
            }
            Step::Commands(commands) => {
                // Guests boot slowly here: what they ask for is there when the page looks.
                if commands.contains("dhcp list") {
                    VMS.iter().try_for_each(|(guest, _)| type_on(cluster, guest, "true"))?;
                }
                let script = format!(
                    "cd {} && pvc() {{ {} -z {} \"$@\"; }}\nset -ex\n{commands}\n",
                    folder.display(),
                    pvc.display(),
                    cluster.lab.zk_connect_string()
                );
                printed += &cluster.lab.exec_in_switch(&["/bin/sh", "-c", &script], PATIENCE)?.ok()?;
            }
            Step::Typed { guest, what } => type_on(cluster, guest, what)?,
        }
    }
    Ok(printed)
}

#[test]
fn the_worked_example_of_the_manual_works_as_it_is_printed() {
    let steps = steps(PAGE).unwrap();
    let count = |is: fn(&Step) -> bool| steps.iter().filter(|step| is(step)).count();
    assert_eq!(count(|step| matches!(step, Step::Card { .. })), VMS.len(), "{steps:?}");
    assert!(count(|step| matches!(step, Step::Typed { .. })) >= 3, "{steps:?}");
    assert!(count(|step| matches!(step, Step::Commands(_))) >= 3, "{steps:?}");
    on_lab(options("ha-worked-example").timings(fast_timings()).with_database(), |cluster| {
        let printed = follow(cluster, &steps)?;
        let row = |address: &str, card: &str| {
            printed.lines().any(|line| line.contains(address) && line.contains(card))
        };
        ensure!(row("10.100.0.20", "52:54:00:64:00:02"), "db has not its own address:\n{printed}");
        ensure!(row("10.100.0.1", "52:54:00:64:00:01"), "web1 has no address of the range:\n{printed}");
        ensure!(printed.contains("No node says that anything is wrong"), "{printed}");
        Ok(())
    });
}
