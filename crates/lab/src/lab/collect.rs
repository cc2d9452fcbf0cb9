//! What a failed test leaves to read: consoles, journals, daemon and BMC logs, the ZooKeeper tree.
//! Never fails: what cannot be had is noted in the file that would hold it.

use std::{fmt::Write, fs, path::Path, time::Duration};

use crate::{
    lab::Lab,
    layout::ZOOKEEPER_PORT,
    node::Node,
    program::{command, output},
};

const DEADLINE: Duration = Duration::from_secs(30);
/// ZooKeeper's own client; a JVM each time, so all is asked in two runs.
const ZOOKEEPER_CLIENT: &[&str] = &[
    "/usr/bin/java",
    "-Xmx64m",
    "-XX:TieredStopAtLevel=1",
    "-cp",
    "/usr/share/java/zookeeper.jar:/usr/share/java/slf4j-nop.jar",
    "org.apache.zookeeper.ZooKeeperMain",
    "-server",
];

pub(crate) fn collect(lab: &Lab, folder: &Path) {
    // Old logs beside new ones would mislead.
    let _ = fs::remove_dir_all(folder);
    if let Err(e) = fs::create_dir_all(folder) {
        eprintln!("could not create {}: {e}", folder.display());
        return;
    }
    let save = |name: String, text: &[u8]| {
        if let Err(e) = fs::write(folder.join(&name), text) {
            eprintln!("could not write {name}: {e}");
        }
    };
    save("capsule.log".into(), &read(&lab.layout().capsule_log()));
    for node in lab.nodes() {
        let number = node.number();
        let disk = lab.layout().node_disk(number);
        save(format!("{number}.console"), &read(&lab.layout().node_console(number)));
        save(format!("{number}.journal"), journal(&disk.join("var/log/journal")).as_bytes());
        save(format!("{number}.libvirtd.log"), &read(&disk.join("var/log/libvirtd.log")));
        for (folder, whose) in [("var/log/pvc", "daemon"), ("var/log/libvirt", "guest")] {
            for entry in fs::read_dir(disk.join(folder)).into_iter().flatten().flatten() {
                if entry.path().is_file() {
                    let name = entry.file_name().to_string_lossy().into_owned();
                    save(format!("{number}.{whose}.{name}"), &read(&entry.path()));
                }
            }
        }
        save(format!("bmc{}.log", number.get()), &read(&lab.layout().bmc(number).join("bmc.log")));
    }
    save("zookeeper".into(), zookeeper_tree(lab).as_bytes());
}

fn read(path: &Path) -> Vec<u8> {
    fs::read(path).unwrap_or_else(|e| format!("{}: {e}\n", path.display()).into_bytes())
}

/// Read from the disk, so that a dead node's journal can be had too.
fn journal(folder: &Path) -> String {
    let mut journalctl = command("/usr/bin/journalctl");
    journalctl.arg("-D").arg(folder).args(["--no-pager", "--output=short-precise"]);
    output(journalctl, b"", DEADLINE).map_or_else(|e| format!("{e:#}\n"), |seen| seen.stdout + &seen.stderr)
}

fn zookeeper_tree(lab: &Lab) -> String {
    let serving = lab
        .options()
        .coordinators()
        .find(|node| lab.zookeeper_mode(*node).is_ok())
        .and_then(|node| lab.find_node(&node.to_string()).ok());
    let Some(node) = serving else { return "no ZooKeeper server serves\n".into() };
    let list = zookeeper_client(&node, "ls -R /\n");
    let mut gets = String::new();
    let paths: Vec<_> =
        list.lines().filter(|line| line.starts_with('/') && !line.starts_with("/zookeeper")).collect();
    for path in &paths {
        let _ = writeln!(gets, "get {path}");
    }
    format!("{} keys\n{}\n{}", paths.len(), paths.join("\n"), zookeeper_client(&node, &gets))
}

fn zookeeper_client(node: &Node, commands: &str) -> String {
    let server = format!("{}:{ZOOKEEPER_PORT}", node.address());
    let mut program = ZOOKEEPER_CLIENT.to_vec();
    program.push(&server);
    node.exec_with_input(&program, commands.as_bytes(), DEADLINE)
        .map_or_else(|e| format!("{e:#}\n"), |seen| seen.stdout + &seen.stderr)
}
