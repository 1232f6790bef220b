//! A log that can be looked at: events as they were said, before any formatter could tidy them up.
#![allow(dead_code, clippy::unwrap_used)] // Each test crate uses its own part.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;

/// One event.
#[derive(Clone, Debug)]
pub(crate) struct Said {
    pub(crate) level: Level,
    pub(crate) target: String,
    pub(crate) message: String,
    pub(crate) fields: Fields,
    /// The fields of the spans named `connection` that it is in.
    pub(crate) connections: Vec<Fields>,
}

impl Said {
    #[track_caller]
    pub(crate) fn field(&self, name: &str) -> &str {
        self.fields.get(name).unwrap_or_else(|| panic!("no {name} in {self:?}"))
    }

    /// Everything that would be written.
    pub(crate) fn text(&self) -> String {
        format!("{} {:?} {:?}", self.message, self.fields.values(), self.connections)
    }
}

pub(crate) type Fields = BTreeMap<String, String>;

#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<Said>>>);

impl Log {
    /// What was said of hythe so far.
    pub(crate) fn all(&self) -> Vec<Said> {
        self.0.lock().unwrap().clone()
    }

    pub(crate) fn of(&self, message: &str) -> Vec<Said> {
        self.all().into_iter().filter(|said| said.message == message).collect()
    }

    pub(crate) fn subscriber(&self, level: LevelFilter) -> impl Subscriber + Send + Sync + use<> {
        tracing_subscriber::registry().with(self.clone().with_filter(level))
    }

    /// Hears what the current thread says.
    #[must_use]
    pub(crate) fn here(level: LevelFilter) -> (Self, tracing::subscriber::DefaultGuard) {
        let log = Self::default();
        let guard = tracing::subscriber::set_default(log.subscriber(level));
        (log, guard)
    }
}

struct Read<'a>(&'a mut Fields);

impl Visit for Read<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().into(), value.into());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.insert(field.name().into(), format!("{value:?}"));
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Log {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut fields = Fields::new();
        attributes.record(&mut Read(&mut fields));
        context.span(id).unwrap().extensions_mut().insert(fields);
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = Fields::new();
        event.record(&mut Read(&mut fields));
        let spans = context.event_scope(event).into_iter().flatten().filter(|span| span.name() == "connection");
        let said = Said {
            level: *event.metadata().level(),
            target: event.metadata().target().into(),
            message: fields.remove("message").unwrap_or_default(),
            fields,
            connections: spans.map(|span| span.extensions().get::<Fields>().unwrap().clone()).collect(),
        };
        self.0.lock().unwrap().push(said);
    }
}
