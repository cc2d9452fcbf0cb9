//! What the capsule can be asked to do, over a Unix socket in the lab's folder: one JSON line each way.
//! The socket is root's alone, as the folder is. Nothing here acts; see `switch`.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::{devices::drops::Dropped, layout::NodeNumber};

/// How a BMC behaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Behaviour {
    /// As it should.
    #[default]
    Honest,
    /// Takes so long for each thing, and answers nobody meanwhile.
    Slow {
        /// Milliseconds.
        ms: u32,
    },
    /// Says that the power is off, whatever it is told to do, and does nothing.
    Liar,
    /// Accepts every command and does nothing; what it says of the power is true.
    Idle,
    /// Refuses to power off; a reset it accepts, and does nothing.
    OnlyResets,
}

impl Behaviour {
    /// Whether a command of it reaches the power.
    pub(crate) fn acts(self) -> bool {
        matches!(self, Self::Honest | Self::Slow { .. })
    }
}

/// A request.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// What is on, paused, cut.
    Status,
    /// Switches a node on; fine if it is.
    PowerOn(u8),
    /// Cuts a node's power; fine if it is off.
    PowerOff(u8),
    /// Off and on; nothing if it is off, like the button of a real machine.
    Reset(u8),
    /// Asks the node's system to shut down, like a press of the power button.
    SoftOff(u8),
    /// What a node's BMC was told to do with its power.
    ByBmc(u8, Button),
    /// Freezes every process of a node.
    Pause(u8),
    /// Thaws them.
    Resume(u8),
    /// Pulls a node's network cables.
    Cut(u8),
    /// Plugs them in again.
    Heal(u8),
    /// Drops frames, too, without the nodes noticing.
    Drop(Dropped),
    /// Stops dropping frames.
    Undrop,
    /// Pulls the network cable of a node's BMC.
    CutBmc(u8),
    /// Plugs it in again.
    HealBmc(u8),
    /// Makes a node's BMC behave so from now on.
    SetBmc(u8, Behaviour),
}

/// What a BMC's clients ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Button {
    /// Power on.
    On,
    /// Power off.
    Off,
    /// Off and on. The clients repeat a request that is not answered within a second.
    Reset,
    /// Ask the system to shut down.
    Soft,
}

/// The answer to every request.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// Done, and this is how things are now.
    Done(Machines),
    /// Not done, and why.
    Failed(String),
}

/// What is on, paused, cut.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machines {
    /// Per node number.
    pub nodes: BTreeMap<u8, Machine>,
    /// Frames that vanish.
    pub dropped: Vec<Dropped>,
}

/// One node, seen from outside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::struct_excessive_bools, reason = "four independent facts, each its own switch")]
pub struct Machine {
    /// Whether it has power.
    pub on: bool,
    /// Whether its processes are frozen.
    pub paused: bool,
    /// Whether its network cables are pulled.
    pub cut: bool,
    /// Whether its BMC's cable is pulled.
    pub bmc_cut: bool,
    /// How its BMC behaves.
    pub bmc: Behaviour,
}

/// Asks the capsule whose socket is `socket`.
pub fn ask(socket: &Path, request: Request, deadline: Duration) -> Result<Machines> {
    let doing = || format!("could not ask the lab for {request:?}");
    let mut stream = UnixStream::connect(socket)
        .with_context(|| format!("no lab answers at {}: is it up?", socket.display()))?;
    stream.set_read_timeout(Some(deadline))?;
    stream.set_write_timeout(Some(deadline))?;
    let mut line = serde_json::to_vec(&request)?;
    line.push(b'\n');
    stream.write_all(&line).with_context(doing)?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer).with_context(doing)?;
    match serde_json::from_str(&answer).with_context(doing)? {
        Answer::Done(machines) => Ok(machines),
        Answer::Failed(why) => bail!("{why}"),
    }
}

/// The node a number in a request means.
pub(crate) fn node(number: u8) -> Result<NodeNumber> {
    number.to_string().parse()
}
