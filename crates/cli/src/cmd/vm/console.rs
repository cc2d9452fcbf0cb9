//! `pvc vm console`: types on a VM's serial console. The terminal is the guest's meanwhile, save for one key; whatever ends this gives it back.

use std::io::{IsTerminal as _, Read as _};

use tokio::sync::mpsc;

use crate::{
    door::{
        Door,
        console::{Console, Event},
    },
    failure::Failure,
    print::{Out, ends::Ends, guest::Guest},
};

/// `^]`, as of telnet and virsh: nothing that is typed on a console otherwise.
const ESCAPE: u8 = 0x1d;

const CLOSED: &str = "the console is closed; the VM goes on";

/// A bell: what was typed is not passed on.
const BELL: &[u8] = b"\x07";

pub(super) async fn console(
    door: &Door,
    out: &Out,
    vm: &str,
    force: bool,
    wait: bool,
) -> Result<(), Failure> {
    if out.is_json() || !(std::io::stdin().is_terminal() && std::io::stdout().is_terminal()) {
        let say = "a console needs a terminal on both sides, and no --format json: `pvc vm log -f` prints what the guest prints";
        return Err(Failure::Usage(say.to_owned()));
    }
    talk(door.open_console(vm, force, wait).await?, out).await
}

async fn talk(mut console: Console<'_>, out: &Out) -> Result<(), Failure> {
    let failed = |cause| Failure::Machine { doing: "use this terminal".into(), cause };
    let mut ends = Ends::hear().map_err(failed)?;
    let mut taken: Option<(Guest, mpsc::Receiver<Vec<u8>>)> = None;
    // What is said at the end is said when the terminal is as before.
    let end = loop {
        let keys = taken.as_mut().map(|(_, keys)| keys);
        tokio::select! {
            biased;
            () = ends.any() => break Err(Failure::Interrupted(CLOSED.to_owned())),
            typed = pressed(keys) => {
                let Some(typed) = typed else { break Ok(CLOSED.to_owned()) };
                let escape = typed.iter().position(|&key| key == ESCAPE);
                let before = &typed[..escape.unwrap_or(typed.len())];
                if !before.is_empty() && !console.write(before) && let Some((guest, _)) = &mut taken {
                    guest.show(BELL).map_err(failed)?;
                }
                if escape.is_some() {
                    break Ok(CLOSED.to_owned());
                }
            }
            event = console.next() => match (event, &mut taken) {
                (Event::Opened(line), None) => {
                    // Whoever reads this has the terminal already: what he types next is the guest's.
                    let mut guest = Guest::take().map_err(failed)?;
                    guest.note(&format!("{line}; ^] closes this console")).map_err(failed)?;
                    taken = Some((guest, self::keys()));
                }
                (Event::Opened(line) | Event::Said(line), Some((guest, _))) => guest.note(&line).map_err(failed)?,
                (Event::Said(line), None) => out.aside(&line),
                (Event::Printed(bytes), Some((guest, _))) => guest.show(&bytes).map_err(failed)?,
                // Nothing is printed before it is open.
                (Event::Printed(_), None) => {}
                (Event::Ended(end), _) => break end,
            },
        }
    };
    drop(taken);
    console.close().await;
    out.aside(&end?);
    Ok(())
}

/// What is typed next; `None`: nothing will be. For ever, while nobody listens to keys.
async fn pressed(keys: Option<&mut mpsc::Receiver<Vec<u8>>>) -> Option<Vec<u8>> {
    match keys {
        Some(keys) => keys.recv().await,
        None => std::future::pending().await,
    }
}

/// What is typed, as it comes. The thread ends with the process: nobody can end a read of a terminal.
fn keys() -> mpsc::Receiver<Vec<u8>> {
    let (pressed, keys) = mpsc::channel(16);
    std::thread::spawn(move || {
        let mut typed = [0; 1024];
        while let Ok(bytes @ 1..) = std::io::stdin().lock().read(&mut typed) {
            if pressed.blocking_send(typed[..bytes].to_vec()).is_err() {
                return;
            }
        }
    });
    keys
}
