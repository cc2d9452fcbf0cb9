//! What was asked for and takes time, and the waiting for it. By the API each look is a request of its own: it is tried again for a while when it is not answered, so a hand-over of
//! the primary in the middle is no end of it.

use std::time::Duration;

use pvc_core::model::{VmId, task::TaskId};
use pvc_operate::{Answer, Asked, Kind, Progress, storage::TaskRow, vm::Power};
use serde::Deserialize;
use tokio::time::{Instant, sleep, timeout};

use super::{Call, Client, Door};
use crate::failure::Failure;

/// For so long an API that does not answer is asked again: longer than a primary that has died takes to be fenced and followed.
const SILENT_FOR: Duration = Duration::from_mins(2);
/// The pause between two looks: short at first, for what takes no time.
const SOONEST: Duration = Duration::from_millis(50);
const LATEST: Duration = Duration::from_secs(1);
/// So long each look may take, also where less is left.
const LOOK: Duration = Duration::from_secs(2);
const UNANSWERED: &str = "the API has not answered yet";

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Pending {
    /// Who is to do it, or with whom.
    pub(crate) subject: String,
    /// What is asked for.
    pub(crate) answer: Answer,
    /// What becomes of it when nobody waits, and where to look.
    pub(crate) more: String,
    /// How long it may take if all is well.
    pub(crate) patience: Duration,
    way: Way,
}

#[derive(Debug)]
enum Way {
    Settled,
    Direct(Asked),
    /// What says whether it is so.
    Follow(String),
    /// It is done by being asked for again and again.
    Undefine(Undefined),
}

/// The API's answer to a change.
#[derive(Deserialize)]
pub(super) struct Told {
    message: String,
    #[serde(default)]
    notes: Vec<String>,
    subject: String,
    more: String,
    patience_s: u64,
    follow: Option<String>,
    /// Of storage: which task it is.
    pub(super) task: Option<TaskId>,
}

/// The API's answer to a look.
#[derive(Deserialize)]
struct Seen {
    done: bool,
    #[serde(default)]
    message: String,
    #[serde(default)]
    notes: Vec<String>,
    #[serde(default)]
    waiting: String,
}

impl From<Asked> for Pending {
    fn from(asked: Asked) -> Self {
        Self {
            subject: asked.subject.clone(),
            answer: asked.answer.clone(),
            more: asked.more.clone(),
            patience: asked.patience,
            way: if asked.is_settled() { Way::Settled } else { Way::Direct(asked) },
        }
    }
}

impl From<Told> for Pending {
    fn from(told: Told) -> Self {
        Self {
            subject: told.subject,
            answer: Answer { message: told.message, notes: told.notes },
            more: told.more,
            patience: Duration::from_secs(told.patience_s),
            way: told.follow.map_or(Way::Settled, Way::Follow),
        }
    }
}

impl Pending {
    /// A VM that is undefined while that is waited for.
    ///
    /// It is powered off only if it was on when that was said yes to: whoever starts it later has the last word.
    pub(super) fn undefine(name: &str, uuid: VmId, seen: Power) -> Self {
        Self {
            subject: name.to_owned(),
            answer: Answer { message: format!("VM {name} is to be undefined"), notes: Vec::new() },
            more: format!("`pvc vm undefine {name}` finishes that when it is settled"),
            patience: Duration::from_secs(30),
            way: Way::Undefine(Undefined {
                name: name.to_owned(),
                uuid,
                stop: seen == Power::On,
                is_sent: false,
            }),
        }
    }

    /// A task that was asked for before.
    pub(super) fn task(task: &TaskRow) -> Self {
        let id = task.id;
        Self {
            subject: format!("task {id}"),
            answer: Answer { message: format!("task {id} is asked for: {}", task.what), notes: Vec::new() },
            more: format!("It goes on by itself; `pvc task info {id}` says how far it is"),
            patience: Duration::from_mins(10),
            way: Way::Follow(format!("/api/v2/tasks/{id}/outcome?of=done")),
        }
    }

    /// Whether it is done.
    pub(crate) fn is_settled(&self) -> bool {
        matches!(self.way, Way::Settled)
    }

