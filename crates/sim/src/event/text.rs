//! Events in words, one line each.

use std::fmt;

use super::{Author, Commit, Event, Key, Stamped};

impl fmt::Display for Stamped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = self.at.as_millis();
        let (s, m, h) = (ms / 1000 % 60, ms / 60_000 % 60, ms / 3_600_000);
        write!(f, "{h:02}:{m:02}:{s:02}.{:03} {}", ms % 1000, self.event)
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Machine { node, what } => write!(f, "{node}: machine {what:?}"),
            Self::Daemon { node, what } => write!(f, "{node}: daemon {what:?}"),
            Self::Libvirt { node, what } => write!(f, "{node}: libvirt {what:?}"),
            Self::Lacks { node, lacks: true } => write!(f, "{node}: no guest can be started here"),
            Self::Lacks { node, lacks: false } => write!(f, "{node}: guests can be started here"),
            Self::Guest { vm, node, what } => write!(f, "{node}: guest {vm} {what:?}"),
            Self::Stranger { vm, node, .. } => write!(f, "{node}: somebody else than its daemon starts {vm}"),
            Self::LetGo { vm, node } => write!(f, "{node}: somebody lets {vm} go on"),
            Self::Synced { node } => write!(f, "{node}: has seen all that was committed"),
            Self::Asked { node, vm, what } => write!(f, "{node}: asks libvirt about {vm}: {what:?}"),
            Self::Address { node, address, until: Some(until) } => {
                write!(f, "{node}: has {address} until {:.1} s", until.as_secs_f64())
            }
            Self::Address { node, address, until: None } => write!(f, "{node}: has {address} no longer"),
            Self::Forward { node, card, to: Some(to) } => {
                write!(f, "{node}: sends frames for {card} to {to}")
            }
            Self::Forward { node, card, to: None } => write!(f, "{node}: sends frames for {card} to all"),
            Self::Leased { by, vm, network, address, .. } => {
                write!(f, "{by}: tells {vm} that it has {address} in network {network}")
            }
            Self::GivenUp { vm } => write!(f, "{vm} does not use its address"),
            Self::Link { net, from, to, cut } => {
                write!(f, "{net:?} {from} -> {to}: {}", if *cut { "cut" } else { "passes" })
            }
            Self::Leader(Some(node)) => write!(f, "ZooKeeper: {node} leads"),
            Self::Leader(None) => f.write_str("ZooKeeper: no quorum"),
            Self::Session { node, what } => write!(f, "{node}: {what:?}"),
            Self::Bmc { by, of, call, said } => write!(f, "{by}: BMC of {of}: {call:?} -> {said:?}"),
            Self::ShutOut { by, of, images } => write!(f, "{by}: shuts {of} out of {}", images.join(", ")),
            Self::Commit(commit) => commit.fmt(f),
            Self::Command { client, text, outcome, .. } => write!(f, "client {client}: {text}: {outcome}"),
            Self::Fault { text, begins } => {
                write!(f, "FAULT {text} {}", if *begins { "begins" } else { "ends" })
            }
            Self::Phase(phase) => write!(f, "== {phase:?}"),
            Self::Log { node, level, text } => write!(f, "{node}: {level} {text}"),
            Self::Wrote { vm, node, image, object, process } => {
                write!(f, "{node}: process {process} of {vm} has written to {image}, object {object}")
            }
            Self::Blocklist { client, whose, until } => {
                let what = until.map_or_else(
                    || "lets in".to_owned(),
                    |until| format!("shuts out until {} s", until.as_secs()),
                );
                write!(f, "Ceph: {what} {client}")?;
                whose.as_ref().map_or(Ok(()), |(vm, node)| write!(f, ", of {vm} on {node}"))
            }
        }
    }
}

impl fmt::Display for Commit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.by {
            Author::Daemon { node, .. } => write!(f, "{node}: writes")?,
            Author::Client(client) => write!(f, "client {client}: writes")?,
            Author::Servers => f.write_str("ZooKeeper: writes")?,
        }
        for change in &self.changes {
            let text = |key: &Key| String::from_utf8_lossy(&key.data).chars().take(120).collect::<String>();
            match &change.after {
                Some(key) => write!(f, " {}={:?}", change.path, text(key))?,
                None => write!(f, " {} deleted", change.path)?,
            }
        }
        Ok(())
    }
}
