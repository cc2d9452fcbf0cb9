//! A VM's serial console at either door: followed by this process from node to node, or by the service of the API, which this process finds again.
//!
//! The service ends at each hand-over of the primary, and a connection may end without a word. Then the console is opened again, after pauses that grow, for as long as a guest is
//! waited for on a node. Not by force: two who take it from each other would go on for ever.

use std::{pin::Pin, sync::Arc, time::Duration};

use pvc_console::{Hold, Session, Wanted};
use pvc_operate::Cluster;
use serde::Deserialize;
use tokio::time::{Instant, sleep};

use super::{
    Call, Client, Door,
    client::{Heard, Problem, Socket},
};
use crate::{connect, failure::Failure};

/// One is open. Another whose libvirt hangs may be closing for as long as that does.
const AT_ONCE: usize = 8;
/// For so long a service that does not answer is asked again.
const AGAIN: Duration = Duration::from_mins(3);
/// The pause before that, at first and at most.
const SOONEST: Duration = Duration::from_millis(250);
const LATEST: Duration = Duration::from_secs(8);
/// What was open for so long is not about to end again.
const STEADY: Duration = Duration::from_secs(10);

/// The codes of a close: see the manual of the API.
const SERVICE_ENDS: u16 = 1001;
pub(super) const REVOKED: u16 = 1008;

/// What happens to a console.
#[derive(Debug)]
pub(crate) enum Event {
    /// It is open, for the first time or again; a line that says of whom and where.
    Opened(String),
    /// The guest has printed this.
    Printed(Vec<u8>),
    /// A line about what goes on.
    Said(String),
    /// It is over: in order, and why, or not.
    Ended(Result<String, Failure>),
}

/// See the module's documentation.
pub(crate) enum Console<'a> {
    Direct(Box<Session>),
    Api(Line<'a>),
}

impl Door {
    /// Begins to look for the console of a VM.
    pub(crate) async fn open_console(
        &self,
        vm: &str,
        force: bool,
        wait: bool,
    ) -> Result<Console<'_>, Failure> {
        match self {
            Self::Direct(cluster) => {
                let vm = cluster.find_vm(vm).await?;
                let hold = if force { Hold::Take } else { Hold::IfFree };
                let consoles = pvc_console::libvirt(AT_ONCE)?;
                let cluster = Arc::new(Cluster::new(Arc::clone(&cluster.store), cluster.place.as_str()));
                let wanted = Wanted { vm, hold, wait, again: false };
                Ok(Console::Direct(Box::new(Session::begin(cluster, consoles, connect::nodes(), wanted))))
            }
            Self::Api(api) => Ok(Console::Api(Line::begin(api, vm, force, wait))),
        }
    }
}

impl Console<'_> {
    /// Types this. `false`: there is no room for it, and nothing was typed.
    #[must_use]
    pub(crate) fn write(&mut self, typed: &[u8]) -> bool {
        match self {
            Self::Direct(session) => session.write(typed),
            Self::Api(line) => match &mut line.state {
                State::Open(open) => open.send(typed),
                State::Opening(_) | State::Ended => false,
            },
        }
    }

    /// What happens next. Nothing is lost when this future is dropped; after [`Event::Ended`] nothing comes.
    pub(crate) async fn next(&mut self) -> Event {
        match self {
            Self::Direct(session) => match session.next().await {
                pvc_console::Event::Opened(line) => Event::Opened(line),
                pvc_console::Event::Printed(bytes) => Event::Printed(bytes),
                pvc_console::Event::Said(line) => Event::Said(line),
                pvc_console::Event::Ended(end) => Event::Ended(end.map_err(Failure::from)),
            },
            Self::Api(line) => line.next().await,
        }
    }

    /// Closes it. What was typed before is passed on.
    pub(crate) async fn close(self) {
        if let Self::Api(Line { state: State::Open(open), .. }) = self {
            open.close().await;
        }
    }
}

/// A console by the API.
pub(crate) struct Line<'a> {
    api: &'a Client,
    vm: String,
    force: bool,
    wait: bool,
    state: State<'a>,
    /// When it was opened last; `None`: it never was.
    opened_at: Option<Instant>,
    /// For so long it is tried to open it again.
    until: Instant,
    /// Before the next attempt.
    pause: Duration,
}

