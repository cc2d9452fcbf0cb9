//! A terminal that is a guest's for a while: what is typed goes to it as it is typed, what it prints is shown as it comes.
//!
//! The one place where somebody else's bytes reach a terminal as they are: without that nobody could log in, nor run an editor, on a console. Whoever opens
//! a console trusts its guest with this terminal, as with any other serial line.

use std::io::{self, Write as _};

use pvc_core::text::one_line;

use super::{plain, screen::Own};

/// What a guest may have left behind: colours, another set of characters, keys in another mode, no cursor, another screen.
const AS_USUAL: &[u8] = b"\x1b[0m\x1b(B\x1b[?1l\x1b>\x1b[?25h\x1b[?7h\x1b[?2004l\x1b[?1000l\x1b[?1002l\x1b[?1003l\x1b[?1004l\x1b[?1006l\x1b[?1049l\x1b[?1047l\r\n";

/// The terminal. When this is dropped, it is as before.
pub(crate) struct Guest {
    screen: io::Stdout,
    _own: Own,
}

impl Guest {
    /// Takes the process's own terminal.
    pub(crate) fn take() -> io::Result<Self> {
        let none = || io::Error::other("there is none");
        Ok(Self { screen: io::stdout(), _own: Own::take()?.ok_or_else(none)? })
    }

    /// Shows what the guest has printed.
    pub(crate) fn show(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut stdout = self.screen.lock();
        stdout.write_all(bytes)?;
        stdout.flush()
    }

    /// Says something of our own, on a line of its own wherever the guest's cursor is.
    pub(crate) fn note(&mut self, line: &str) -> io::Result<()> {
        self.show(format!("\r\npvc: {}\r\n", plain(&one_line(line), false)).as_bytes())
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        // A terminal that is gone needs nothing.
        let _ = self.show(AS_USUAL);
    }
}
