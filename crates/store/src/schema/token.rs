//! `/pvc/tokens/<name>` **(ours)**: tokens of the HTTP API beside those of its configuration, each a JSON object with the hash of the token and what it is good
//! for. What cannot be read is nobody's token.

use pvc_core::{
    command::token::MOST_TOKENS,
    model::{
        Problem,
        token::{AccessToken, TokenName},
    },
};

use super::text::Decoder;
use crate::{Clash, CommitError, Store, StoreError, Transaction};

/// The parent of all tokens.
pub const ROOT: &str = "/pvc/tokens";

/// A value that is longer is no token: the largest is of 64 VMs with long names.
const LONGEST: usize = 16 * 1024;

/// So many keys are read in one request.
const AT_ONCE: usize = 16;

/// The tokens that can be used, by their names, and what is wrong with the others.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tokens {
    /// Sorted by name.
    pub good: Vec<(TokenName, AccessToken)>,
    /// The keys of those that cannot be used, and why.
    pub bad: Vec<Problem>,
    /// All keys there are.
    pub keys: usize,
}

/// A token's key.
pub fn path(name: &str) -> String {
    format!("{ROOT}/{name}")
}

/// All tokens. Of very many, the first by name.
pub async fn read_all(store: &dyn Store) -> Result<Tokens, StoreError> {
    let mut d = Decoder::default();
    let mut keys = store.children(ROOT).await?.unwrap_or_default();
    let all = keys.len();
    keys.sort_unstable();
    if all > MOST_TOKENS {
        d.problem(
            ROOT,
            format_args!("there are {all} tokens, and only the first {MOST_TOKENS} by name count"),
        );
        keys.truncate(MOST_TOKENS);
    }
    let mut names: Vec<TokenName> = Vec::new();
    for key in &keys {
        match key.parse() {
            Ok(name) => names.push(name),
            Err(error) => d.problem(&path(key), error),
        }
    }
    let paths: Vec<String> = names.iter().map(|name| path(name.as_str())).collect();
    let mut values = Vec::new();
    // Few at once: each may be as large as ZooKeeper takes it.
    for paths in paths.chunks(AT_ONCE) {
        values.extend(read(store, paths, &mut d).await?);
    }
    let mut good = Vec::new();
    for ((name, path), value) in names.into_iter().zip(&paths).zip(values) {
        let Some(value) = value else { continue };
        match value {
            Ok(token) => good.push((name, token)),
            Err(flaw) => d.problem(path, flaw),
        }
    }
    Ok(Tokens { good, bad: d.problems, keys: all })
}

/// What these keys hold; `None`: nothing any more, or what is not shown.
async fn read(
    store: &dyn Store,
    paths: &[String],
    d: &mut Decoder,
) -> Result<Vec<Option<Result<AccessToken, String>>>, StoreError> {
    match store.get_many(paths).await {
        Err(StoreError::Refused { .. }) => {}
        values => return Ok(values?.into_iter().map(|value| Some(token(&value?.data))).collect()),
    }
    // One of them is not shown, and hides no other.
    let mut tokens = Vec::new();
    for path in paths {
        tokens.push(match store.get(path).await {
            Err(StoreError::Refused { why, .. }) => {
                d.problem(path, format_args!("the store does not show it: {why}"));
                None
            }
            value => value?.map(|value| token(&value.data)),
        });
    }
    Ok(tokens)
}

fn token(data: &[u8]) -> Result<AccessToken, String> {
    if data.len() > LONGEST {
        return Err(format!("it has {} bytes; a token has no more than {LONGEST}", data.len()));
    }
    let token: AccessToken = serde_json::from_slice(data).map_err(|error| format!("not a token: {error}"))?;
    token.flaw().map_or(Ok(token), |flaw| Err(flaw.to_owned()))
}

