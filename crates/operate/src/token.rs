//! Tokens of the HTTP API in the state tree.

use std::collections::BTreeSet;

use pvc_core::{
    command::token as command,
    model::{
        Problem, VmName,
        token::{AccessToken, Role, TokenHash, TokenName},
    },
};
use pvc_store::schema::token as schema;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::{Answer, Cluster, Failure};

/// What is asked of a new token.
#[derive(Debug, Clone)]
pub struct NewToken {
    /// What it is called.
    pub name: TokenName,
    /// What it is good for.
    pub role: Role,
    /// The only VMs that it is good for; `None`: it is limited to none.
    pub vms: Option<BTreeSet<VmName>>,
    /// From when on it is good for nothing, in seconds since 1970.
    pub expires_unix_s: Option<u64>,
}

/// A token that was added. What it is sent as is here and nowhere else.
#[derive(Serialize, Deserialize)]
pub struct Added {
    /// What to send.
    pub token: String,
    /// What was done.
    #[serde(flatten)]
    pub answer: Answer,
}

/// A token as it is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenRow {
    /// What it is called.
    pub name: String,
    /// What it is good for.
    pub role: Role,
    /// The only VMs that it is good for; absent: it is limited to none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vms: Option<BTreeSet<VmName>>,
    /// Its last four characters.
    pub ends: String,
    /// When it was made, in seconds since 1970.
    pub created_unix_s: u64,
    /// From when on it is good for nothing, in seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_unix_s: Option<u64>,
}

impl From<(TokenName, AccessToken)> for TokenRow {
    fn from((name, token): (TokenName, AccessToken)) -> Self {
        let AccessToken { role, vms, ends, created_unix_s, expires_unix_s, .. } = token;
        Self { name: name.to_string(), role, vms, ends, created_unix_s, expires_unix_s }
    }
}

/// Adds a token of 244 random bits.
pub async fn add(cluster: &Cluster, new: NewToken, now_unix_s: u64) -> Result<Added, Failure> {
    let sent = format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple());
    let NewToken { name, role, vms, expires_unix_s } = new;
    let token = AccessToken {
        sha256: TokenHash(Sha256::digest(sent.as_bytes()).into()),
        role,
        vms,
        ends: sent.chars().skip(60).collect(),
        created_unix_s: now_unix_s,
        expires_unix_s,
    };
    let others = schema::read_all(&*cluster.store).await?.keys;
    command::add(&name, &token, others, now_unix_s)?;
    if !schema::add(&*cluster.store, &name, &token).await? {
        return Err(command::taken(&name).into());
    }
    let answer = Answer {
        message: format!("token {name} is added, with the role {}", role.word()),
        notes: vec!["it is shown this once: only its hash is kept".to_owned()],
    };
    Ok(Added { token: sent, answer })
}

/// All tokens of the state tree by name, and what is wrong with those that cannot be used.
pub async fn list(cluster: &Cluster) -> Result<(Vec<TokenRow>, Vec<Problem>), Failure> {
    let tokens = schema::read_all(&*cluster.store).await?;
    Ok((tokens.good.into_iter().map(TokenRow::from).collect(), tokens.bad))
}

/// One of them.
pub async fn info(cluster: &Cluster, name: &str) -> Result<TokenRow, Failure> {
    let (rows, _) = list(cluster).await?;
    rows.into_iter().find(|row| row.name == name).ok_or_else(|| command::missing(name).into())
}

/// Removes a token, also one that cannot be read.
pub async fn remove(cluster: &Cluster, name: &str) -> Result<Answer, Failure> {
    if !schema::remove(&*cluster.store, name).await? {
        return Err(command::missing(name).into());
    }
    Ok(Answer::new(format!("token {name} is removed: nobody gets in with it any more")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Fake;

    #[tokio::test]
    async fn a_token_is_kept_as_its_hash_only_and_its_name_is_taken_once() {
        let fake = Fake::with(&[]).await;
        let new =
            NewToken { name: "ci".parse().unwrap(), role: Role::Operate, vms: None, expires_unix_s: None };
        let added = add(&fake.cluster, new.clone(), 7).await.unwrap();
        assert_eq!(added.token.len(), 64);
        let stored = fake.get("/pvc/tokens/ci").await.unwrap();
        assert!(!stored.contains(&added.token), "{stored}");
        let hash: String = TokenHash(Sha256::digest(added.token.as_bytes()).into()).into();
        assert!(stored.contains(&hash), "{stored}");
        assert!(!added.answer.message.contains(&added.token));
        let row = info(&fake.cluster, "ci").await.unwrap();
        assert!(added.token.ends_with(&row.ends) && row.ends.len() == 4);
        assert!(matches!(add(&fake.cluster, new, 8).await, Err(Failure::Refused(_))));
        assert_eq!(fake.get("/pvc/tokens/ci").await.unwrap(), stored);
        remove(&fake.cluster, "ci").await.unwrap();
        assert!(matches!(remove(&fake.cluster, "ci").await, Err(Failure::Refused(_))));
        assert_eq!(list(&fake.cluster).await.unwrap(), (vec![], vec![]));
    }
}
