//! `pvc vm vnc`: a VM's screen for a viewer on this machine. Whoever can connect to loopback here sees it meanwhile, and nobody else.

use std::{
    net::SocketAddr,
    process::{Child, Command, Stdio},
    time::Duration,
};

use pvc_console::screen::ScreenEnd;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};

use crate::{
    args,
    door::{
        Door,
        client::FRAME,
        screen::{Screen, Screens, Seen},
    },
    failure::Failure,
    print::{Out, ends::Ends},
};

/// How long a viewer, or the guest, may take nothing.
const PATIENCE: Duration = Duration::from_secs(30);
const BUFFER: usize = FRAME;
/// How long nobody is listened to after a screen could not be opened.
const PAUSE: Duration = Duration::from_secs(1);
const CLOSED: &str = "the screen is closed; the VM goes on";

/// Where viewers look for programs of this name.
const VIEWER: &str = "remote-viewer";

pub(super) async fn vnc(door: &Door, out: &Out, args: &args::Vnc) -> Result<(), Failure> {
    let failed = |doing: &str| {
        let doing = doing.to_owned();
        move |cause| Failure::Machine { doing, cause }
    };
    if !args.listen.ip().is_loopback() {
        let say = "--listen takes an address of loopback: whoever connects there sees the screen, without a password";
        return Err(Failure::Usage(say.to_owned()));
    }
    let screens = door.screens(&args.vm.vm).await?;
    let mut ends = Ends::hear().map_err(failed("hear signals"))?;
    // What stands in the way is said before anybody is asked to look.
    let line = tokio::select! {
        () = ends.any() => return Err(Failure::Interrupted(CLOSED.to_owned())),
        line = look(&screens) => line?,
    };
    let listener = TcpListener::bind(args.listen).await.map_err(failed("listen for a viewer"))?;
    let address = listener.local_addr().map_err(failed("listen for a viewer"))?;
    out.write(&format!("{line}: vnc://{address}\n"))?;
    if !args.viewer {
        out.aside("for one viewer at a time, until Ctrl-C");
    }
    loop {
        let mut viewer = args.viewer.then(|| Viewer::start(address)).transpose()?;
        let end = tokio::select! {
            biased;
            () = ends.any() => return Err(Failure::Interrupted(CLOSED.to_owned())),
            // Who has connected before it ended is heard first.
            end = serve(&screens, &listener) => end?,
            () = ended(&mut viewer) => {
                out.aside(CLOSED);
                return Ok(());
            }
            line = screens.off() => {
                out.aside(&line?);
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

/// Who has ended it.
enum Ended {
    Screen(ScreenEnd),
    Viewer,
    NotOpened(Failure),
}

/// Whether another viewer may see what this one does not.
fn may_pass(failure: &Failure) -> bool {
    let is_of_the_cluster =
        matches!(failure, Failure::Cluster(_) | Failure::Told { .. }) || failure.may_pass();
    is_of_the_cluster && !failure.is_not_found()
}

/// Sees whether there is a screen; of whom, and where.
async fn look(screens: &Screens<'_>) -> Result<String, Failure> {
    screens.open().await?.line().await
}

/// One viewer, from its coming to its end. Who comes meanwhile is closed.
async fn serve(screens: &Screens<'_>, listener: &TcpListener) -> Result<Ended, Failure> {
    let failed = |cause| Failure::Machine { doing: "listen for a viewer".into(), cause };
    let (mut viewer, _) = listener.accept().await.map_err(failed)?;
    let screen = match screens.open().await {
        Ok(screen) => screen,
        Err(failure) => return Ok(Ended::NotOpened(failure)),
    };
    tokio::select! {
        ended = carry(&mut viewer, screen) => ended,
        error = close_others(listener) => Err(failed(error)),
    }
}

async fn close_others(listener: &TcpListener) -> std::io::Error {
    loop {
        if let Err(error) = listener.accept().await {
            return error;
        }
    }
}

async fn carry(viewer: &mut TcpStream, mut screen: Screen<'_>) -> Result<Ended, Failure> {
    let (mut done, mut shown) = (vec![0; BUFFER], vec![0; BUFFER]);
    loop {
        tokio::select! {
            read = viewer.read(&mut done), if screen.has_room() => match read {
                Ok(bytes) if bytes > 0 => {
                    if let Err(end) = screen.write(&done[..bytes], PATIENCE).await {
                        return Ok(Ended::Screen(end));
                    }
                }
                Ok(_) | Err(_) => return Ok(Ended::Viewer),
            },
            seen = screen.next(&mut shown) => match seen {
                Seen::Bytes(bytes) => {
                    if !matches!(timeout(PATIENCE, viewer.write_all(&shown[..bytes])).await, Ok(Ok(()))) {
                        return Ok(Ended::Viewer);
                    }
                }
                Seen::Room => {}
                Seen::Ended(end) => return Ok(Ended::Screen(end?)),
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

#[cfg(test)]
mod tests;
