//! Carries bytes between a viewer and a screen: each pair on a thread of its own, with 64 KiB each way. What one side does not take, the other cannot send:
//! QEMU leaves out pictures for a viewer that is slow.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::{Shutdown, TcpStream},
    os::{fd::AsFd, unix::net::UnixStream},
    sync::Arc,
    time::{Duration, Instant},
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::{SockRef, TcpKeepalive};
use tokio::sync::oneshot;

use super::Screen;
use crate::blocking::Workers;

/// What waits in one direction at most, bytes.
const WAITING: usize = 64 * 1024;
/// The loop needs little more than the two buffers, which are on the heap.
const STACK: usize = 128 * 1024;
/// A viewer whose machine is gone is noticed after some 30 s, whether something is on its way to it or nothing. Nobody says anything about a picture that
/// does not change.
const GONE_AFTER: Duration = Duration::from_secs(30);
const PROBED_AFTER: Duration = Duration::from_secs(15);
const PROBED_EVERY: Duration = Duration::from_secs(5);

/// Threads that carry.
pub struct Carriers(Arc<Workers>);

impl Default for Carriers {
    fn default() -> Self {
        Self(Arc::new(Workers::new("screen", STACK)))
    }
}

/// A viewer at a screen. Dropping it ends it.
pub struct Carried {
    viewer: TcpStream,
    ended: oneshot::Receiver<String>,
}

impl Carriers {
    /// Carries until one side ends it or takes nothing for so long.
    pub fn carry(&self, viewer: TcpStream, screen: Screen, patience: Duration) -> io::Result<Carried> {
        let screen = screen.into_stream();
        viewer.set_nodelay(true)?;
        viewer.set_nonblocking(true)?;
        screen.set_nonblocking(true)?;
        let probes = TcpKeepalive::new().with_time(PROBED_AFTER).with_interval(PROBED_EVERY).with_retries(3);
        let socket = SockRef::from(&viewer);
        socket.set_tcp_keepalive(&probes)?;
        socket.set_tcp_user_timeout(Some(GONE_AFTER))?;
        let (end, ended) = oneshot::channel();
        let carried = Carried { viewer: viewer.try_clone()?, ended };
        self.0.run(Box::new(move || {
            let why = carry(&viewer, &screen, patience);
            let _ = viewer.shutdown(Shutdown::Both);
            drop(end.send(why));
        }))?;
        Ok(carried)
    }
}

impl Carried {
    /// Returns when it has ended, and why.
    pub async fn ended(&mut self) -> String {
        (&mut self.ended).await.unwrap_or_else(|_| "its thread has panicked".to_owned())
    }
}

impl Drop for Carried {
    fn drop(&mut self) {
        // Its thread reads an end.
        let _ = self.viewer.shutdown(Shutdown::Both);
    }
}

/// One direction.
struct Way {
    bytes: Vec<u8>,
    from: usize,
    to: usize,
    /// Since when what waits is not taken.
    since: Instant,
}

impl Way {
    fn new() -> Self {
        Self { bytes: vec![0; WAITING], from: 0, to: 0, since: Instant::now() }
    }

    fn is_empty(&self) -> bool {
        self.from == self.to
    }

