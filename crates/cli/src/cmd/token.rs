//! `pvc token …`: tokens of the HTTP API in the state tree.

use pvc_operate::token::{NewToken, TokenRow};

use super::now_unix_s;
use crate::{
    args::Token,
    door::Door,
    failure::Failure,
    print::{
        Out,
        table::{Cell, printable, table},
    },
};

const DAY_S: u64 = 24 * 3600;

pub(super) async fn run(command: Token, door: &Door, out: &Out) -> Result<(), Failure> {
    match command {
        Token::Add { name, role, vms, expires_in } => {
            let now = now_unix_s();
            let expires_unix_s = expires_in.map(|days| now + u64::from(days) * DAY_S);
            let vms = (!vms.is_empty()).then(|| vms.into_iter().collect());
            let added = door.add_token(NewToken { name, role, vms, expires_unix_s }).await?;
            if out.is_json() {
                return out.json(&added);
            }
            // Alone on standard output, for whoever sends it into a file.
            out.write(&format!("{}\n", added.token))?;
            out.aside(&added.answer.message);
            added.answer.notes.iter().for_each(|note| out.aside(note));
            Ok(())
        }
        Token::List => list(door, out).await,
        Token::Remove { name } => out.answer(&door.remove_token(&name).await?),
    }
}

async fn list(door: &Door, out: &Out) -> Result<(), Failure> {
    let (tokens, problems) = door.tokens().await?;
    if out.is_json() {
        return out.json(&tokens);
    }
    let now = now_unix_s();
    let row = |token: &TokenRow| -> Vec<Cell> {
        let expires = token.expires_unix_s.map_or("never".to_owned(), |end| match end.checked_sub(now) {
            None | Some(0) => "expired".to_owned(),
            Some(left) => format!("in {} days", left.div_ceil(DAY_S)),
        });
        let vms = token.vms.as_ref().map_or("all".to_owned(), |vms| {
            vms.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
        });
        vec![
            Cell::from(&token.name),
            Cell::from(token.role.word()),
            Cell::from(vms),
            Cell::from(format!("…{}", token.ends)),
            Cell::from(format!("{} days ago", now.saturating_sub(token.created_unix_s) / DAY_S)),
            Cell::from(expires),
        ]
    };
    let rows: Vec<Vec<Cell>> = tokens.iter().map(row).collect();
    out.write(&table(&["name", "role", "VMs", "ends with", "created", "expires"], &rows, out.colour()))?;
    for problem in problems {
        out.write(&format!("? nobody gets in by it: {}\n", printable(&problem.to_string())))?;
    }
    Ok(())
}
