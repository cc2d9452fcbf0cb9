//! The database in a PostgreSQL server.
//!
//! One connection, made when it is needed and given up with the first failure: what the server still does then, it does not commit. A zone that this
//! program made has PowerDNS' column `account` say so; a record that it wrote is named in a table of its own.

use std::{collections::BTreeMap, future::Future, time::Duration};

use async_trait::async_trait;
use pvc_core::model::dns::{Data, Foreign, Record, SeenZone, Soa, TTL_S, ZoneAct, ZoneChange};
use tokio::{sync::Mutex, task::JoinHandle, time::timeout};
use tokio_postgres::{Client, Config, NoTls, Transaction};

use super::{WITHIN, ZoneDatabase, ZonesError};

/// What the column `account` of our zones says; the daemon of the 0.5 generation wrote the same.
const ACCOUNT: &str = "internal";

/// So many records are read: a database that has more is not ours alone.
const MOST: i64 = 2_000_000;

/// Two daemons that make the tables at the same time would hinder each other; the number is arbitrary.
const SCHEMA_LOCK: i64 = 0x7076_6364_6e73;

/// Where the database is, and as whom it is used.
#[derive(Clone, Copy)]
pub struct Address<'a> {
    /// Name or address of the server, or the folder of its socket.
    pub host: &'a str,
    /// Its port.
    pub port: u16,
    /// The database.
    pub name: &'a str,
    /// The user.
    pub user: &'a str,
    /// The user's password.
    pub password: &'a str,
}

/// The real one.
pub struct Postgres {
    config: Config,
    session: Mutex<Option<Session>>,
}

/// A connection, over which the tables have been found or made.
struct Session {
    client: Client,
    carrier: JoinHandle<()>,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.carrier.abort();
    }
}

/// Why a transaction was not made.
enum Failure {
    Sql(tokio_postgres::Error),
    Conflict,
}

impl From<tokio_postgres::Error> for Failure {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Sql(error)
    }
}

impl Postgres {
    /// Connects to nothing yet.
    pub fn new(address: &Address<'_>) -> Self {
        let mut config = Config::new();
        config
            .host(address.host)
            .port(address.port)
            .dbname(address.name)
            .user(address.user)
            .password(address.password)
            .application_name("pvcd")
            .connect_timeout(Duration::from_secs(3))
            // The server gives up too, so that nothing of ours keeps rows locked that a successor needs.
            .options(format!(
                "-c statement_timeout={within} -c lock_timeout={within} -c idle_in_transaction_session_timeout={within}",
                within = WITHIN.as_millis()
            ));
        Self { config, session: Mutex::new(None) }
    }

    async fn log_on(&self) -> Result<Session, tokio_postgres::Error> {
        let (client, connection) = self.config.connect(NoTls).await?;
        let carrier = tokio::spawn(async move {
            // What ends it is told to whoever asks something of the client.
            let _ = connection.await;
        });
        Ok(Session { client, carrier })
    }

    async fn connect(&self) -> Result<Session, tokio_postgres::Error> {
        let mut session = self.log_on().await?;
        make_schema(&mut session.client).await?;
        Ok(session)
    }

    /// Does something over the connection, within the deadline.
    async fn over<T, F>(&self, doing: &'static str, work: F) -> Result<Result<T, Failure>, ZonesError>
    where
        F: AsyncFnOnce(&mut Client) -> Result<T, Failure>,
    {
        let done = async {
            let mut kept = self.session.lock().await;
            // Kept again only if all went well.
            let mut session = match kept.take().filter(|session| !session.client.is_closed()) {
                Some(session) => session,
                None => self.connect().await?,
            };
            let done = work(&mut session.client).await;
            if !matches!(done, Err(Failure::Sql(_))) {
                *kept = Some(session);
            }
            Ok(done)
        };
        let failed = |cause: tokio_postgres::Error| ZonesError::Failed { doing, cause: Box::new(cause) };
        match within(done).await {
            None => Err(ZonesError::Late { doing }),
            Some(Err(cause) | Ok(Err(Failure::Sql(cause)))) => Err(failed(cause)),
            Some(Ok(done)) => Ok(done),
        }
    }
}

async fn within<T>(work: impl Future<Output = T>) -> Option<T> {
    timeout(WITHIN, work).await.ok()
}

#[async_trait]
impl ZoneDatabase for Postgres {
    async fn answers(&self) -> Result<(), ZonesError> {
        let doing = "log this node on";
        match within(self.log_on()).await {
            None => Err(ZonesError::Late { doing }),
            Some(Err(cause)) => Err(ZonesError::Failed { doing, cause: Box::new(cause) }),
            Some(Ok(_)) => Ok(()),
        }
    }

