//! What the table of routes says of a call for the description of the API.

use schemars::{JsonSchema, Schema, SchemaGenerator};

/// What the description says of a call.
pub(super) struct About {
    pub(super) summary: &'static str,
    pub(super) query: &'static [Query],
    pub(super) body: Body,
    pub(super) gives: Gives,
    /// A trial asks a question first, and `If-Match` says to which one the change is the yes.
    pub(super) asks: bool,
}

/// A value of the query; none has to be there.
pub(super) struct Query {
    pub(super) name: &'static str,
    pub(super) kind: &'static str,
    pub(super) about: &'static str,
}

/// What is sent.
pub(super) enum Body {
    Nothing,
    /// JSON; `bool`: an empty body is as good as `{}`.
    Json(fn(&mut SchemaGenerator) -> Schema, bool),
    /// A definition, if it is still the one that `If-Match` names.
    Definition,
}

/// What is answered if nothing is amiss.
#[derive(Clone, Copy)]
pub(super) enum Gives {
    /// An object as `pvc --format json` prints it.
    Object,
    /// A list of such.
    List,
    /// What was done.
    Done,
    /// What was done, or what the cluster has yet to do.
    Asked,
    /// What was made, with its address.
    Created,
    /// A token, with its address.
    Token,
    /// Which task was asked for, with its address.
    Task,
    /// Text of this kind.
    Text(&'static str),
    /// A WebSocket.
    Socket,
}

impl About {
    /// A call that sends nothing.
    pub(super) const fn call(summary: &'static str, gives: Gives) -> Self {
        Self { summary, query: &[], body: Body::Nothing, gives, asks: false }
    }

    pub(super) fn gives_a_secret(&self) -> bool {
        matches!(self.gives, Gives::Token)
    }

    pub(super) const fn query(mut self, query: &'static [Query]) -> Self {
        self.query = query;
        self
    }

    /// It sends this, as JSON.
    pub(super) const fn takes<T: JsonSchema>(mut self) -> Self {
        self.body = Body::Json(SchemaGenerator::subschema_for::<T>, false);
        self
    }

    /// It may send this, as JSON; nothing is as good as `{}`.
    pub(super) const fn may_take<T: JsonSchema>(mut self) -> Self {
        self.body = Body::Json(SchemaGenerator::subschema_for::<T>, true);
        self
    }

    pub(super) const fn asks(mut self) -> Self {
        self.asks = true;
        self
    }

    pub(super) const fn takes_definition(mut self) -> Self {
        self.body = Body::Definition;
        self
    }
}

impl Query {
    pub(super) const fn text(name: &'static str, about: &'static str) -> Self {
        Self { name, kind: "string", about }
    }

    pub(super) const fn number(name: &'static str, about: &'static str) -> Self {
        Self { name, kind: "integer", about }
    }

    pub(super) const fn switch(name: &'static str, about: &'static str) -> Self {
        Self { name, kind: "boolean", about }
    }
}
