//! The state tree as a foreign client sees it: plain keys of docs/state-schema.md.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tokio::time::timeout;
use zookeeper_client::{Acls, Client, CreateMode, Error};

use crate::capsule::{NODE, ZOOKEEPER};

/// How long anything that is waited for may take.
const PATIENCE: Duration = Duration::from_mins(1);
/// VMs defined in one transaction.
const BATCH: usize = 50;

/// A client's session.
pub(crate) struct Tree(Client);

impl Tree {
    pub(crate) async fn connect() -> Result<Self> {
        let client =
            Client::connector().with_session_timeout(Duration::from_mins(1)).connect(ZOOKEEPER).await?;
        Ok(Self(client))
    }

    pub(crate) async fn write(&self, path: &str, value: &str) -> Result<()> {
        self.0
            .set_data(path, value.as_bytes(), None)
            .await
            .with_context(|| format!("could not write {path}"))?;
        Ok(())
    }

    /// The value of a key, if there is one.
    pub(crate) async fn read(&self, path: &str) -> Result<Option<String>> {
        match self.0.get_data(path).await {
            Ok((data, _)) => Ok(Some(String::from_utf8_lossy(&data).into_owned())),
            Err(Error::NoNode) => Ok(None),
            Err(error) => Err(error).with_context(|| format!("could not read {path}")),
        }
    }

    /// The data version of a key.
    pub(crate) async fn version(&self, path: &str) -> Result<i32> {
        let (_, stat) = self.0.get_data(path).await.with_context(|| format!("could not read {path}"))?;
        Ok(stat.version)
    }

    /// Waits for the next write of a key and returns the data version that it made.
    pub(crate) async fn next_version(&self, path: &str) -> Result<i32> {
        let (_, _, change) =
            self.0.get_and_watch_data(path).await.with_context(|| format!("could not read {path}"))?;
        timeout(PATIENCE, change.changed())
            .await
            .with_context(|| format!("nobody wrote {path} within {PATIENCE:?}"))?;
        self.version(path).await
    }

    /// Waits until the key's value is as wanted, which an absent key's never is; returns when that was seen.
    pub(crate) async fn wait_for(&self, path: &str, wanted: impl Fn(&str) -> bool) -> Result<Instant> {
        let began = Instant::now();
        let mut seen = None;
        loop {
            let change = match self.0.get_and_watch_data(path).await {
                Ok((data, _, change)) => {
                    let now = Instant::now();
                    let text = String::from_utf8_lossy(&data).into_owned();
                    if wanted(&text) {
                        return Ok(now);
                    }
                    seen = Some(text);
                    change
                }
                Err(Error::NoNode) => self.0.check_and_watch_stat(path).await?.1,
                Err(error) => return Err(error).with_context(|| format!("could not read {path}")),
            };
            if timeout(PATIENCE.saturating_sub(began.elapsed()), change.changed()).await.is_err() {
                bail!("{path} did not become as wanted within {PATIENCE:?}, last seen: {seen:?}");
            }
        }
    }

    /// Writes keys in one transaction.
    pub(crate) async fn set_all<'a>(&self, keys: impl Iterator<Item = (String, &'a str)>) -> Result<()> {
        let mut writer = self.0.new_multi_writer();
        for (path, value) in keys {
            writer.add_set_data(&path, value.as_bytes(), None)?;
        }
        writer.commit().await.map(drop).map_err(|error| anyhow::anyhow!("could not write keys: {error}"))
    }

    /// Creates keys in one transaction.
    pub(crate) async fn create_all<'a>(&self, keys: impl Iterator<Item = (String, &'a str)>) -> Result<()> {
        let options = CreateMode::Persistent.with_acls(Acls::anyone_all());
        let mut writer = self.0.new_multi_writer();
        for (path, value) in keys {
            writer.add_create(&path, value.as_bytes(), &options)?;
        }
        writer.commit().await.map(drop).map_err(|error| anyhow::anyhow!("could not create keys: {error}"))
    }

    /// Removes a key and the keys directly below it, in one transaction.
    pub(crate) async fn remove(&self, path: &str) -> Result<()> {
        let below = self
            .0
            .list_children(path)
            .await
            .with_context(|| format!("could not read what is below {path}"))?;
        let mut writer = self.0.new_multi_writer();
        for path in below.iter().map(|name| format!("{path}/{name}")).chain([path.to_owned()]) {
            writer.add_delete(&path, None)?;
        }
        writer.commit().await.map(drop).map_err(|error| anyhow::anyhow!("could not remove {path}: {error}"))
    }

    /// Creates a key that ends with this client.
    pub(crate) async fn hold(&self, path: &str, value: &str) -> Result<()> {
        let options = CreateMode::Ephemeral.with_acls(Acls::anyone_all());
        self.0
            .create(path, value.as_bytes(), &options)
            .await
            .with_context(|| format!("could not create {path}"))?;
        Ok(())
    }

    /// Defines stopped VMs for the measured node, as clients do.
    pub(crate) async fn define(&self, vms: &[Definition]) -> Result<()> {
        self.define_on(vms, |_| NODE.to_owned()).await
    }

    /// Defines stopped VMs, each for a node.
    pub(crate) async fn define_on(&self, vms: &[Definition], node: impl Fn(usize) -> String) -> Result<()> {
        for (number, batch) in vms.chunks(BATCH).enumerate() {
            let nodes: Vec<String> = (0..batch.len()).map(|n| node(number * BATCH + n)).collect();
            let keys = batch.iter().zip(&nodes).flat_map(|(vm, node)| {
                let keys = [("state", "stop"), ("node", node), ("lastnode", ""), ("failedreason", "")];
                let below = keys.into_iter().chain([("consolelog", ""), ("rbdlist", ""), ("xml", &vm.xml)]);
                let base = format!("/domains/{}", vm.id);
                let own = std::iter::once((base.clone(), vm.name.as_str()));
                own.chain(below.map(move |(key, value)| (format!("{base}/{key}"), value)))
            });
            self.create_all(keys).await?;
        }
        Ok(())
    }
}

/// A VM's definition.
#[derive(Debug, Clone)]
pub(crate) struct Definition {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) xml: String,
}

/// The `number`th VM: small, its firmware finds nothing to boot, its serial console logs to the usual file.
pub(crate) fn definition(number: usize) -> Definition {
    let id = format!("00000000-0000-4000-8000-{number:012x}");
    let name = format!("bench-{number:04}");
    let mac =
        format!("52:54:00:{:02x}:{:02x}:{:02x}", number >> 16 & 0xff, number >> 8 & 0xff, number & 0xff);
    let xml = include_str!("domain.xml").replace("@ID@", &id).replace("@NAME@", &name).replace("@MAC@", &mac);
    Definition { id, name, xml }
}