    async fn observe(&self) -> Result<BTreeMap<String, SeenZone>, ZonesError> {
        let look = async || {
            let read =
                self.over("show its zones", async |client: &mut Client| Ok(read(client).await?)).await?;
            // Looking conflicts with nothing.
            Ok(read.unwrap_or_default())
        };
        match look().await {
            // The server may have been started again since the connection was made.
            Err(ZonesError::Failed { .. }) => look().await,
            seen => seen,
        }
    }

    async fn apply(&self, change: &ZoneChange) -> Result<(), ZonesError> {
        let work = async |client: &mut Client| {
            let txn = client.transaction().await?;
            write(&txn, change).await?;
            Ok(txn.commit().await?)
        };
        let done = self.over("change a zone", work).await?;
        done.map_err(|_| ZonesError::Conflict(change.zone.clone()))
    }
}

async fn make_schema(client: &mut Client) -> Result<(), tokio_postgres::Error> {
    // Asked of the catalogue itself: `to_regclass` may remember that there was none.
    const IS_MADE: &str = "SELECT count(*) > 0 FROM pg_tables WHERE schemaname = current_schema() AND tablename = 'pvc_records'";
    if client.query_one(IS_MADE, &[]).await?.get(0) {
        return Ok(());
    }
    let txn = client.transaction().await?;
    txn.execute("SELECT pg_advisory_xact_lock($1)", &[&SCHEMA_LOCK]).await?;
    if !txn.query_one(IS_MADE, &[]).await?.get::<_, bool>(0) {
        txn.batch_execute(include_str!("schema.sql")).await?;
    }
    txn.commit().await
}

async fn read(client: &mut Client) -> Result<BTreeMap<String, SeenZone>, tokio_postgres::Error> {
    // Both questions are about one moment.
    let txn = client
        .build_transaction()
        .isolation_level(tokio_postgres::IsolationLevel::RepeatableRead)
        .read_only(true)
        .start()
        .await?;
    let mut zones = BTreeMap::new();
    for row in txn.query("SELECT name, coalesce(account, '') FROM domains", &[]).await? {
        let is_ours = row.get::<_, &str>(1) == ACCOUNT;
        zones.insert(row.get(0), SeenZone { is_ours, ..SeenZone::default() });
    }
    let records = "SELECT domains.name, coalesce(records.name, ''), coalesce(records.type, ''), \
                   coalesce(records.content, ''), pvc_records.record IS NOT NULL \
                   FROM domains JOIN records ON records.domain_id = domains.id \
                   LEFT JOIN pvc_records ON pvc_records.record = records.id \
                   WHERE domains.account = $1 LIMIT $2";
    for row in txn.query(records, &[&ACCOUNT, &MOST]).await? {
        let Some(zone) = zones.get_mut(row.get::<_, &str>(0)) else { continue };
        let (name, kind, content, is_ours): (String, &str, &str, bool) =
            (row.get(1), row.get(2), row.get(3), row.get(4));
        match Data::read(kind, content) {
            _ if kind == "SOA" => zone.serial = Soa::serial_of(content),
            Some(data) if is_ours => drop(zone.ours.insert(Record { name, data })),
            _ => drop(zone.others.insert(Foreign { name, kind: kind.into(), content: content.into() })),
        }
    }
    txn.commit().await?;
    Ok(zones)
}

async fn write(txn: &Transaction<'_>, change: &ZoneChange) -> Result<(), Failure> {
    let zone = match &change.act {
        ZoneAct::Make(soa) => make(txn, &change.zone, soa).await?,
        ZoneAct::Keep { from, soa } => {
            let zone = lock(txn, &change.zone, *from).await?;
            txn.execute("DELETE FROM records WHERE domain_id = $1 AND type = 'SOA'", &[&zone]).await?;
            insert_soa(txn, zone, &change.zone, soa).await?;
            zone
        }
        ZoneAct::Drop { from } => {
            let zone = lock(txn, &change.zone, *from).await?;
            let others = "SELECT count(*) FROM records LEFT JOIN pvc_records ON pvc_records.record = records.id \
                          WHERE domain_id = $1 AND type <> 'SOA' AND pvc_records.record IS NULL";
            if txn.query_one(others, &[&zone]).await?.get::<_, i64>(0) > 0 {
                return Err(Failure::Conflict);
            }
            txn.execute("DELETE FROM domains WHERE id = $1", &[&zone]).await?;
            return Ok(());
        }
    };
    remove(txn, zone, &change.remove).await?;
    add(txn, zone, &change.add).await?;
    Ok(())
}

async fn make(txn: &Transaction<'_>, name: &str, soa: &Soa) -> Result<i32, Failure> {
    let insert = "INSERT INTO domains (name, type, account) VALUES ($1, 'MASTER', $2) \
                  ON CONFLICT (name) DO NOTHING RETURNING id";
    let zone = txn.query_opt(insert, &[&name, &ACCOUNT]).await?.ok_or(Failure::Conflict)?.get(0);
    insert_soa(txn, zone, name, soa).await?;
    Ok(zone)
}

/// Holds a zone of ours, if it is as it was seen.
async fn lock(txn: &Transaction<'_>, name: &str, serial: Option<u32>) -> Result<i32, Failure> {
    let find = "SELECT id FROM domains WHERE name = $1 AND account = $2 FOR UPDATE";
    let zone = txn.query_opt(find, &[&name, &ACCOUNT]).await?.ok_or(Failure::Conflict)?.get(0);
    let soa = "SELECT coalesce(content, '') FROM records WHERE domain_id = $1 AND type = 'SOA'";
    let found = txn.query(soa, &[&zone]).await?;
    let found = found.first().and_then(|row| Soa::serial_of(row.get(0)));
    if found == serial { Ok(zone) } else { Err(Failure::Conflict) }
}

async fn insert_soa(txn: &Transaction<'_>, zone: i32, name: &str, soa: &Soa) -> Result<(), Failure> {
    let insert = "INSERT INTO records (domain_id, name, type, content, ttl) VALUES ($1, $2, 'SOA', $3, $4)";
    txn.execute(insert, &[&zone, &name, &soa.to_string(), &TTL_S]).await?;
    Ok(())
}

async fn add(txn: &Transaction<'_>, zone: i32, records: &[Record]) -> Result<(), Failure> {
    let insert = "WITH made AS (INSERT INTO records (domain_id, name, type, content, ttl) \
                  SELECT $1, name, type, content, $5 FROM unnest($2::text[], $3::text[], $4::text[]) \
                  AS new (name, type, content) RETURNING id) INSERT INTO pvc_records SELECT id FROM made";
    let (names, kinds, contents) = columns(records);
    txn.execute(insert, &[&zone, &names, &kinds, &contents, &TTL_S]).await?;
    Ok(())
}

async fn remove(txn: &Transaction<'_>, zone: i32, records: &[Record]) -> Result<(), Failure> {
    let delete = "DELETE FROM records USING pvc_records, unnest($2::text[], $3::text[], $4::text[]) \
                  AS old (name, type, content) WHERE records.domain_id = $1 AND pvc_records.record = records.id \
                  AND records.name = old.name AND records.type = old.type AND records.content = old.content";
    let (names, kinds, contents) = columns(records);
    txn.execute(delete, &[&zone, &names, &kinds, &contents]).await?;
    Ok(())
}

fn columns(records: &[Record]) -> (Vec<&str>, Vec<&str>, Vec<String>) {
    let names = records.iter().map(|record| record.name.as_str()).collect();
    let kinds = records.iter().map(|record| record.data.kind()).collect();
    (names, kinds, records.iter().map(|record| record.data.content()).collect())
}
