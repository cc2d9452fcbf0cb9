//! BMCs, as a node reaches them over its network: answers take their time, and what was asked is done whether or not the asker lives.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use pvc_core::model::NodeName;
use pvc_host::power::{
    Bmc, Power, PowerError, PowerState,
    fake::{FakePower, Reset},
};
use pvc_process::Process;
use tokio::time::{sleep, timeout};

use super::in_flight;
use crate::{
    event::{self, Event, Net, Said},
    journal::Journal,
    physics::network::{Network, Number},
};

/// How long a program that asks a BMC takes.
const TAKES: Duration = Duration::from_millis(60);
/// When it gives up.
const GIVES_UP: Duration = Duration::from_millis(2200);

/// See the module's documentation.
pub struct SimPower {
    /// The world's process.
    pub world: Process,
    /// Who asks.
    pub me: Number,
    /// The nodes' names, by number.
    pub names: Arc<Vec<NodeName>>,
    /// Who reaches whom.
    pub network: Arc<Network>,
    /// The BMCs.
    pub fake: Arc<FakePower>,
    /// Whom it is told.
    pub journal: Arc<Journal>,
}

/// A reset is acknowledged before it happens, by every BMC that does it.
pub const RESET: Reset = Reset::TakesAWhile(Duration::from_secs(4));

/// The name of a node's BMC.
pub fn bmc(node: &NodeName) -> String {
    format!("{node}-lom")
}

#[derive(Debug, Clone, Copy)]
enum Answer {
    State(PowerState),
    Accepted,
}

impl SimPower {
    async fn ask(&self, asked: &Bmc, call: event::Power) -> Result<Answer, PowerError> {
        let (network, fake, journal) =
            (Arc::clone(&self.network), Arc::clone(&self.fake), Arc::clone(&self.journal));
        let unreachable = PowerError::Unreachable { host: asked.host.clone(), why: "no reply".to_owned() };
        let Some(of) = self.names.iter().position(|name| bmc(name) == asked.host) else {
            return Err(unreachable);
        };
        let (me, by, asked) = (self.me, self.names[self.me].clone(), asked.clone());
        let (name, world) = (self.names[of].clone(), self.world.clone());
        in_flight(&self.world, async move {
            sleep(TAKES / 2).await;
            if !network.passes(Net::Bmc, me, of) {
                sleep(GIVES_UP).await;
                return Err(unreachable);
            }
            let work = async {
                match call {
                    event::Power::Status => fake.status(&asked).await.map(Answer::State),
                    event::Power::Off => fake.off(&asked).await.map(|()| Answer::Accepted),
                    event::Power::On => fake.on(&asked).await.map(|()| Answer::Accepted),
                    event::Power::Reset => fake.reset(&asked).await.map(|()| Answer::Accepted),
                }
            };
            let late = || PowerError::TimedOut { host: asked.host.clone() };
            let outcome = timeout(Duration::from_secs(10), work).await.unwrap_or_else(|_| Err(late()));
            let said = match &outcome {
                Ok(Answer::State(PowerState::On)) => Some(Said::On),
                Ok(Answer::State(PowerState::Off)) => Some(Said::Off),
                Ok(Answer::Accepted) => Some(Said::Accepted),
                Err(PowerError::Refused { .. } | PowerError::WrongCredentials { .. }) => Some(Said::Refused),
                Err(_) => None,
            };
            journal.tell(Event::Bmc { by, of: name, call, said });
            if matches!(call, event::Power::Off | event::Power::Reset) {
                settle(&world, fake, asked.host);
            }
            sleep(TAKES / 2).await;
            outcome
        })
        .await
    }
}

/// A command that takes a while is carried out though nobody asks again.
fn settle(world: &Process, fake: Arc<FakePower>, host: String) {
    world.spawn(async move {
        for _ in 0..40 {
            sleep(Duration::from_secs(1)).await;
            fake.is_on(&host);
        }
    });
}

#[async_trait]
impl Power for SimPower {
    async fn status(&self, bmc: &Bmc) -> Result<PowerState, PowerError> {
        match self.ask(bmc, event::Power::Status).await? {
            Answer::State(state) => Ok(state),
            Answer::Accepted => Err(PowerError::TimedOut { host: bmc.host.clone() }),
        }
    }

    async fn off(&self, bmc: &Bmc) -> Result<(), PowerError> {
        self.ask(bmc, event::Power::Off).await.map(drop)
    }

    async fn on(&self, bmc: &Bmc) -> Result<(), PowerError> {
        self.ask(bmc, event::Power::On).await.map(drop)
    }

    async fn reset(&self, bmc: &Bmc) -> Result<(), PowerError> {
        self.ask(bmc, event::Power::Reset).await.map(drop)
    }
}
