//! What the primary coordinator is asked to look for at Ceph: who holds locks, who is shut out.

use pvc_core::model::{
    StorageCommand,
    ceph::PoolName,
    found::{Found, Holder, LockRow, Rows, ShutOutRow},
    storage_command::Only,
};
use pvc_operate::Progress;

use crate::{
    args::{Change, StorageFence},
    cmd::{confirm, follow, now_unix_s},
    door::Door,
    failure::Failure,
    print::{
        Out,
        table::{Cell, printable, table},
    },
};

pub(super) async fn locks(
    door: &Door,
    out: &Out,
    pool: Option<PoolName>,
    change: &Change,
) -> Result<(), Failure> {
    let look = StorageCommand::Locks { pool: pool.into() };
    if let Some(Found::Locks(found)) = look_for(door, out, look, change).await? {
        let row = |row: &LockRow| {
            let holder = match row.holder {
                Holder::Heard => "heard",
                Holder::Silent => "! silent",
                Holder::ShutOut => "! shut out",
            };
            vec![
                Cell::from(&row.image),
                Cell::from(&row.client),
                Cell::from(holder),
                Cell::from(row.whose.as_deref().unwrap_or("?")),
                Cell::from(row.node.as_deref().unwrap_or("?")),
            ]
        };
        show(out, &["volume", "client", "holder", "whose", "node"], &found, row)?;
        let is_stale = |row: &LockRow| row.holder != Holder::Heard;
        if !out.is_json() && found.rows.iter().any(is_stale) {
            out.write(
                "\nA lock whose holder is silent or shut out is stale. The next start of its VM takes it; `pvc vm flush-locks VM` takes it of one that is off.\n",
            )?;
        }
    }
    Ok(())
}

pub(super) async fn fence(door: &Door, out: &Out, command: StorageFence) -> Result<(), Failure> {
    match command {
        StorageFence::List { change, node } => {
            let look = StorageCommand::FenceList { node: node.into() };
            if let Some(Found::ShutOut(found)) = look_for(door, out, look, &change).await? {
                let row = |row: &ShutOutRow| {
                    let days = row.until_unix_s.saturating_sub(now_unix_s()) / (24 * 3600);
                    vec![
                        Cell::from(&row.client),
                        Cell::from(row.whose.as_deref().unwrap_or("?")),
                        Cell::from(row.node.as_deref().unwrap_or("?")),
                        Cell::from(format!("{days} days")),
                        Cell::from(
                            row.stays.as_deref().unwrap_or("may be lifted: its process is proven dead"),
                        ),
                    ]
                };
                show(out, &["client", "whose", "node", "for", ""], &found, row)?;
            }
            Ok(())
        }
        StorageFence::Lift { removal, client } => {
            let whom = match &client {
                Only::All => "all clients whose processes are proven dead".to_owned(),
                Only::One(client) => format!("client {client}"),
            };
            let question = format!("Let {whom} in again?");
            confirm::insist(Some(&question), "nobody was let in", removal.yes)?;
            super::change(door, out, StorageCommand::FenceLift { client }, false, &removal.change).await
        }
    }
}

/// What the primary has found; `None` if nobody waits for it.
async fn look_for(
    door: &Door,
    out: &Out,
    look: StorageCommand,
    change: &Change,
) -> Result<Option<Found>, Failure> {
    let (task, asked) = door.change_storage(&look, false).await?;
    if change.no_wait {
        out.answer(&asked.answer)?;
        return Ok(None);
    }
    let (message, more) = (asked.answer.message.clone(), asked.more.clone());
    let work = async |progress: Progress<'_>| asked.wait(door, change.within, progress).await;
    follow::watched(out, |_| format!("{message} all the same. {more}"), work).await?;
    Ok(door.task(task).await?.found)
}

fn show<T: serde::Serialize, const N: usize>(
    out: &Out,
    header: &[&str; N],
    found: &Rows<T>,
    row: impl Fn(&T) -> Vec<Cell>,
) -> Result<(), Failure> {
    if out.is_json() {
        return out.json(found);
    }
    let rows: Vec<Vec<Cell>> = found.rows.iter().map(row).collect();
    out.write(&table(header, &rows, out.colour()))?;
    if found.left_off > 0 {
        out.write(&format!("and {} more\n", found.left_off))?;
    }
    for unknown in &found.unknown {
        out.write(&format!("? {}\n", printable(unknown)))?;
    }
    Ok(())
}
