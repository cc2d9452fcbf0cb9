//! Virtual machines.

use hyper::header;
use pvc_core::{
    model::{DomainSpec, NodeName, VmId, VmState},
    plan::placement::Selector,
};
use pvc_operate::{
    Answer,
    vm::{
        self, Beside, Desired, Dump, Explained, Follower, New, Power, Relocation, To, VmExplanation, VmInfo,
        VmList, VmRow,
    },
};
use regex_lite::Regex;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::{Call, Client, Door, Pending, now_unix_s};
use crate::failure::Failure;

/// Which VMs.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Filter<'a> {
    pub(crate) node: Option<&'a str>,
    pub(crate) state: Option<VmState>,
    pub(crate) limit: Option<&'a Regex>,
    pub(crate) long: bool,
}

/// Where a VM shall go.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Destination<'a> {
    pub(crate) node: Option<&'a str>,
    pub(crate) selector: Option<Selector>,
    pub(crate) force: bool,
}

/// A VM's console, as far as it is known.
pub(crate) struct Console {
    pub(crate) uuid: VmId,
    /// As it was asked for: a token may be good for that name only.
    named: String,
    pub(crate) window: String,
    /// Whether its definition asks for one.
    pub(crate) is_expected: bool,
    follower: Option<Follower>,
}

/// How often the API is asked what was printed.
const LOOK_AGAIN: std::time::Duration = std::time::Duration::from_secs(1);

/// How long counting what a start takes may hold it up.
const COUNTED_WITHIN: std::time::Duration = std::time::Duration::from_secs(3);

/// All lines that there are.
const ALL_LINES: &str = "1000000";

impl Door {
    pub(crate) async fn vms(&self, filter: Filter<'_>) -> Result<VmList, Failure> {
        let Filter { node, state, limit, long } = filter;
        let matches = |text: &str| limit.is_none_or(|limit| limit.is_match(text));
        match self {
            Self::Direct(cluster) => {
                let wanted: Option<&(dyn Fn(&str) -> bool + Sync)> = limit.is_some().then_some(&matches);
                Ok(vm::list(cluster, &vm::Filter { node, state, wanted, long }, now_unix_s()).await?)
            }
            Self::Api(api) => {
                let mut vms = api.vms(filter).await?;
                // What is in no tree stands last.
                vms.sort_by_key(|row| row.name.is_empty());
                vms.retain(|row| matches(&row.name) || matches(&row.uuid.to_string()));
                if !long {
                    for row in &mut vms {
                        row.details = None;
                    }
                }
                let mut beside = match api.ask(Call::get(&["strays"])).await {
                    // A token that is limited to VMs is told of nothing else.
                    Err(Failure::Told { kind: pvc_operate::Kind::Refused, .. }) => Beside::default(),
                    beside => beside?,
                };
                if node.is_some() || state.is_some() || limit.is_some() {
                    beside.strays.clear();
                }
                Ok(VmList { vms, beside })
            }
        }
    }

    /// Their names.
    pub(crate) async fn vm_names(&self, filter: Filter<'_>) -> Result<Vec<String>, Failure> {
        let Filter { node, state, limit, long } = filter;
        let matches = |text: &str| limit.is_none_or(|limit| limit.is_match(text));
        match self {
            Self::Direct(cluster) => {
                let wanted: Option<&(dyn Fn(&str) -> bool + Sync)> = limit.is_some().then_some(&matches);
                Ok(vm::names(cluster, &vm::Filter { node, state, wanted, long }).await?)
            }
            Self::Api(api) => {
                let rows = api.vms(filter).await?.into_iter();
                let wanted = rows.filter(|row| matches(&row.name) || matches(&row.uuid.to_string()));
                Ok(wanted.map(|row| row.name).filter(|name| !name.is_empty()).collect())
            }
        }
    }

    pub(crate) async fn vm(&self, vm: &str) -> Result<VmInfo, Failure> {
        match self {
            Self::Direct(cluster) => Ok(vm::info(cluster, vm).await?),
            Self::Api(api) => api.ask(Call::get(&["vms", vm])).await,
        }
    }

