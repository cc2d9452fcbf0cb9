//! A VM's screen at either door: by its node's daemon, or by the service of the API. RFB cannot be resumed, so it is never opened again here.

use std::{sync::Arc, time::Duration};

use hyper::body::{Buf as _, Bytes};
use pvc_console::screen::{self, ScreenEnd};
use pvc_core::model::VmId;
use pvc_operate::{
    Cluster, Kind,
    vm::{VmInfo, Whereabouts, is_off},
};
use tokio::time::{sleep, timeout};

use super::{
    Call, Client, Door,
    client::{Heard, Socket},
    console::REVOKED,
    now_unix_s,
};
use crate::{connect, failure::Failure};

/// How often it is looked whether the VM is off, beside when something changes …
const LOOK: Duration = Duration::from_secs(10);
/// … and by the API, where nothing says that something has changed.
const LOOK_AGAIN: Duration = Duration::from_secs(3);

/// The code of a close of a VM that is off: see the manual of the API.
const OFF: u16 = 1000;

/// The screens of one VM, one after the other.
pub(crate) enum Screens<'a> {
    Direct { cluster: Arc<Cluster>, screens: screen::Screens, vm: VmId },
    Api { api: &'a Client, vm: String },
}

/// An open one. Dropping it closes it.
pub(crate) enum Screen<'a> {
    Direct(Box<screen::Screen>),
    Api { api: &'a Client, vm: String, way: Box<Socket>, unread: Bytes },
}

/// What is heard of a screen.
#[derive(Debug)]
pub(crate) enum Seen {
    /// So many bytes of RFB.
    Bytes(usize),
    /// Nothing, but there is room again for what a viewer sends.
    Room,
    /// It is over; how the screen has ended, or why there is none any more.
    Ended(Result<ScreenEnd, Failure>),
}

impl Door {
    /// The screens of a VM.
    pub(crate) async fn screens(&self, vm: &str) -> Result<Screens<'_>, Failure> {
        Ok(match self {
            Self::Direct(cluster) => Screens::Direct {
                vm: cluster.find_vm(vm).await?,
                cluster: Arc::new(Cluster::new(Arc::clone(&cluster.store), cluster.place.as_str())),
                screens: screen::Screens::of(connect::nodes()),
            },
            Self::Api(api) => Screens::Api { api, vm: vm.to_owned() },
        })
    }
}

impl<'a> Screens<'a> {
    /// Opens one, on whatever node the VM is.
    pub(crate) async fn open(&self) -> Result<Screen<'a>, Failure> {
        match self {
            Self::Direct { cluster, screens, vm } => {
                let screen = screens.open(Arc::clone(cluster), *vm, now_unix_s).await?;
                Ok(Screen::Direct(Box::new(screen)))
            }
            Self::Api { api, vm } => {
                let way = api.socket(Call::get(&["vms", vm, "screen"])).await?;
                Ok(Screen::Api { api, vm: vm.clone(), way: Box::new(way), unread: Bytes::new() })
            }
        }
    }

    /// Returns when the VM is off, also while nobody looks, with a line that says so; or when nobody can look any more: it is undefined, or the
    /// token is none any more.
    pub(crate) async fn off(&self) -> Result<String, Failure> {
        match self {
            Self::Direct { cluster, vm, .. } => {
                let mut whereabouts = Whereabouts::watch(cluster, *vm);
                loop {
                    match whereabouts.look(cluster).await {
                        Ok(home) if home.is_off() => return Ok(off(home.name.as_str())),
                        Err(failure) if failure.kind() == Kind::NotFound => return Err(failure.into()),
                        Ok(_) | Err(_) => {}
                    }
                    // No event is relied upon.
                    let _ = timeout(LOOK, whereabouts.changed()).await;
                }
            }
            Self::Api { api, vm } => loop {
                match api.ask::<VmInfo>(Call::get(&["vms", vm])).await {
                    Ok(info) if is_off(info.state, &info.claim) => return Ok(off(&info.name)),
                    Err(failure) if !failure.may_pass() => return Err(failure),
                    Ok(_) | Err(_) => {}
                }
                sleep(LOOK_AGAIN).await;
            },
        }
    }
}

fn off(name: &str) -> String {
    format!("VM {name} is off")
}

impl Screen<'_> {
    /// Of whom it is, and where.
    pub(crate) async fn line(&self) -> Result<String, Failure> {
        match self {
            Self::Direct(screen) => Ok(screen.line()),
            Self::Api { api, vm, .. } => {
                let info: VmInfo = api.ask(Call::get(&["vms", vm])).await?;
                // Of a migration the first is the source, which shows it.
                let node = info.claim.first().map_or(info.node.as_str(), |node| node.as_str());
                Ok(format!("VM {} on {node}", info.name))
            }
        }
    }

    /// Whether what a viewer sends next has room on its way.
    pub(crate) fn has_room(&self) -> bool {
        match self {
            Self::Direct(_) => true,
            Self::Api { way, .. } => way.has_room(),
        }
    }

    /// What is heard of it next; bytes are in `into`. Nothing is lost when this future is dropped.
    pub(crate) async fn next(&mut self, into: &mut [u8]) -> Seen {
        let (api, way, unread) = match self {
            Self::Direct(screen) => {
                return match screen.next(into).await {
                    screen::Seen::Bytes(count) => Seen::Bytes(count),
                    screen::Seen::Ended(end) => Seen::Ended(Ok(end)),
                };
            }
            Self::Api { api, way, unread, .. } => (api, way, unread),
        };
        while unread.is_empty() {
            match way.next().await {
                Heard::Bytes(bytes) => *unread = bytes,
                Heard::Sent => return Seen::Room,
                heard => return Seen::Ended(end(api, heard)),
            }
        }
        let count = unread.len().min(into.len());
        unread.copy_to_slice(&mut into[..count]);
        Seen::Bytes(count)
    }

    /// Passes this on to the guest, for which there is room; or says how the screen has ended.
    pub(crate) async fn write(&mut self, bytes: &[u8], patience: Duration) -> Result<(), ScreenEnd> {
        match self {
            Self::Direct(screen) => {
                if screen.write(bytes, patience).await {
                    Ok(())
                } else {
                    Err(screen.end().await)
                }
            }
            Self::Api { way, .. } => {
                // Of one that takes nothing the end is heard.
                let _ = way.send(bytes);
                Ok(())
            }
        }
    }
}

/// What the service says by it.
fn end(api: &Client, heard: Heard) -> Result<ScreenEnd, Failure> {
    let place = api.place();
    match heard {
        Heard::Closed(Some((OFF, line))) => Ok(ScreenEnd::Off(line)),
        Heard::Closed(Some((REVOKED, _))) => Err(api.no_token()),
        Heard::Closed(Some((_, line))) if !line.is_empty() => Ok(ScreenEnd::Again(line)),
        Heard::Closed(_) => Ok(ScreenEnd::Again(format!("{place} has closed the screen"))),
        Heard::Lost(why) => Ok(ScreenEnd::Again(format!("the screen by {place} has ended ({why})"))),
        Heard::Rubbish(failure) => Err(failure),
        Heard::Bytes(_) | Heard::Text(_) | Heard::Sent => {
            Err(Failure::Rubbish(format!("{place} sends text where a screen is")))
        }
    }
}
