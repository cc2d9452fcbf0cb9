//! The configuration of the API, checked as [`super::Config`] is.

use std::{net::SocketAddr, path::PathBuf};

pub use pvc_core::model::token::Role;

use crate::{coordinators::Coordinator, secret::Secret};

/// Everything `pvc-api.yaml` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiConfig {
    /// `debug`.
    pub debug: bool,
    /// `coordinators`: where ZooKeeper is.
    pub coordinators: Vec<Coordinator>,
    /// `api.listen_address` and `listen_port`.
    pub listen: SocketAddr,
    /// `api.authentication`; `None`: it is off.
    pub authentication: Option<Authentication>,
    /// `api.ssl`; `None`: TLS is off.
    pub tls: Option<TlsFiles>,
}

/// A certificate and its key, both PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// `cert_file`.
    pub certificate: PathBuf,
    /// `key_file`.
    pub key: PathBuf,
}

/// Who may.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authentication {
    /// `secret_key`, if there is one.
    pub secret_key: Option<Secret>,
    /// `tokens`; none is empty.
    pub tokens: Vec<ApiToken>,
}

/// A token and who has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiToken {
    /// Who.
    pub description: String,
    /// What it is good for.
    pub role: Role,
    /// The token.
    pub token: Token,
}

/// A token, as the file has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Token {
    /// As it is sent.
    Plain(Secret),
    /// Its SHA-256.
    Sha256([u8; 32]),
}