    /// Waits until it is so; `progress` hears what is waited for.
    pub(crate) async fn wait(
        self,
        door: &Door,
        within: Duration,
        progress: Progress<'_>,
    ) -> Result<Answer, Failure> {
        let mut look = match (self.way, door) {
            (Way::Direct(asked), Door::Direct(cluster)) => {
                return Ok(asked.wait(cluster, within, progress).await?);
            }
            (Way::Follow(path), Door::Api(api)) => Look { api, of: Of::Path(path) },
            (Way::Undefine(vm), Door::Api(api)) => Look { api, of: Of::Vm(vm) },
            // It is settled; what was asked for at one door is followed at the same.
            (Way::Settled | Way::Direct(_), _) | (_, Door::Direct(_)) => return Ok(self.answer),
        };
        let (began, mut pause, mut silent_since) = (Instant::now(), SOONEST, None);
        loop {
            let left = within.saturating_sub(began.elapsed()).max(LOOK);
            let looked = timeout(left, look.once()).await.unwrap_or_else(|_| Ok(Err(UNANSWERED.to_owned())));
            let waiting = match looked {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(waiting)) => {
                    silent_since = None;
                    waiting
                }
                Err(failure) if failure.may_pass() && is_short(&mut silent_since) => {
                    format!("{failure}; asking again")
                }
                Err(failure) => return Err(failure),
            };
            let left = within.saturating_sub(began.elapsed());
            if left.is_zero() {
                let (message, more) = (self.answer.message, self.more);
                let after_s = within.as_secs();
                return Err(pvc_operate::Failure::NotYet { message, after_s, waiting, more }.into());
            }
            progress(&waiting);
            sleep(pause.min(left)).await;
            pause = LATEST.min(pause * 2);
        }
    }
}

/// Whether nobody has answered for a short time only.
fn is_short(since: &mut Option<Instant>) -> bool {
    since.get_or_insert_with(Instant::now).elapsed() < SILENT_FOR
}

struct Look<'a> {
    api: &'a Client,
    of: Of,
}

enum Of {
    Path(String),
    Vm(Undefined),
}

/// A VM that is undefined.
#[derive(Debug)]
struct Undefined {
    name: String,
    uuid: VmId,
    /// Whether to power it off first.
    stop: bool,
    /// Whether a request of ours may have arrived.
    is_sent: bool,
}

impl Look<'_> {
    /// What came of it, or what is waited for.
    async fn once(&mut self) -> Result<Result<Answer, String>, Failure> {
        match &mut self.of {
            Of::Path(path) => {
                let Seen { done, message, notes, waiting } = self.api.ask(Call::follow(path)?).await?;
                Ok(if done { Ok(Answer { message, notes }) } else { Err(waiting) })
            }
            Of::Vm(vm) => vm.once(self.api).await,
        }
    }
}

impl Undefined {
    async fn once(&mut self, api: &Client) -> Result<Result<Answer, String>, Failure> {
        let Self { name, uuid, stop, is_sent } = self;
        let again = std::mem::replace(is_sent, true);
        let mut call = Call::delete(&["vms", &uuid.to_string()]).query("within", "1");
        // Only the first may power it off: whoever has started it since has the last word.
        if *stop && !again {
            call = call.query("stop", "true");
        }
        match api.ask(call).await {
            Ok(answer) => Ok(Ok(answer)),
            Err(Failure::Told { waiting: Some(waiting), .. }) => Ok(Err(waiting)),
            // The answer to an earlier request was lost.
            Err(failure) if again && failure.is_not_found() => {
                Ok(Ok(Answer { message: format!("VM {name} ({uuid}) is undefined"), notes: Vec::new() }))
            }
            Err(failure) if again && *stop && failure.is_refusal() => Err(Failure::Told {
                kind: Kind::Failed,
                words: format!(
                    "VM {name} was not undefined: it is asked to run, since somebody has started it meanwhile or the first request has not arrived; `pvc vm info {name}` says which state it has"
                ),
                waiting: None,
            }),
            Err(failure) => {
                if matches!(failure, Failure::NoApi { .. }) {
                    // Nobody was there to send it to.
                    *is_sent = again;
                }
                Err(failure)
            }
        }
    }
}

impl Client {
    /// Asks for what takes time.
    pub(super) async fn pending(&self, call: Call) -> Result<Pending, Failure> {
        Ok(self.ask::<Told>(call).await?.into())
    }
}
