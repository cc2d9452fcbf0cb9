//! systemd over D-Bus. The connection is opened when it is first needed, and anew after it broke.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use futures_util::StreamExt as _;
use tokio::{sync::Mutex, time::timeout};
use zbus::{Connection, OwnedObjectPath, OwnedVariant, connection::Builder, proxy::CacheProperties};

use super::{ASK_WITHIN, CHANGE_WITHIN, Services, ServicesError, UnitState};

#[zbus::proxy(
    interface = "org.freedesktop.systemd1.Manager",
    default_service = "org.freedesktop.systemd1",
    default_path = "/org/freedesktop/systemd1"
)]
trait Manager {
    fn subscribe(&self) -> zbus::Result<()>;
    fn load_unit(&self, name: &str) -> zbus::Result<OwnedObjectPath>;
    fn start_unit(&self, name: &str, mode: &str) -> zbus::Result<OwnedObjectPath>;
    fn stop_unit(&self, name: &str, mode: &str) -> zbus::Result<OwnedObjectPath>;
    #[zbus(signal)]
    fn job_removed(&self, id: u32, job: OwnedObjectPath, unit: String, result: String);
}

#[zbus::proxy(interface = "org.freedesktop.DBus.Properties", default_service = "org.freedesktop.systemd1")]
trait UnitProperties {
    fn get(&self, interface: &str, property: &str) -> zbus::Result<OwnedVariant>;
}

const UNIT: &str = "org.freedesktop.systemd1.Unit";

/// The service manager of this machine.
pub struct Systemd {
    /// `None`: the system bus.
    address: Option<String>,
    connection: Mutex<Option<Connection>>,
}

impl Systemd {
    /// The one on the system bus.
    pub fn system() -> Arc<Self> {
        Arc::new(Self { address: None, connection: Mutex::default() })
    }

    /// One on another bus, for tests.
    pub fn on_bus(address: &str) -> Arc<Self> {
        Arc::new(Self { address: Some(address.to_owned()), connection: Mutex::default() })
    }

    async fn manager(&self) -> zbus::Result<ManagerProxy<'static>> {
        let mut open = self.connection.lock().await;
        if let Some(connection) = &*open {
            return ManagerProxy::new(connection).await;
        }
        let connection = match &self.address {
            None => Connection::system().await?,
            Some(address) => Builder::address(address.as_str()).build().await?,
        };
        let manager = ManagerProxy::new(&connection).await?;
        // Without a subscriber systemd says nothing of jobs that end.
        manager.subscribe().await?;
        *open = Some(connection);
        Ok(manager)
    }

    async fn forget(&self) {
        *self.connection.lock().await = None;
    }

    async fn within<T>(
        &self,
        after: Duration,
        doing: &str,
        work: impl Future<Output = Result<T, Trouble>>,
    ) -> Result<T, ServicesError> {
        match timeout(after, work).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(Trouble::Result(why))) => Err(ServicesError::Refused { doing: doing.to_owned(), why }),
            Ok(Err(Trouble::Bus(zbus::Error::MethodError(name, why, _)))) => {
                let why = why.unwrap_or_else(|| name.to_string());
                Err(ServicesError::Refused { doing: doing.to_owned(), why })
            }
            Ok(Err(Trouble::Bus(error))) => {
                self.forget().await;
                Err(ServicesError::Unavailable(error.to_string()))
            }
            Err(_) => {
                self.forget().await;
                Err(ServicesError::Deadline { doing: doing.to_owned(), after })
            }
        }
    }

    async fn look(&self, unit: &str) -> Result<UnitState, Trouble> {
        let manager = self.manager().await?;
        let path = manager.load_unit(unit).await?;
        let properties = UnitPropertiesProxy::builder(manager.inner().connection())
            .path(path)
            .cache_properties(CacheProperties::No)
            .build()
            .await?;
        let word = async |property| -> zbus::Result<String> {
            String::try_from(properties.get(UNIT, property).await?)
        };
        if word("LoadState").await? != "loaded" {
            return Ok(UnitState::Absent);
        }
        Ok(match word("ActiveState").await?.as_str() {
            "active" | "reloading" => UnitState::Active,
            "inactive" => UnitState::Inactive,
            "failed" => UnitState::Failed,
            _ => UnitState::Changing,
        })
    }

    /// Asks for a job and waits for its end.
    async fn job(&self, unit: &str, start: bool) -> Result<(), Trouble> {
        let manager = self.manager().await?;
        // Heard of before it is asked for, so that no end is missed.
        let mut ended = manager.receive_job_removed().await?;
        let job = if start {
            manager.start_unit(unit, "replace").await?
        } else {
            manager.stop_unit(unit, "replace").await?
        };
        while let Some(signal) = ended.next().await {
            let args = signal.args()?;
            if args.job == job {
                return match args.result.as_str() {
                    "done" => Ok(()),
                    other => Err(Trouble::Result(format!("its job ended with \"{other}\""))),
                };
            }
        }
        Err(Trouble::Bus(zbus::Error::InputOutput(Arc::new(std::io::ErrorKind::UnexpectedEof.into()))))
    }
}

/// Why a conversation did not succeed.
enum Trouble {
    Bus(zbus::Error),
    /// systemd did as asked, and it went wrong.
    Result(String),
}

impl From<zbus::Error> for Trouble {
    fn from(error: zbus::Error) -> Self {
        Self::Bus(error)
    }
}

#[async_trait]
impl Services for Systemd {
    async fn state(&self, unit: &str) -> Result<UnitState, ServicesError> {
        self.within(ASK_WITHIN, &format!("look at {unit}"), self.look(unit)).await
    }

    async fn start(&self, unit: &str) -> Result<(), ServicesError> {
        if self.state(unit).await? == UnitState::Active {
            return Ok(());
        }
        self.within(CHANGE_WITHIN, &format!("start {unit}"), self.job(unit, true)).await
    }

    async fn stop(&self, unit: &str) -> Result<(), ServicesError> {
        if matches!(self.state(unit).await?, UnitState::Absent | UnitState::Inactive | UnitState::Failed) {
            return Ok(());
        }
        self.within(CHANGE_WITHIN, &format!("stop {unit}"), self.job(unit, false)).await
    }
}