enum State<'a> {
    Opening(Pin<Box<dyn Future<Output = Result<Socket, Failure>> + 'a>>),
    Open(Box<Socket>),
    Ended,
}

/// What the service says in text.
#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Told {
    Opened(String),
    Said(String),
    Ended(String),
    Failed(Problem),
}

impl<'a> Line<'a> {
    fn begin(api: &'a Client, vm: &str, force: bool, wait: bool) -> Self {
        let vm = vm.to_owned();
        let (until, pause) = (Instant::now() + AGAIN, SOONEST);
        let mut line = Self { api, vm, force, wait, state: State::Ended, opened_at: None, until, pause };
        line.state = State::Opening(Box::pin(api.socket(line.call())));
        line
    }

    fn call(&self) -> Call {
        let call = Call::get(&["vms", &self.vm, "console"]).query("events", "true");
        let switch = |is_on: bool| is_on.then_some("true");
        let (is_first, again) = (self.opened_at.is_none(), self.opened_at.is_some());
        call.query_if("force", switch(self.force && is_first))
            .query_if("wait", switch(self.wait))
            .query_if("again", switch(again))
    }

    async fn next(&mut self) -> Event {
        loop {
            let heard = match &mut self.state {
                State::Opening(opening) => match opening.await {
                    Ok(open) => {
                        self.state = State::Open(Box::new(open));
                        continue;
                    }
                    Err(failure) => return self.ended(Err(failure)),
                },
                State::Open(open) => open.next().await,
                State::Ended => std::future::pending().await,
            };
            return match heard {
                Heard::Sent => continue,
                Heard::Bytes(bytes) => Event::Printed(bytes.into()),
                Heard::Text(text) => match self.api.told(&text) {
                    Ok(Told::Opened(line)) => {
                        self.opened_at = Some(Instant::now());
                        Event::Opened(line)
                    }
                    Ok(Told::Said(line)) => Event::Said(line),
                    Ok(Told::Ended(line)) => self.ended(Ok(line)),
                    Ok(Told::Failed(problem)) => self.ended(Err(self.api.failed(problem))),
                    Err(failure) => self.ended(Err(failure)),
                },
                Heard::Closed(Some((SERVICE_ENDS, reason))) => self.open_again(&reason),
                Heard::Closed(Some((REVOKED, _))) => self.ended(Err(self.api.no_token())),
                Heard::Closed(said) => {
                    let why =
                        said.map_or_else(String::new, |(code, reason)| format!(" ({code}, {reason:?})"));
                    let place = self.api.place();
                    self.ended(Err(Failure::Rubbish(format!(
                        "{place} has closed the console and does not say why{why}"
                    ))))
                }
                Heard::Lost(why) => self.open_again(&why),
                Heard::Rubbish(failure) => self.ended(Err(failure)),
            };
        }
    }

    fn ended(&mut self, end: Result<String, Failure>) -> Event {
        self.state = State::Ended;
        Event::Ended(end)
    }

    fn open_again(&mut self, why: &str) -> Event {
        let now = Instant::now();
        if self.opened_at.is_some_and(|at| now - at >= STEADY) {
            (self.until, self.pause) = (now + AGAIN, SOONEST);
        }
        let (api, place) = (self.api, self.api.place());
        if now >= self.until {
            return self.ended(Err(Failure::NoAnswer(format!(
                "the console by {place} ends again and again: {why}"
            ))));
        }
        let (call, until, pause) = (self.call(), self.until, self.pause);
        self.pause = LATEST.min(2 * pause);
        self.state = State::Opening(Box::pin(open(api, call, until, pause)));
        Event::Said(format!("the console by {place} has ended ({why}) and is opened again; the VM goes on"))
    }
}

/// Opens it, as soon as somebody does.
async fn open(api: &Client, call: Call, until: Instant, mut pause: Duration) -> Result<Socket, Failure> {
    loop {
        sleep(pause).await;
        match api.socket(call.clone()).await {
            Err(failure) if failure.may_pass() && Instant::now() < until => pause = LATEST.min(2 * pause),
            done => return done,
        }
    }
}

#[cfg(test)]
mod tests;
