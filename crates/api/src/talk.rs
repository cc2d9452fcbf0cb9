//! A talk with a guest: what is noted of its beginning and its end, and the place that it has until then.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use axum::http::StatusCode;
use pvc_core::model::audit::AuditEntry;
use tracing::info;

use crate::{
    api::Shared,
    clock::until,
    noted::{IN_A_LINE, beginning, keep},
    shares::Place,
};

/// By what it is talked with a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Its serial console.
    Console,
    /// Its screen.
    Screen,
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Self::Console => "console",
            Self::Screen => "screen",
        }
    }
}

/// See the module's documentation. What is typed and printed is noted nowhere.
pub(crate) struct Talk {
    api: Shared,
    line: String,
    entry: AuditEntry,
    /// When the session ends that it was asked for by, if it was one.
    session_end: Option<u64>,
    begun: OnceLock<(Instant, Kind)>,
    has_ended: AtomicBool,
    _place: Place,
}

impl Talk {
    pub(crate) fn new(
        api: &Shared,
        line: &str,
        entry: AuditEntry,
        session_end: Option<u64>,
        place: Place,
    ) -> Self {
        Self {
            api: Arc::clone(api),
            line: line.to_owned(),
            entry,
            session_end,
            begun: OnceLock::new(),
            has_ended: AtomicBool::new(false),
            _place: place,
        }
    }

    /// It begins.
    pub(crate) fn begins(&self, kind: Kind, said: &str) {
        self.begun.get_or_init(|| (Instant::now(), kind));
        self.note(&format!("a {} was opened: {said}", kind.word()));
    }

    /// Whoever has the console is about to lose it.
    pub(crate) fn takes(&self) {
        self.note("a console is taken by force");
    }

    /// It does not begin; nothing has happened that the audit would have.
    pub(crate) fn is_refused(&self, why: &str) {
        info!("{}: {:?}", self.line, beginning(why, IN_A_LINE));
    }

    /// Returns when its session has ended.
    pub(crate) async fn until_session_ends(&self) {
        until(self.session_end).await;
    }

    /// It has ended, for this reason.
    pub(crate) fn ends(&self, why: &str) {
        self.has_ended.store(true, Ordering::Relaxed);
        let Some((begun, kind)) = self.begun.get() else { return };
        self.note(&format!("a {} was closed after {} s: {why}", kind.word(), begun.elapsed().as_secs()));
    }

    fn note(&self, said: &str) {
        info!("{}: {said:?}", self.line);
        keep(
            &self.api,
            AuditEntry { status: Some(StatusCode::SWITCHING_PROTOCOLS.as_u16()), ..self.entry.clone() },
            said,
        );
    }
}

impl Drop for Talk {
    fn drop(&mut self) {
        if self.begun.get().is_some() && !self.has_ended.load(Ordering::Relaxed) {
            self.ends("it broke off");
        }
    }
}
