//! `pvc vm vnc`: a VM's screen for a viewer on this machine. Whoever can connect to loopback here sees it meanwhile, and nobody else.

use std::{
    net::SocketAddr,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use pvc_console::screen::{Screen, ScreenEnd, Screens, Seen};
use pvc_core::model::VmId;
use pvc_operate::{Cluster, Kind, vm::Whereabouts};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};

use crate::{
    args, connect,
    failure::Failure,
    print::{Out, ends::Ends},
};

/// How long a viewer, or the guest, may take nothing.
const PATIENCE: Duration = Duration::from_secs(30);
const BUFFER: usize = 64 * 1024;
/// How long nobody is listened to after a screen could not be opened.
const PAUSE: Duration = Duration::from_secs(1);
/// How often it is looked whether the VM is off, beside when something changes.
const LOOK: Duration = Duration::from_secs(10);
const CLOSED: &str = "the screen is closed; the VM goes on";

/// Where viewers look for programs of this name.
const VIEWER: &str = "remote-viewer";

pub(super) async fn vnc(cluster: &Cluster, out: &Out, args: &args::Vnc) -> Result<(), Failure> {
    let failed = |doing: &str| {
        let doing = doing.to_owned();
        move |cause| Failure::Machine { doing, cause }
    };
    if !args.listen.ip().is_loopback() {
        let say = "--listen takes an address of loopback: whoever connects there sees the screen, without a password";
        return Err(Failure::Usage(say.to_owned()));
    }
    let vm = cluster.find_vm(&args.vm.vm).await?;
    let mut ends = Ends::hear().map_err(failed("hear signals"))?;
    let mut room = Room {
        cluster: Arc::new(Cluster::new(Arc::clone(&cluster.store), cluster.place.as_str())),
        screens: Screens::of(connect::nodes()),
        vm,
    };
    // What stands in the way is said before anybody is asked to look.
    let line = tokio::select! {
        () = ends.any() => return Err(Failure::Interrupted(CLOSED.to_owned())),
        opened = room.open() => opened?.line(),
    };
    let listener = TcpListener::bind(args.listen).await.map_err(failed("listen for a viewer"))?;
    let address = listener.local_addr().map_err(failed("listen for a viewer"))?;
    out.write(&format!("{line}: vnc://{address}\n"))?;
    if !args.viewer {
        out.aside("for one viewer at a time, until Ctrl-C");
    }
    let watched = Arc::clone(&room.cluster);
    loop {
        let mut viewer = args.viewer.then(|| Viewer::start(address)).transpose()?;
        let end = tokio::select! {
            biased;
            () = ends.any() => return Err(Failure::Interrupted(CLOSED.to_owned())),
            // Who has connected before it ended is heard first.
            end = room.serve(&listener) => end?,
            () = ended(&mut viewer) => {
                out.aside(CLOSED);
                return Ok(());
            }
            line = off(&watched, vm) => {
                out.aside(&line);
                return Ok(());
            }
        };
        match end {
            Ended::Screen(ScreenEnd::Off(line)) => {
                out.aside(&line);
                return Ok(());
            }
            Ended::Screen(ScreenEnd::Again(line)) => out.aside(&format!("{line}; connect again")),
            Ended::NotOpened(failure) if args.viewer || !may_pass(&failure) => return Err(failure),
            Ended::NotOpened(failure) => {
                out.aside(&format!("{failure}; connect again"));
                // Whatever connects at once is not asked for at once.
                sleep(PAUSE).await;
            }
            Ended::Viewer if args.viewer => {
                out.aside(CLOSED);
                return Ok(());
            }
            Ended::Viewer => out.aside("the viewer has closed it; connect again, or Ctrl-C"),
        }
    }
}

struct Room {
    cluster: Arc<Cluster>,
    screens: Screens,
    vm: VmId,
}

/// Who has ended it.
enum Ended {
    Screen(ScreenEnd),
    Viewer,
    NotOpened(Failure),
}

/// Whether another viewer may see what this one does not.
fn may_pass(failure: &Failure) -> bool {
    matches!(failure, Failure::Cluster(failure) if failure.kind() != Kind::NotFound)
}

/// Returns when the VM is off, also while nobody looks; with a line that says so.
async fn off(cluster: &Cluster, vm: VmId) -> String {
    let mut whereabouts = Whereabouts::watch(cluster, vm);
    loop {
        if let Ok(home) = whereabouts.look(cluster).await
            && home.is_off()
        {
            return format!("VM {} is off", home.name);
        }
        // No event is relied upon.
        let _ = timeout(LOOK, whereabouts.changed()).await;
    }
}

impl Room {
    async fn open(&mut self) -> Result<Screen, Failure> {
        let now = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        Ok(self.screens.open(Arc::clone(&self.cluster), self.vm, now).await?)
    }

    /// One viewer, from its coming to its end. Who comes meanwhile is closed.
    async fn serve(&mut self, listener: &TcpListener) -> Result<Ended, Failure> {
        let failed = |cause| Failure::Machine { doing: "listen for a viewer".into(), cause };
        let (mut viewer, _) = listener.accept().await.map_err(failed)?;
        let screen = match self.open().await {
            Ok(screen) => screen,
            Err(failure) => return Ok(Ended::NotOpened(failure)),
        };
        tokio::select! {
            ended = carry(&mut viewer, screen) => Ok(ended),
            error = close_others(listener) => Err(failed(error)),
        }
    }
}

async fn close_others(listener: &TcpListener) -> std::io::Error {
    loop {
        if let Err(error) = listener.accept().await {
            return error;
        }
    }
}

async fn carry(viewer: &mut TcpStream, mut screen: Screen) -> Ended {
    let (mut done, mut shown) = (vec![0; BUFFER], vec![0; BUFFER]);
    loop {
        tokio::select! {
            read = viewer.read(&mut done) => match read {
                Ok(bytes) if bytes > 0 => {
                    if !screen.write(&done[..bytes], PATIENCE).await {
                        return Ended::Screen(screen.end().await);
                    }
                }
                Ok(_) | Err(_) => return Ended::Viewer,
            },
            seen = screen.next(&mut shown) => match seen {
                Seen::Bytes(bytes) => {
                    if !matches!(timeout(PATIENCE, viewer.write_all(&shown[..bytes])).await, Ok(Ok(()))) {
                        return Ended::Viewer;
                    }
                }
                Seen::Ended(end) => return Ended::Screen(end),
            },
        }
    }
}

/// A viewer of ours; it ends when this is dropped.
struct Viewer(Child);

impl Viewer {
    #[allow(
        clippy::disallowed_methods,
        reason = "an operator's own program, which they have asked for, in their session"
    )]
    fn start(address: SocketAddr) -> Result<Self, Failure> {
        let started = Command::new(VIEWER).arg(format!("vnc://{address}")).stdin(Stdio::null()).spawn();
        started.map(Self).map_err(|cause| Failure::Machine {
            doing: format!("start {VIEWER} (Debian: virt-viewer; without --viewer any other can connect)"),
            cause,
        })
    }
}

impl Drop for Viewer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Returns when it has ended; for ever if there is none.
async fn ended(viewer: &mut Option<Viewer>) {
    const LOOK: Duration = Duration::from_millis(200);
    let Some(Viewer(child)) = viewer else { return std::future::pending().await };
    while matches!(child.try_wait(), Ok(None)) {
        tokio::time::sleep(LOOK).await;
    }
}
