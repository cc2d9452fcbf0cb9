//! The HTTP API on a cluster: at the floating addresses, where the primary is, as nobody in particular.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use pvc_lab::{
    Cluster, PATIENCE,
    layout::{API_PORT, API_TOKEN, Net},
    wait_until,
};
use serde_json::Value;

use crate::{default_timings, on_lab, options};

const SOON: Duration = Duration::from_secs(20);

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
fn ask_patiently(cluster: &Cluster, to: IpAddr, request: &str) -> Result<(u16, String)> {
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
