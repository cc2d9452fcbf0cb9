//! The HTTP API: a service of its own, without privileges, that commands the cluster through `pvc-operate` as the command line does.
//!
//! Decides nothing: what is allowed is `pvc_core::command`'s business. What arrives is bounded before it is looked at (`server`, `ask`), and whoever asks
//! is known before a handler runs (`routes`, `gate`): a handler that is not in the table of routes is not reached, and one that is says who may.

mod api;
mod ask;
mod audit;
mod book;
mod clock;
mod connection;
mod differences;
mod gate;
mod guesses;
mod limit;
mod limits;
mod metrics;
mod noted;
mod page;
mod past;
mod readings;
mod remembered;
mod reply;
mod routes;
mod server;
mod session;
mod shares;
mod taken;
mod talk;
mod tls;
mod v1;
mod v2;
mod vms;
mod watch;
mod who;
mod written;

pub use api::Api;
pub use gate::Gate;
pub use limits::{Limits, Share};
pub use routes::{Access, Route, openapi, router, routes};
pub use server::Server;
pub use tls::{Tls, TlsError};
pub use watch::watch;
