//! `pvc network dhcp …`: who has which address, and reservations.

use pvc_core::command::network::dhcp::NewReservation;
use pvc_operate::network::dhcp::{Addresses, LeaseRow, LeaseRow6};
use regex_lite::Regex;

use crate::{
    args::{Dhcp, Static},
    door::Door,
    failure::Failure,
    print::{
        Out,
        table::{Cell, printable, table},
    },
};

pub(super) async fn run(command: Dhcp, door: &Door, out: &Out) -> Result<(), Failure> {
    match command {
        Dhcp::List { network, limit } => {
            let mut shown = door.leases(&network).await?;
            shown.leases.retain(|row| matches(row, limit.as_ref()));
            shown.leases6.retain(|row| matches6(row, limit.as_ref()));
            list(&shown, out)
        }
        Dhcp::Static(Static::Add { network, address, mac, name }) => {
            let new = NewReservation { mac: &mac, address: &address, name: name.as_deref() };
            out.answer(&door.reserve(&network, new).await?)
        }
        Dhcp::Static(Static::Remove { network, reservation }) => {
            out.answer(&door.free(&network, &reservation).await?)
        }
        Dhcp::Static(Static::List { network, limit }) => {
            let mut shown = door.leases(&network).await?;
            shown.leases.retain(|row| row.is_reserved && matches(row, limit.as_ref()));
            shown.leases6.clear();
            list(&shown, out)
        }
    }
}

fn matches(row: &LeaseRow, limit: Option<&Regex>) -> bool {
    let name = row.hostname.as_deref().unwrap_or_default();
    let texts = [row.ip4_address.as_str(), row.mac_address.as_str(), name];
    limit.is_none_or(|limit| texts.iter().any(|text| limit.is_match(text)))
}

fn matches6(row: &LeaseRow6, limit: Option<&Regex>) -> bool {
    let name = row.hostname.as_deref().unwrap_or_default();
    let texts = [row.ip6_address.as_str(), row.mac_address.as_str(), name];
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
    let row6 = |row: &LeaseRow6| -> Vec<Cell> {
        let text = |text: &Option<String>| Cell::from(text.clone().unwrap_or_default());
        let (address, mac) = (Cell::from(&row.ip6_address), Cell::from(&row.mac_address));
        vec![address, text(&row.hostname), mac, text(&row.vm), Cell::from(""), Cell::from(&row.ends)]
    };
    let rows: Vec<Vec<Cell>> = shown.leases.iter().map(row).chain(shown.leases6.iter().map(row6)).collect();
    out.write(&table(&HEADER, &rows, out.colour()))?;
    let pool = match shown.pool {
        Some(pool) => {
            format!(
                "{} of {} addresses of the IPv4 range are given out, besides reserved ones",
                pool.given, pool.size
            )
        }
        None => "DHCP for IPv4 is not served in this network".to_owned(),
    };
    out.write(&format!("{pool}\n"))?;
    for problem in &shown.problems {
        out.write(&format!("? {}\n", printable(problem)))?;
    }
    Ok(())
}
