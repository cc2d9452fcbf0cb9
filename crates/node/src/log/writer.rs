//! The thread that writes the log. It alone touches the disk and standard output, so that it alone waits for them.

use std::sync::{
    atomic::Ordering,
    mpsc::{Receiver, SyncSender},
};

use super::{
    Shared,
    line::{Kind, Line},
    sink::Sink,
};

/// What goes through the queue.
#[derive(Debug)]
pub(super) enum Item {
    /// Write this.
    Line(Line),
    /// Look at the flags.
    Wake,
    /// Say when everything before this is written.
    Finish(SyncSender<()>),
}

/// Writes until nobody can log any more.
pub(super) fn run(queue: &Receiver<Item>, mut sink: Sink, shared: &Shared) {
    while let Ok(item) = queue.recv() {
        if shared.reopen.swap(false, Ordering::Acquire) {
            sink.reopen();
        }
        let lost = shared.lost.swap(0, Ordering::Relaxed);
        if lost > 0 {
            sink.write(&Line::own(
                Kind::Warning,
                format!("{lost} log lines were lost: they came faster than they could be written"),
            ));
        }
        match item {
            Item::Line(line) => sink.write(&line),
            Item::Wake => {}
            Item::Finish(done) => {
                let _ = done.try_send(());
            }
        }
    }
}
