//! `pvc vm log`: the end of a VM's serial console, and what is printed from then on.

use pvc_operate::vm::{Console, New, last_lines};

use crate::{door::Door, failure::Failure, print::Out};

pub(super) async fn log(
    door: &Door,
    out: &Out,
    reference: &str,
    lines: usize,
    follow: bool,
) -> Result<(), Failure> {
    if follow && out.is_json() {
        return Err(Failure::Usage("--follow prints text as it comes: leave out --format json".into()));
    }
    let mut console = door.console(reference).await?;
    let window = console.window.clone();
    if out.is_json() {
        return out.json(&Console::of(console.uuid, &window, lines));
    }
    if !console.is_expected {
        out.aside("its definition has no console log: add <log file='…/NAME.log' append='on'/> to <serial>");
    }
    write(out, last_lines(&window, lines))?;
    if !follow {
        return if window.is_empty() || window.ends_with('\n') { Ok(()) } else { out.write("\n") };
    }
    let mut interrupt = std::pin::pin!(tokio::signal::ctrl_c());
    loop {
        let new = tokio::select! {
            new = door.printed(&mut console) => new?,
            _ = &mut interrupt => return Ok(()),
        };
        match new {
            New::Rest(rest) => write(out, &rest)?,
            New::All => {
                out.aside("lines were printed faster than they could be followed, or the log began anew");
                write(out, &console.window)?;
            }
        }
    }
}

/// A guest may print anything: files and pipes get every byte, a terminal text without its escape sequences.
fn write(out: &Out, text: &str) -> Result<(), Failure> {
    match text {
        "" => Ok(()),
        _ if out.is_terminal() => out.write(&without_sequences(text)),
        _ => out.verbatim(text),
    }
}

/// The text without escape sequences and carriage returns, which would otherwise be shown as rubbish.
fn without_sequences(text: &str) -> String {
    let mut tamed = String::with_capacity(text.len());
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '\x1b' if rest.next_if_eq(&'[').is_some() => {
                // A control sequence ends with a letter or one of a few signs.
                while rest.next_if(|c| !('@'..='~').contains(c) && *c != '\n').is_some() {}
                rest.next_if(|c| *c != '\n');
            }
            '\x1b' => drop(rest.next_if(|c| *c != '\n')),
            '\r' | '\x07' | '\x08' => {}
            c => tamed.push(c),
        }
    }
    tamed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_cannot_command_the_operators_terminal() {
        for (printed, shown) in [
            ("ok\r\n\tx\n", "ok\n\tx\n"),
            ("\x1b[1;32mgreen\x1b[0m\x07", "green"),
            ("\x1bcreset", "reset"),
            ("cut \x1b[2\nnext\x1b", "cut \nnext"),
        ] {
            assert_eq!(without_sequences(printed), shown, "{printed:?}");
        }
    }
}