    /// Reads what there is; `false`: that was the end.
    fn read(&mut self, mut source: impl Read) -> io::Result<bool> {
        match source.read(&mut self.bytes) {
            Ok(0) => Ok(false),
            Ok(read) => {
                (self.from, self.to, self.since) = (0, read, Instant::now());
                Ok(true)
            }
            Err(error) if is_not_now(&error) => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Writes what is taken of it.
    fn write(&mut self, mut sink: impl Write) -> io::Result<()> {
        while let Some(waiting) = self.bytes.get(self.from..self.to).filter(|waiting| !waiting.is_empty()) {
            match sink.write(waiting) {
                Ok(written) => (self.from, self.since) = (self.from + written, Instant::now()),
                Err(error) if is_not_now(&error) => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

fn is_not_now(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

/// Why it has ended.
fn carry(viewer: &TcpStream, screen: &UnixStream, patience: Duration) -> String {
    let (mut shown, mut done) = (Way::new(), Way::new());
    loop {
        let wanted = |reads: &Way, writes: &Way| {
            let flag = |is_wanted, flag| if is_wanted { flag } else { PollFlags::empty() };
            flag(reads.is_empty(), PollFlags::IN) | flag(!writes.is_empty(), PollFlags::OUT)
        };
        let (of_viewer, of_screen) = (wanted(&done, &shown), wanted(&shown, &done));
        let waiting = [&shown, &done].into_iter().filter(|way| !way.is_empty()).map(|way| way.since).min();
        let left = waiting.map(|since| patience.saturating_sub(since.elapsed()));
        if left == Some(Duration::ZERO) {
            let who = if shown.is_empty() { "the guest" } else { "the viewer" };
            return format!("{who} took nothing for {} s", patience.as_secs());
        }
        let mut both = [
            PollFd::from_borrowed_fd(viewer.as_fd(), of_viewer),
            PollFd::from_borrowed_fd(screen.as_fd(), of_screen),
        ];
        let left = left.and_then(|left| Timespec::try_from(left).ok());
        match poll(&mut both, left.as_ref()) {
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return format!("poll: {error}"),
            Ok(_) => {}
        }
        let [at_viewer, at_screen] = both.map(|side| side.revents());
        // A side that is gone, and of which nothing is to be read any more, would be told of for ever.
        let is_gone = |told: PollFlags, wanted: PollFlags| {
            told.intersects(PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL) && !told.intersects(wanted)
        };
        if is_gone(at_viewer, of_viewer) {
            return "the viewer is gone".to_owned();
        }
        if is_gone(at_screen, of_screen) {
            return "the guest has closed it".to_owned();
        }
        let mut step = || -> io::Result<Option<&'static str>> {
            if at_viewer.contains(PollFlags::IN) && !done.read(viewer)? {
                return Ok(Some("the viewer has closed it"));
            }
            if at_screen.contains(PollFlags::IN) && !shown.read(screen)? {
                return Ok(Some("the guest has closed it"));
            }
            // What was just read is taken at once, as a rule.
            shown.write(viewer)?;
            done.write(screen)?;
            Ok(None)
        };
        match step() {
            Ok(None) => {}
            Ok(Some(why)) => return why.to_owned(),
            Err(error) => return error.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{net::TcpListener, thread};

    use super::*;

    const SOON: Duration = Duration::from_secs(30);

    /// A viewer, a guest, and what carries between them.
    fn pair(patience: Duration) -> (TcpStream, UnixStream, Carried) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let viewer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (guest, screen) = UnixStream::pair().unwrap();
        let carried =
            Carriers::default().carry(listener.accept().unwrap().0, Screen(screen), patience).unwrap();
        viewer.set_read_timeout(Some(SOON)).unwrap();
        guest.set_read_timeout(Some(SOON)).unwrap();
        (viewer, guest, carried)
    }

    #[tokio::test]
    async fn all_is_carried_both_ways_and_the_end_of_one_side_is_the_others() {
        let (mut viewer, mut guest, mut carried) = pair(SOON);
        let much = vec![7_u8; 5_000_000];
        let (mut into_viewer, mut into_guest) = (viewer.try_clone().unwrap(), guest.try_clone().unwrap());
        let (mut shown, mut done) = (vec![0; much.len()], vec![0; much.len()]);
        thread::scope(|scope| {
            scope.spawn(|| into_viewer.write_all(&much).unwrap());
            scope.spawn(|| into_guest.write_all(&much).unwrap());
            scope.spawn(|| viewer.read_exact(&mut shown).unwrap());
            guest.read_exact(&mut done).unwrap();
        });
        assert!(shown == much && done == much);
        drop(into_guest);
        drop(guest);
        assert_eq!(viewer.read(&mut [0]).unwrap(), 0);
        assert_eq!(carried.ended().await, "the guest has closed it");
    }

    #[tokio::test]
    async fn who_takes_nothing_is_left_and_who_is_only_silent_is_not() {
        let (mut viewer, mut guest, mut carried) = pair(Duration::from_millis(300));
        thread::sleep(Duration::from_millis(400));
        guest.write_all(b"still there").unwrap();
        viewer.read_exact(&mut [0; 11]).unwrap();
        guest.set_write_timeout(Some(SOON)).unwrap();
        let much = vec![0; WAITING];
        let flood = thread::spawn(move || while guest.write_all(&much).is_ok() {});
        assert_eq!(carried.ended().await, "the viewer took nothing for 0 s");
        flood.join().unwrap();
    }

    #[tokio::test]
    async fn whoever_lets_go_of_it_ends_it() {
        let (mut viewer, mut guest, carried) = pair(SOON);
        drop(carried);
        assert_eq!(viewer.read(&mut [0]).unwrap(), 0);
        assert_eq!(guest.read(&mut [0]).unwrap(), 0);
    }
}
