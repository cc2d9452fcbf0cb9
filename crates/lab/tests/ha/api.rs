//! The HTTP API on a cluster: at the floating addresses, where the primary is, as nobody in particular.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use pvc_lab::{
    Cluster, PATIENCE, Vm, beating_guest_xml,
    layout::{API_PORT, API_TOKEN, Net},
    wait_until,
};
use serde_json::Value;

use crate::{default_timings, on_lab, options};

const SOON: Duration = Duration::from_mins(1);

/// Status and body of a request to an address of the cluster.
fn ask(cluster: &Cluster, to: IpAddr, request: &str, token: &str) -> Result<(u16, String)> {
    let asked = move || -> Result<String> {
        let mut stream = TcpStream::connect_timeout(&SocketAddr::new(to, API_PORT), Duration::from_secs(2))?;
        stream.set_read_timeout(Some(SOON))?;
        let head = format!("Host: lab\r\nConnection: close\r\nContent-Length: 0\r\nX-Api-Key: {token}");
        write!(stream, "{request} HTTP/1.1\r\n{head}\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    let answer = cluster.lab.in_switch_network(asked)??;
    let (head, body) = answer.split_once("\r\n\r\n").context("no answer")?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).context("no status")?;
    Ok((status, body.to_owned()))
}

/// Asks until somebody answers: the API moves after the address.
pub(crate) fn ask_patiently(cluster: &Cluster, to: IpAddr, request: &str) -> Result<(u16, String)> {
    let mut last = None;
    wait_until(&format!("{request} at {to}"), PATIENCE, || {
        last = Some(ask(cluster, to, request, API_TOKEN));
        matches!(&last, Some(Ok((status, _))) if *status < 500)
    })
    .map_err(|late| late.context(format!("{last:?}")))?;
    last.context("it was asked")?
}

#[test]
fn the_api_answers_at_the_floating_addresses_and_moves_with_the_primary() {
    let mut options = options("ha-http").timings(default_timings());
    options.enable_api = true;
    on_lab(options, |cluster| {
        for address in Net::Upstream.floating() {
            let (status, nodes) = ask_patiently(cluster, address, "GET /api/v1/node")?;
            let nodes: Value = serde_json::from_str(&nodes)?;
            ensure!(status == 200 && nodes.as_array().is_some_and(|nodes| nodes.len() == 3), "{nodes}");
        }
        let [floating, _] = Net::Upstream.floating();
        ensure!(ask(cluster, floating, "GET /api/v1/node", "wrong")?.0 == 401);

        let first = cluster.primary()?;
        let old = cluster.node(&first);
        let process =
            old.run(&["/bin/systemctl", "show", "--property=MainPID", "--value", "pvc-api"], SOON)?;
        let status = old.read_file(&format!("/proc/{}/status", process.trim()))?;
        let line =
            |name: &str| status.lines().find(|line| line.starts_with(name)).unwrap_or_default().to_owned();
        ensure!(line("CapEff:").ends_with("0000000000000000"), "{status}");
        ensure!(!line("Uid:").contains("\t0\t"), "it runs as root: {status}");

        let next = if first == "node1" { "node2" } else { "node1" };
        let change = format!("POST /api/v1/node/{next}/coordinator-state?coordinator-state=primary");
        let (status, said) = ask(cluster, floating, &change, API_TOKEN)?;
        ensure!(status == 200 && said.contains("is to become primary"), "{said}");
        wait_until("the other node to be primary", PATIENCE, || {
            cluster.primary().is_ok_and(|name| name == next)
        })?;
        wait_until("the API to run there only", PATIENCE, || {
            cluster.node(next).is_active("pvc-api") && !old.is_active("pvc-api")
        })?;
        let (status, shown) =
            ask_patiently(cluster, floating, &format!("GET /api/v1/node/{next}/coordinator-state"))?;
        ensure!(status == 200 && shown.contains("primary"), "{shown}");
        let log = old.run(&["/bin/journalctl", "--no-pager", "--unit=pvc-api"], SOON)?;
        let line = "coordinator-state from ";
        ensure!(log.contains(line) && log.contains("by \"lab\": 200") && !log.contains(API_TOKEN), "{log}");
        Ok(())
    });
}

/// `pvc` beside the nodes, by the API: logged in once, with a token that is read from standard input.
fn over_the_api(cluster: &Cluster, command: &str) -> Result<String> {
    let home = cluster.lab.layout().state().join("operator");
    let pvc = cluster.lab.layout().binaries().join("pvc");
    let script = format!("HOME={} exec {} {command}", home.display(), pvc.display());
    cluster.lab.exec_in_switch(&["/bin/sh", "-c", &script], PATIENCE)?.ok()
}

#[test]
fn pvc_goes_on_over_the_api_when_the_primary_is_handed_over() {
    let mut options = options("ha-door").timings(default_timings());
    options.enable_api = true;
    on_lab(options, |cluster| {
        let [floating, _] = Net::Upstream.floating();
        ask_patiently(cluster, floating, "GET /api/v1/node")?;
        let token = cluster.lab.layout().state().join("token");
        std::fs::write(&token, API_TOKEN)?;
        let url = format!("http://{}", SocketAddr::new(floating, API_PORT));
        let login = format!("login --plain-http --cluster lab {url} <{}", token.display());
        let said = over_the_api(cluster, &login)?;
        ensure!(said.contains("its role is admin") && !said.contains(API_TOKEN), "{said}");
        for command in ["node list", "vm list", "status"] {
            // What is found in a cluster that has just begun changes between two looks.
            let (mut there, mut here) = (String::new(), String::new());
            wait_until(&format!("the same words for {command}"), PATIENCE, || {
                there = over_the_api(cluster, command).unwrap_or_else(|error| format!("{error:#}"));
                here = cluster.pvc(&command.split(' ').collect::<Vec<_>>()).unwrap_or_default();
                there.lines().next() == here.lines().next()
            })
            .map_err(|late| late.context(format!("{there}\n{here}")))?;
        }

        // A VM of a node whose daemon is stopped: its start is waited for until that is back.
        let first = cluster.primary()?;
        let mut others = ["node1", "node2", "node3"].into_iter().filter(|node| *node != first);
        let (next, home) = (others.next().context("one")?, others.next().context("two")?);
        let vm = Vm::number(1);
        let xml = cluster.lab.layout().state().join("door.xml");
        std::fs::write(&xml, beating_guest_xml(&vm.name, &vm.uuid, 96))?;
        over_the_api(cluster, &format!("vm define -t {home} {}", xml.display()))?;
        cluster.node(home).run(&["/bin/systemctl", "stop", "pvcd"], PATIENCE)?;
        let start = format!("vm start --wait 170 {}", vm.name);
        let said = std::thread::scope(|scope| -> Result<String> {
            let waiting = scope.spawn(|| over_the_api(cluster, &start));
            wait_until("the start to be asked for", PATIENCE, || cluster.vm(&vm)["state"] == "start")?;
            cluster.pvc(&["node", "primary", next])?;
            wait_until("the API to run there only", PATIENCE, || {
                cluster.node(next).is_active("pvc-api") && !cluster.node(&first).is_active("pvc-api")
            })?;
            ensure!(!waiting.is_finished(), "it gave up");
            cluster.node(home).run(&["/bin/systemctl", "start", "pvcd"], PATIENCE)?;
            waiting.join().map_err(|_| anyhow::anyhow!("it panicked"))?
        })?;
        ensure!(said == format!("VM {} runs on {home}\n", vm.name), "{said}");
        let mut explained = Ok(String::new());
        wait_until("all to be well", PATIENCE, || {
            explained = over_the_api(cluster, &format!("vm explain {}", vm.name));
            explained.as_ref().is_ok_and(|explained| explained.contains("All is well"))
        })
        .map_err(|late| late.context(format!("{explained:?}")))?;
        over_the_api(cluster, &format!("vm undefine -y {}", vm.name)).map(drop)
    });
}
