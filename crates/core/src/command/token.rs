//! Commands on tokens of the HTTP API.

use super::Refusal;
use crate::model::token::{AccessToken, TokenName};

/// So many tokens are kept.
pub const MOST_TOKENS: usize = 1000;

/// Whether a token may be added beside so many others.
pub fn add(name: &TokenName, token: &AccessToken, others: usize, now_unix_s: u64) -> Result<(), Refusal> {
    let what = || format!("token {name} was not added");
    if let Some(flaw) = token.flaw() {
        return Err(Refusal::refused(what(), flaw, "add it with other words"));
    }
    if !token.is_valid_at(now_unix_s) {
        let todo = "let it expire later, or never";
        return Err(Refusal::refused(what(), "it would have expired already", todo));
    }
    if others >= MOST_TOKENS {
        let why = format!("there are {others} tokens");
        return Err(Refusal::refused(what(), why, "remove some: `pvc token list` shows them"));
    }
    Ok(())
}

/// There is one of that name.
pub fn taken(name: &TokenName) -> Refusal {
    Refusal::refused(
        format!("token {name} was not added"),
        "there is a token of that name",
        format!(
            "choose another name, or `pvc token remove {name}` first: what it was sent as is good for nothing then"
        ),
    )
}

/// There is none of that name.
pub fn missing(name: &str) -> Refusal {
    Refusal::not_found(
        format!("there is no token {name:?} in the state tree"),
        "none of them has this name",
        "`pvc token list` shows them; those of pvc-api.yaml are removed there",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::token::{Role, TokenHash};

    #[test]
    fn a_token_that_nobody_could_use_is_not_added() {
        let good = AccessToken {
            sha256: TokenHash([0; 32]),
            role: Role::Operate,
            vms: None,
            ends: "0000".to_owned(),
            created_unix_s: 1,
            expires_unix_s: Some(10),
        };
        let name: TokenName = "ci".parse().unwrap();
        assert_eq!(add(&name, &good, 0, 9), Ok(()));
        assert!(add(&name, &good, 0, 10).unwrap_err().why.contains("expired"));
        assert!(add(&name, &good, MOST_TOKENS, 9).is_err());
        let flawed = AccessToken { vms: Some(std::collections::BTreeSet::default()), ..good };
        assert!(add(&name, &flawed, 0, 9).is_err());
    }
}
