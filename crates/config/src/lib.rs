//! `pvcd.yaml` and `pvc-api.yaml`: every setting typed and checked, all mistakes told in one run, each with its line.
//!
//! Its own crate because the daemon, the CLI, the API and the lab read the same files. It looks at text and at the file system,
//! never at devices, the network or a cluster, and needs no privileges: see `docs/decisions/0001-configuration-crate.md`.

mod api;
mod check;
mod config;
mod coordinators;
mod diagnostic;
mod files;
mod kind;
mod net;
mod read;
mod relations;
#[cfg(any(test, feature = "sample"))]
pub mod sample;
mod scalar;
mod secret;
mod settings;
mod source;
mod tree;
mod walk;

pub use api::{ApiReport, SHORT_TOKEN, check_api, load_api};
pub use check::{Checked, Report, check, coordinators_of};
pub use config::{
    ApiConfig, ApiToken, Authentication, Config, Directories, DnsDatabase, FenceAction, FenceActions,
    Functions, Interface, Intervals, Ipmi, Logging, Network, PerNetwork, Role, TlsFiles, Token,
};
pub use coordinators::{Coordinator, DEFAULT_PORT, connect_string};
pub use diagnostic::{Diagnostic, Severity};
pub use files::{check_file, coordinators_in, load};
pub use secret::Secret;
pub use source::Excerpt;
