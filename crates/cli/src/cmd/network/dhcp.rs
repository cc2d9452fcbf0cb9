//! `pvc network dhcp …`: who has which address, and reservations.

use pvc_core::command::network::dhcp::NewReservation;
use pvc_operate::{
    Cluster,
    network::dhcp::{self as command, Addresses, LeaseRow},
};
use regex_lite::Regex;

use crate::{
    args::{Dhcp, Static},
    cmd::now_unix_s,
    failure::Failure,
    print::{
        Out,
        table::{Cell, printable, table},
    },
};

pub(super) async fn run(command: Dhcp, cluster: &Cluster, out: &Out) -> Result<(), Failure> {
    let now = now_unix_s();
    match command {
        Dhcp::List { network, limit } => {
            let mut shown = command::list(cluster, &network, now).await?;
            shown.leases.retain(|row| matches(row, limit.as_ref()));
            list(&shown, out)
        }
        Dhcp::Static(Static::Add { network, address, mac, name }) => {
            let new = NewReservation { mac: &mac, address: &address, name: name.as_deref() };
            out.answer(&command::add(cluster, &network, new, now).await?)
        }
        Dhcp::Static(Static::Remove { network, reservation }) => {
            out.answer(&command::remove(cluster, &network, &reservation).await?)
        }
        Dhcp::Static(Static::List { network, limit }) => {
            let mut shown = command::list(cluster, &network, now).await?;
            shown.leases.retain(|row| row.is_reserved && matches(row, limit.as_ref()));
            list(&shown, out)
        }
    }
}

fn matches(row: &LeaseRow, limit: Option<&Regex>) -> bool {
    let name = row.hostname.as_deref().unwrap_or_default();
    let texts = [row.ip4_address.as_str(), row.mac_address.as_str(), name];
    limit.is_none_or(|limit| texts.iter().any(|text| limit.is_match(text)))
}

const HEADER: [&str; 6] = ["address", "name", "hardware address", "vm", "reserved", "lease ends"];

fn list(shown: &Addresses, out: &Out) -> Result<(), Failure> {
    if out.is_json() {
        return out.json(shown);
    }
    let row = |row: &LeaseRow| -> Vec<Cell> {
        let text = |text: &Option<String>| Cell::from(text.clone().unwrap_or_default());
        vec![
            Cell::from(&row.ip4_address),
            text(&row.hostname),
            Cell::from(&row.mac_address),
            text(&row.vm),
            Cell::from(if row.is_reserved { "static" } else { "" }),
            text(&row.ends),
        ]
    };
    let rows: Vec<Vec<Cell>> = shown.leases.iter().map(row).collect();
    out.write(&table(&HEADER, &rows, out.colour()))?;
    let pool = match shown.pool {
        Some(pool) => {
            format!(
                "{} of {} addresses of the range are given out, besides reserved ones",
                pool.given, pool.size
            )
        }
        None => "DHCP is not served in this network".to_owned(),
    };
    out.write(&format!("{pool}\n"))?;
    for problem in &shown.problems {
        out.write(&format!("? {}\n", printable(problem)))?;
    }
    Ok(())
}
