//! `pvc vm modify`: another definition, from a file or an editor. What an operator has typed is never lost.

use std::{
    io::{self, IsTerminal as _, Write as _},
    path::Path,
    process::Command,
};

use pvc_operate::{
    Answer,
    vm::{Desired, Dump},
};
use tempfile::NamedTempFile;

use super::{
    super::confirm::{self, Otherwise},
    text_of,
};
use crate::{
    args,
    cmd::follow::follow,
    door::Door,
    failure::Failure,
    print::{self, Out},
};

pub(super) async fn modify(door: &Door, out: &Out, args: &args::Modify) -> Result<(), Failure> {
    let before = door.dump(&args.vm.vm).await?;
    let uuid = before.0.uuid;
    let answer = match &args.file {
        Some(file) => door.modify(uuid, &text_of(file)?, None).await?,
        None if args.editor || io::stdin().is_terminal() => match edit(door, out, &before).await? {
            Some(answer) => answer,
            None => return out.write("nothing was changed\n"),
        },
        None => {
            let what = "which definition? Name a file, `-` for standard input, or --editor";
            return Err(Failure::Usage(what.into()));
        }
    };
    out.answer(&answer)?;
    if !args.restart || door.claim(uuid).await?.is_empty() {
        return Ok(());
    }
    let (asked, _) = door.set_state(&uuid.to_string(), Desired::Restart, false).await?;
    let patience = asked.patience;
    follow(door, out, asked, Some(patience)).await
}

/// Has it edited until it is accepted or the operator gives up; `None`: nothing was changed.
async fn edit(door: &Door, out: &Out, (before, mark): &(Dump, String)) -> Result<Option<Answer>, Failure> {
    let doing = || "edit the definition".to_owned();
    let draft = draft(&before.xml).map_err(|cause| Failure::Machine { doing: doing(), cause })?;
    let outcome = loop {
        let path = draft.path().to_owned();
        let edited = tokio::task::spawn_blocking(move || run_editor(&path)).await;
        let edited = edited.map_err(io::Error::other).flatten();
        if let Err(cause) = edited {
            break Err(Failure::Machine { doing: doing(), cause });
        }
        // Editors may have put another file in its place.
        let text = match text_of(draft.path()) {
            Ok(text) if text == before.xml => return Ok(None),
            Ok(text) => text,
            Err(failure) => break Err(failure),
        };
        let failure = match door.modify(before.uuid, &text, Some(mark)).await {
            Ok(answer) => return Ok(Some(answer)),
            Err(failure) => failure,
        };
        // What somebody else has written since stays newer, however often this is edited.
        let now = door.dump(&before.uuid.to_string()).await;
        let is_newer = now.is_ok_and(|(_, now)| now != *mark);
        if !failure.is_refusal() || is_newer || !again(&failure.to_string()) {
            break Err(failure);
        }
    };
    let unchanged = std::fs::read_to_string(draft.path()).is_ok_and(|text| text == before.xml);
    if !unchanged {
        let kept = draft.keep().map_or_else(|error| error.file.path().to_owned(), |(_, path)| path);
        out.aside(&format!("what you have written is in {}", kept.display()));
    }
    outcome
}

/// Whether a person wants to edit it again, if there is one.
fn again(why: &str) -> bool {
    print::complain(why);
    confirm::ask("Edit it again?", Otherwise::Refuse).unwrap_or(false)
}

/// A file that nobody else can read: definitions may have passwords of consoles.
fn draft(xml: &str) -> io::Result<NamedTempFile> {
    let mut file = tempfile::Builder::new().prefix("pvc-").suffix(".xml").tempfile()?;
    file.write_all(xml.as_bytes())?;
    file.flush()?;
    Ok(file)
}

/// `VISUAL`, `EDITOR`, or what Debian calls `editor`: a command line of the operator's, so the shell reads it.
#[allow(
    clippy::disallowed_methods,
    reason = "a person's editor has no deadline, and the person's own command line"
)]
fn run_editor(path: &Path) -> io::Result<()> {
    let named = |name| std::env::var(name).ok().filter(|value: &String| !value.trim().is_empty());
    let editor = named("VISUAL").or_else(|| named("EDITOR")).unwrap_or_else(|| "editor".into());
    let status =
        Command::new("/bin/sh").args(["-c", &format!("{editor} \"$1\""), "pvc"]).arg(path).status()?;
    if status.success() {
        return Ok(());
    }
    Err(io::Error::other(format!(
        "the editor ({editor}) ended with {status}; another one is named by EDITOR"
    )))
}