/// Adds a token; `false`: there is one of that name.
pub async fn add(store: &dyn Store, name: &TokenName, token: &AccessToken) -> Result<bool, CommitError> {
    let root = store.stat_many(&[ROOT.to_owned()]).await.map_err(CommitError::Failed)?;
    let mut txn = Transaction::default();
    if root.first().is_none_or(Option::is_none) {
        txn.create(ROOT, "");
    }
    let path = path(name.as_str());
    // Texts and numbers always have a JSON form.
    txn.create(path.clone(), serde_json::to_vec(token).unwrap_or_default());
    match store.commit(txn).await {
        Err(CommitError::Conflict { path: at, clash: Clash::Present, .. }) if at == path => Ok(false),
        other => other.map(|_| true),
    }
}

/// Removes a token, whatever its key holds; `false`: there is none.
pub async fn remove(store: &dyn Store, name: &str) -> Result<bool, CommitError> {
    // What is no key's name would be another path.
    let keys = store.children(ROOT).await.map_err(CommitError::Failed)?.unwrap_or_default();
    if !keys.iter().any(|key| key == name) {
        return Ok(false);
    }
    let mut txn = Transaction::default();
    txn.delete(path(name), None);
    match store.commit(txn).await {
        Err(CommitError::Conflict { clash: Clash::Missing, .. }) => Ok(false),
        other => other.map(|_| true),
    }
}

#[cfg(test)]
mod tests {
    use pvc_core::model::token::{Role, TokenHash};

    use super::*;
    use crate::{memory::MemoryTree, put::put, schema::root};

    fn token(first: u8) -> AccessToken {
        AccessToken {
            sha256: TokenHash([first; 32]),
            role: Role::Read,
            vms: None,
            ends: "abcd".to_owned(),
            created_unix_s: 1,
            expires_unix_s: None,
        }
    }

    #[test]
    fn what_is_not_quite_a_token_is_none() {
        let good = format!(
            r#"{{"sha256":"{}","role":"operate","vms":["web1"],"created_unix_s":1}}"#,
            "0a".repeat(32)
        );
        let token = super::token(good.as_bytes()).unwrap();
        assert_eq!((token.sha256.0, token.role), ([10; 32], Role::Operate));
        assert_eq!(super::token(&serde_json::to_vec(&token).unwrap()), Ok(token));
        for (part, other) in [
            ("\"0a", "\"0"),
            ("\"0a", "\"é"),
            ("operate", "root"),
            ("operate", "admin"),
            ("\"web1\"", ""),
            ("\"web1\"", "\"../web1\""),
            ("\"created_unix_s\":1", "\"created_unix_s\":-1"),
            ("\"role\"", "\"rule\""),
            ("{", "{\"token\":\"plain\","),
            ("{", "{\"ends\":\"abcde\","),
            ("{", "["),
        ] {
            assert!(super::token(good.replacen(part, other, 1).as_bytes()).is_err(), "{part} {other}");
        }
    }

    #[tokio::test]
    async fn a_token_is_added_once_and_what_is_none_is_named_and_can_be_removed() {
        let tree = MemoryTree::new();
        let store = tree.client();
        root::init(&*store).await.unwrap();
        let (one, two): (TokenName, TokenName) = ("one".parse().unwrap(), "two".parse().unwrap());
        assert_eq!(read_all(&*store).await.unwrap(), Tokens::default());
        assert!(!remove(&*store, "one").await.unwrap());
        assert!(add(&*store, &one, &token(1)).await.unwrap() && add(&*store, &two, &token(2)).await.unwrap());
        assert!(!add(&*store, &one, &token(3)).await.unwrap(), "it stays as it is");
        for (key, value) in
            [("rubbish", b"{}".to_vec()), ("long", vec![b' '; LONGEST + 1]), (".odd", b"{}".to_vec())]
        {
            put(&*store, &path(key), value).await.unwrap();
        }
        let tokens = read_all(&*store).await.unwrap();
        assert_eq!(tokens.good, [(one, token(1)), (two, token(2))]);
        assert_eq!((tokens.bad.len(), tokens.keys), (3, 5));
        for key in ["rubbish", "long", ".odd", "one"] {
            assert!(remove(&*store, key).await.unwrap());
        }
        for none in ["one", "../claim", "two/x", ""] {
            assert!(!remove(&*store, none).await.unwrap(), "{none}");
        }
        assert_eq!(read_all(&*store).await.unwrap().good.len(), 1);
    }
}
