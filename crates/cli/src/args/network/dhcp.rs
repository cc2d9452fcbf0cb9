//! The arguments of `pvc network dhcp …`.

use clap::Subcommand;
use regex_lite::Regex;

use crate::args::regex;

#[derive(Debug, Subcommand)]
pub(crate) enum Dhcp {
    /// List leases and reservations, and how many of the addresses are given out.
    List {
        /// The network's number or description.
        network: String,
        /// Only those whose address, hardware address or name matches this regular expression.
        #[arg(value_parser = regex)]
        limit: Option<Regex>,
    },
    /// Work with addresses that one card always gets.
    #[command(subcommand)]
    Static(Static),
}

#[derive(Debug, Subcommand)]
pub(crate) enum Static {
    /// Reserve an address for a network card, in place of what is reserved for it.
    Add {
        /// The network's number or description.
        network: String,
        /// The address.
        address: String,
        /// The card's hardware address.
        mac: String,
        /// The name that the guest has, whatever it says [default: what it says].
        name: Option<String>,
    },
    /// Remove a reservation. Who has the address keeps it until its lease ends.
    Remove {
        /// The network's number or description.
        network: String,
        /// Its hardware address, address or name.
        reservation: String,
    },
    /// List reservations.
    List {
        /// The network's number or description.
        network: String,
        /// Only those whose address, hardware address or name matches this regular expression.
        #[arg(value_parser = regex)]
        limit: Option<Regex>,
    },
}
