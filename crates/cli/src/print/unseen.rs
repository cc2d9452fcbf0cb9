//! A line from a terminal that does not show it.

use std::{io, os::fd::AsFd};

use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr};

const CTRL_C: u8 = 3;

/// A terminal, and how it was.
struct Before<'a, T: AsFd>(&'a T, Termios);

impl<T: AsFd> Drop for Before<'_, T> {
    fn drop(&mut self) {
        let _ = tcsetattr(self.0, OptionalActions::Flush, &self.1);
    }
}

/// Reads a line; `None`: Ctrl-C was pressed. Meanwhile that ends the line and is no signal, and no other key is one: whoever is ended or stopped would leave the terminal so.
/// `ask` says what is asked for, when nothing is shown any more.
pub(super) fn read(terminal: &impl AsFd, ask: impl FnOnce() -> io::Result<()>) -> io::Result<Option<String>> {
    let before = tcgetattr(terminal)?;
    let mut unseen = before.clone();
    unseen.local_modes.remove(LocalModes::ECHO | LocalModes::ISIG);
    unseen.special_codes[SpecialCodeIndex::VEOL] = CTRL_C;
    let _before = Before(terminal, before);
    tcsetattr(terminal, OptionalActions::Flush, &unseen)?;
    ask()?;
    // A terminal gives a line as one, and has none that is longer.
    let mut line = [0; 4096];
    let read = rustix::io::retry_on_intr(|| rustix::io::read(terminal, &mut line[..]))?;
    let line = &line[..read];
    if line.contains(&CTRL_C) {
        return Ok(None);
    }
    String::from_utf8(line.to_vec()).map(Some).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use std::{fs::File, io::Write as _};

    use rustix::{
        fs::{Mode, OFlags, open},
        pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    };

    use super::*;

    #[test]
    fn what_is_typed_is_not_shown_and_the_terminal_is_as_before_also_after_an_interruption() {
        for (typed, expected) in [
            ("secret\n", Some("secret\n")),
            ("sec\u{3}", None),
            ("a\u{1a}\u{1c}b\n", Some("a\u{1a}\u{1c}b\n")),
        ] {
            let keys = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
            grantpt(&keys).unwrap();
            unlockpt(&keys).unwrap();
            let name = ptsname(&keys, Vec::new()).unwrap();
            let terminal = open(name, OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).unwrap();
            let before = tcgetattr(&terminal).unwrap();
            let mut keys = File::from(keys);
            let read = read(&terminal, || keys.write_all(typed.as_bytes())).unwrap();
            assert_eq!(read.as_deref(), expected);
            let after = tcgetattr(&terminal).unwrap();
            assert_eq!(after.local_modes, before.local_modes);
            assert_eq!(
                after.special_codes[SpecialCodeIndex::VEOL],
                before.special_codes[SpecialCodeIndex::VEOL]
            );
            rustix::io::ioctl_fionbio(&keys, true).unwrap();
            let shown = rustix::io::read(&keys, &mut [0; 64][..]);
            assert!(shown.is_err() || shown == Ok(0), "{shown:?}");
        }
    }
}
