//! `pvc audit list`: who has changed what over the API.

use pvc_core::model::audit::AuditEntry;

use super::now_unix_s;
use crate::{
    door::Door,
    failure::Failure,
    print::{
        Out,
        table::{Cell, printable, table},
    },
};

pub(super) async fn list(door: &Door, out: &Out, lines: u64) -> Result<(), Failure> {
    let (entries, problems) = door.audit(lines).await?;
    if out.is_json() {
        return out.json(&entries);
    }
    let now = now_unix_s();
    let row = |entry: &AuditEntry| -> Vec<Cell> {
        vec![
            format!("{} s ago", now.saturating_sub(entry.at_unix_s)).into(),
            Cell::from(&entry.by),
            Cell::from(&entry.from),
            Cell::from(&entry.what),
            entry.status.map_or("?".to_owned(), |status| status.to_string()).into(),
            Cell::from(&entry.said),
        ]
    };
    let rows: Vec<Vec<Cell>> = entries.iter().map(row).collect();
    out.write(&table(&["when", "by", "from", "what", "answer", ""], &rows, out.colour()))?;
    for problem in problems {
        out.write(&format!("? {}\n", printable(&problem.to_string())))?;
    }
    Ok(())
}
