//! The lab's network inside the capsule: a bridge for each net, a pair of virtual cables for each node and BMC.
//! Never runs outside the capsule's own network namespace.

use std::{net::Ipv4Addr, time::Duration};

use anyhow::{Context, Result};

use crate::{
    layout::{Net, NodeNumber},
    program::{command, output, run},
};

const DEADLINE: Duration = Duration::from_secs(20);

/// Runs lines of `ip` in one go.
fn ip_batch(namespace: Option<&str>, lines: &[String]) -> Result<()> {
    let mut ip = command("/sbin/ip");
    if let Some(namespace) = namespace {
        ip.args(["-n", namespace]);
    }
    ip.args(["-batch", "-"]);
    let text = lines.join("\n") + "\n";
    output(ip, text.as_bytes(), DEADLINE)?.ok().with_context(|| format!("network commands:\n{text}"))?;
    Ok(())
}

/// Creates the bridges, with the switch's own addresses.
pub fn make_bridges() -> Result<()> {
    let mut lines = vec!["link set lo up".to_owned()];
    for net in Net::ALL {
        let (name, mac, address) = (net.name(), net.bridge_mac(), net.switch());
        lines.push(format!(
            "link add {name} address {mac} type bridge forward_delay 0 stp_state 0 mcast_snooping 0"
        ));
        lines.push(format!("link set {name} up"));
        lines.push(format!("addr add {address}/24 dev {name}"));
        lines.push(format!("addr add {}/64 dev {name} nodad", net.switch6()));
    }
    ip_batch(None, &lines)
}

/// Gives `node` new network hardware in a new namespace. A kept one would go on answering for a dead node.
pub fn plug_node(node: NodeNumber, cut: bool) -> Result<()> {
    unplug_node(node);
    let mut lines = vec![format!("netns add {node}")];
    for net in Net::ALL {
        let (port, device, mac) = (node.port(net), net.device(), node.mac(net));
        lines.push(format!("link add {port} type veth peer name {device} netns {node} address {mac}"));
        let up = if cut { "" } else { " up" };
        lines.push(format!("link set {port} master {}{up}", net.name()));
    }
    ip_batch(None, &lines).with_context(|| format!("could not plug in {node}"))
}

/// Removes a node's network hardware at once; the kernel would take its time after the namespace is gone.
pub fn unplug_node(node: NodeNumber) {
    let mut lines: Vec<_> = Net::ALL.iter().map(|net| format!("link del {}", node.port(*net))).collect();
    lines.push(format!("netns del {node}"));
    let mut ip = command("/sbin/ip");
    ip.args(["-force", "-batch", "-"]);
    // Any of these may be gone already, by themselves or with their peer; what matters fails when it is made again.
    let _ = output(ip, (lines.join("\n") + "\n").as_bytes(), DEADLINE);
}

/// Plugs in a node's cables, or pulls them: the node sees no carrier.
pub fn set_cables(node: NodeNumber, plugged: bool) -> Result<()> {
    let state = if plugged { "up" } else { "down" };
    let lines: Vec<_> = Net::ALL.iter().map(|net| format!("link set {} {state}", node.port(*net))).collect();
    ip_batch(None, &lines)
}

/// Gives a node's BMC its own namespace and address.
pub fn plug_bmc(node: NodeNumber) -> Result<()> {
    let (namespace, port, mac, address) =
        (node.bmc_namespace(), node.bmc_port(), node.bmc_mac(), node.bmc_address());
    ip_batch(
        None,
        &[
            format!("netns add {namespace}"),
            format!("link add {port} type veth peer name eth0 netns {namespace} address {mac}"),
            format!("link set {port} master {} up", Net::Cluster.name()),
        ],
    )?;
    ip_batch(
        Some(&namespace),
        &["link set lo up".into(), format!("addr add {address}/24 dev eth0"), "link set eth0 up".into()],
    )
}

/// Plugs in or pulls the cable of a node's BMC.
pub fn set_bmc_cable(node: NodeNumber, plugged: bool) -> Result<()> {
    let state = if plugged { "up" } else { "down" };
    ip_batch(None, &[format!("link set {} {state}", node.bmc_port())])
}

/// The arguments of the guests' DHCP server.
pub fn dhcp_arguments(leases: &std::path::Path) -> Vec<String> {
    let range = |host| -> Ipv4Addr { Net::Guest.address(host) };
    vec![
        "--keep-in-foreground".into(),
        "--conf-file=/dev/null".into(),
        "--no-resolv".into(),
        "--no-hosts".into(),
        "--port=0".into(),
        "--no-ping".into(),
        "--bind-interfaces".into(),
        "--except-interface=lo".into(),
        format!("--interface={}", Net::Guest.name()),
        format!("--dhcp-range={},{},1h", range(10), range(200)),
        format!("--dhcp-leasefile={}", leases.display()),
        "--pid-file=".into(),
        "--log-facility=-".into(),
        "--user=root".into(),
    ]
}

/// Lets the switch route between the nets. Bridged frames bypass iptables where that can be set.
pub fn route() -> Result<()> {
    run("/sbin/sysctl", ["-qw", "net.ipv4.ip_forward=1"], DEADLINE)?;
    Ok(())
}
