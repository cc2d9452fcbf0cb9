//! The libraries take down what they share when the process exits. A connection that is open then, or being closed, ends the process by a signal: so whoever
//! is about to exit waits until all are closed, and then exits without telling the libraries: one may be open still, in a thread that waits for a cluster
//! that does not answer.
#![allow(unsafe_code, reason = "calls the C library's `_exit`")]

use std::{
    io::{self, Write as _},
    sync::{Condvar, Mutex, PoisonError},
    time::Duration,
};

/// How many connections there are, those that are being made or closed among them.
static INSIDE: Mutex<usize> = Mutex::new(0);
static LEFT: Condvar = Condvar::new();

/// One of them.
pub(super) struct Inside(());

impl Inside {
    pub(super) fn enter() -> Self {
        *INSIDE.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        Self(())
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        *INSIDE.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        LEFT.notify_all();
    }
}

/// Waits until no connection to Ceph is left, for the end of a process; whether that is so in time. Blocks.
pub fn all_have_left(within: Duration) -> bool {
    let inside = INSIDE.lock().unwrap_or_else(PoisonError::into_inner);
    let waited = LEFT.wait_timeout_while(inside, within, |inside| *inside > 0);
    !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
}

/// Ends a process that may have used Ceph: connections have a moment to be closed, and what was printed is flushed. Blocks.
pub fn exit(code: u8) -> ! {
    all_have_left(Duration::from_millis(500));
    let _ = io::stdout().flush();
    // Whoever has stayed, or has come since, is in a thread that nobody can end.
    exit_at_once(code)
}

/// Ends the process, whatever its threads do: nothing is flushed, and no library is told. Not by [`std::process::exit`], which tells them.
pub fn exit_at_once(code: u8) -> ! {
    // SAFETY: takes a number, and does not return.
    unsafe { libc::_exit(code.into()) }
}