    pub(crate) async fn explain_vm(&self, vm: &str) -> Result<Explained, Failure> {
        match self {
            Self::Direct(cluster) => Ok(vm::explain(cluster, vm, Self::selector(None), now_unix_s()).await?),
            Self::Api(api) => api.ask(Call::get(&["vms", vm, "explanation"])).await,
        }
    }

    /// Its definition, and what marks this version of it.
    pub(crate) async fn dump(&self, vm: &str) -> Result<(Dump, String), Failure> {
        match self {
            Self::Direct(cluster) => {
                let dump = vm::dump(cluster, vm).await?;
                let mark = dump.version.to_string();
                Ok((dump, mark))
            }
            Self::Api(api) => {
                let reply = api.send(Call::get(&["vms", vm, "definition"])).await?;
                let uuid = uuid(reply.header(header::CONTENT_LOCATION))?;
                let mark = reply.header(header::ETAG).unwrap_or_default().to_owned();
                Ok((Dump { uuid, xml: reply.text()?, version: 0 }, mark))
            }
        }
    }

    pub(crate) async fn define(
        &self,
        (spec, xml): (&DomainSpec, &str),
        target: Option<&str>,
        selector: Option<Selector>,
    ) -> Result<Answer, Failure> {
        match self {
            Self::Direct(cluster) => Ok(vm::define(cluster, spec, target, Self::selector(selector)).await?.1),
            Self::Api(api) => {
                let body = json!({ "xml": xml, "node": target, "selector": selector.map(|s| s.to_string()) });
                api.ask(Call::post(&["vms"]).json(&body)).await
            }
        }
    }

    /// Gives it another definition; `seen` is the mark of the one that it was made from.
    pub(crate) async fn modify(&self, vm: VmId, xml: &str, seen: Option<&str>) -> Result<Answer, Failure> {
        match self {
            Self::Direct(cluster) => {
                let seen = seen.and_then(|mark| mark.parse().ok());
                Ok(vm::modify(cluster, vm, xml, seen).await?)
            }
            Self::Api(api) => {
                let call = Call::put(&["vms", &vm.to_string(), "definition"]).xml(xml);
                api.ask(call.header(header::IF_MATCH, seen.unwrap_or("*"))).await
            }
        }
    }

    /// Undefines a VM, which happens while that is waited for. Answers also whether it is off.
    pub(crate) async fn undefine(&self, vm: &str) -> Result<(bool, Pending), Failure> {
        match self {
            Self::Direct(cluster) => {
                let (power, asked) = vm::undefine(cluster, cluster.find_vm(vm).await?).await?;
                Ok((power == Power::Off, asked.into()))
            }
            Self::Api(api) => {
                let info: VmInfo = api.ask(Call::get(&["vms", vm])).await?;
                let power = Power::of(info.state, !info.claim.is_empty());
                Ok((power == Power::Off, Pending::undefine(&info.name, info.uuid, power)))
            }
        }
    }

    /// Asks for a desired state. Answers also what a start takes from the cluster, if that is `counted`.
    pub(crate) async fn set_state(
        &self,
        vm: &str,
        desired: Desired,
        counted: bool,
    ) -> Result<(Pending, Vec<String>), Failure> {
        let counted = counted && desired == Desired::Start;
        match self {
            Self::Direct(cluster) => {
                let vm::Written { vm, asked } =
                    vm::set_state(cluster, cluster.find_vm(vm).await?, desired).await?;
                let strained = if counted { vm::strained(cluster, &vm).await } else { Vec::new() };
                Ok((asked.into(), strained))
            }
            Self::Api(api) => {
                let body = json!({ "state": desired.as_str() });
                let pending = api.pending(Call::put(&["vms", vm, "state"]).json(&body)).await?;
                // A start waits for nobody's counting.
                let strained = if counted {
                    let counted = timeout(COUNTED_WITHIN, api.ask(Call::get(&["vms", vm, "strain"]))).await;
                    counted.ok().and_then(Result::ok).unwrap_or_default()
                } else {
                    Vec::new()
                };
                Ok((pending, strained))
            }
        }
    }

