//! `pvc login` and `pvc logout`: keeps a token for a cluster's API, or forgets it. The token comes from the terminal, unseen, or from standard input; never from the command line,
//! which everybody on this machine can read.

use std::io::{self, IsTerminal as _, Read as _};

use serde::{Deserialize, Serialize};

use crate::{
    door::{Call, endpoint::Token},
    failure::Failure,
    places::{Login, Said, folder},
    print::{self, Out},
};

/// Longer than any token, with the end of its line.
const MOST: u64 = 4096;

/// Who one is there.
#[derive(Deserialize)]
struct Session {
    name: String,
    role: String,
}

/// What was kept.
#[derive(Serialize)]
struct Kept<'a> {
    message: String,
    cluster: &'a str,
    api: String,
    role: &'a str,
}

pub(super) async fn login(said: Said, out: &Out) -> Result<(), Failure> {
    let login = find(said)?;
    let token = Token::new(&ask(&format!("Token for {} ({}):", login.name, login.endpoint))?)?;
    let session: Session = login.client(token.clone())?.ask(Call::get(&["session"])).await?;
    login.keep(&token)?;
    let message = format!(
        "the token {} is kept for cluster {} ({}): its role is {}",
        session.name, login.name, login.endpoint, session.role
    );
    if out.is_json() {
        let api = login.endpoint.to_string();
        return out.json(&Kept { message, cluster: &login.name, api, role: &session.role });
    }
    out.write(&format!("{message}\n"))
}

pub(super) fn logout(said: Said, out: &Out) -> Result<(), Failure> {
    let login = find(said)?;
    let was = login.forget()?;
    let message = if was {
        "is forgotten on this machine; `pvc token remove` ends it everywhere"
    } else {
        "is not kept here"
    };
    out.answer(&pvc_operate::Answer {
        message: format!("the token for cluster {} {message}", login.name),
        notes: Vec::new(),
    })
}

fn find(said: Said) -> Result<Login, Failure> {
    let of = |name: &str| std::env::var(name).ok();
    let none = || Failure::Usage("where may this be kept? HOME is not set".to_owned());
    Login::find(said, of, folder(of).ok_or_else(none)?)
}

/// What is typed, unseen; without a terminal, what standard input has.
fn ask(question: &str) -> Result<String, Failure> {
    let failed = |cause| Failure::Machine { doing: "read the token".into(), cause };
    if !io::stdin().is_terminal() {
        let mut text = String::new();
        io::stdin().lock().take(MOST).read_to_string(&mut text).map_err(failed)?;
        return Ok(text);
    }
    let none = || Failure::Interrupted("no token was kept".to_owned());
    print::ask_unseen(question).map_err(failed)?.ok_or_else(none)
}
