//! What daemons log, as events: a layer that knows whose line it is by the process that is running.

use std::{
    fmt::{self, Write as _},
    sync::{Arc, OnceLock},
};

use pvc_process::Process;
use tracing::{
    Event as Line, Level, Metadata, Subscriber,
    field::{Field, Visit},
    span,
    subscriber::Interest,
};

use crate::{event::Event, journal::Journal};

/// See the module's documentation. The journal comes later than the subscriber: the runtime is between them.
#[derive(Clone, Default)]
pub struct Listener {
    journal: Arc<OnceLock<Arc<Journal>>>,
}

impl Listener {
    /// From now on it is told to this journal.
    pub fn tell(&self, journal: &Arc<Journal>) {
        let _only_the_first_counts = self.journal.set(Arc::clone(journal));
    }
}

impl Subscriber for Listener {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if self.enabled(metadata) { Interest::always() } else { Interest::never() }
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && *metadata.level() <= Level::INFO && metadata.target().starts_with("pvc")
    }

    fn max_level_hint(&self) -> Option<tracing::level_filters::LevelFilter> {
        Some(tracing::level_filters::LevelFilter::INFO)
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, line: &Line<'_>) {
        let Some(journal) = self.journal.get() else { return };
        let mut words = Words::default();
        line.record(&mut words);
        let node =
            Process::current().map_or_else(|| "nobody".to_owned(), |process| process.name().to_owned());
        journal.tell(Event::Log { node, level: line.metadata().level().as_str(), text: words.sentence() });
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

#[derive(Default)]
struct Words {
    message: String,
    fields: String,
}

impl Words {
    fn sentence(self) -> String {
        format!("{}{}", self.message, self.fields)
    }
}

impl Visit for Words {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a text does not fail.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }
}