    pub(crate) async fn relocate(
        &self,
        vm: &str,
        relocation: Relocation,
        to: Destination<'_>,
    ) -> Result<Pending, Failure> {
        let Destination { node, selector, force } = to;
        match self {
            Self::Direct(cluster) => {
                let id = cluster.find_vm(vm).await?;
                let to = To { node, selector: Self::selector(selector), force };
                Ok(vm::relocate(cluster, id, relocation, to).await?.asked.into())
            }
            Self::Api(api) => {
                let to = json!({ "node": node, "selector": selector.map(|s| s.to_string()), "force": force });
                let (word, body): (_, Value) = match relocation {
                    Relocation::Migrate => ("migrate", to),
                    Relocation::Move => ("move", to),
                    Relocation::Unmigrate => ("unmigrate", json!({ "force": force })),
                };
                api.pending(Call::post(&["vms", vm, word]).json(&body)).await
            }
        }
    }

    /// Which nodes may be executing it.
    pub(crate) async fn claim(&self, vm: VmId) -> Result<Vec<NodeName>, Failure> {
        match self {
            Self::Direct(cluster) => Ok(cluster.vm(vm).await?.claim.value.iter().cloned().collect()),
            Self::Api(_) => Ok(self.vm(&vm.to_string()).await?.claim),
        }
    }

    /// What it has printed.
    pub(crate) async fn console(&self, vm: &str) -> Result<Console, Failure> {
        match self {
            Self::Direct(cluster) => {
                let uuid = cluster.find_vm(vm).await?;
                let follower = Follower::begin(cluster, uuid).await?;
                let is_expected = !follower.window.is_empty() || follower.is_expected(cluster).await?;
                let window = follower.window.clone();
                Ok(Console { uuid, named: vm.to_owned(), window, is_expected, follower: Some(follower) })
            }
            Self::Api(api) => {
                let reply = api.send(Call::get(&["vms", vm, "log"]).query("lines", ALL_LINES)).await?;
                let uuid = uuid(reply.header(header::CONTENT_LOCATION))?;
                let window = reply.text()?;
                let is_expected = !window.is_empty() || api.has_console_log(vm).await?;
                Ok(Console { uuid, named: vm.to_owned(), window, is_expected, follower: None })
            }
        }
    }

    /// Waits for what is printed next.
    pub(crate) async fn printed(&self, console: &mut Console) -> Result<New, Failure> {
        match (self, &mut console.follower) {
            (Self::Direct(cluster), Some(follower)) => {
                let new = follower.next(cluster).await?;
                console.window.clone_from(&follower.window);
                Ok(new)
            }
            (Self::Api(api), _) => {
                tokio::time::sleep(LOOK_AGAIN).await;
                let call = Call::get(&["vms", &console.named, "log"]).query("lines", ALL_LINES);
                let next = match api.send(call).await {
                    // Another primary goes on where this one was.
                    Err(failure) if failure.may_pass() => return Ok(New::Rest(String::new())),
                    reply => reply?.text()?,
                };
                let new = vm::what_is_new(&console.window, &next);
                console.window = next;
                Ok(new)
            }
            (Self::Direct(_), None) => Ok(New::Rest(String::new())),
        }
    }
}

impl Client {
    async fn vms(&self, filter: Filter<'_>) -> Result<Vec<VmRow>, Failure> {
        let call = Call::get(&["vms"]).query_if("node", filter.node);
        self.ask(call.query_if("state", filter.state.map(VmState::as_str))).await
    }

    async fn has_console_log(&self, vm: &str) -> Result<bool, Failure> {
        let explained: VmExplanation = self.ask(Call::get(&["vms", vm, "explanation"])).await?;
        Ok(explained.console_log.is_some())
    }
}

/// Of the VM whose path that is.
fn uuid(path: Option<&str>) -> Result<VmId, Failure> {
    let part = path.and_then(|path| path.strip_prefix("/api/v2/vms/")?.split('/').next());
    part.and_then(|uuid| uuid.parse().ok()).ok_or_else(|| {
        Failure::Rubbish("the API's answer does not say of which VM it is: is it an older one?".to_owned())
    })
}
