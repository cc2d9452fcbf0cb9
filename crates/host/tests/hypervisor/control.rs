//! Between a source's libvirtd and its target's: passes on what they say about a migration, until it is told to pass on no more.

use std::{
    collections::BTreeMap,
    io::{self, Read, Write},
    net::Shutdown,
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

/// Where the conversation ends: nothing that was said from there on arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    /// Never.
    Nowhere,
    /// The source's request number `n`, counted from 0, does not arrive.
    Request(usize),
    /// The answer to it does not.
    Answer(usize),
}

/// What becomes of the connection then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum How {
    /// Both sides are told that it is gone.
    Closed,
    /// Neither hears anything more.
    Silent,
}

/// See the module's documentation. Ends with the process.
pub(crate) struct Control {
    socket: PathBuf,
    heard: Arc<Mutex<Vec<u32>>>,
    is_cut: Arc<AtomicBool>,
}

/// libvirt's RPC: a length of four bytes that counts itself, then program, version, procedure, type, serial and status.
const HEADER: usize = 28;
const REMOTE: u32 = 0x2000_8086;
const CALL: u32 = 0;
/// `REMOTE_PROC_DOMAIN_MIGRATE_FINISH3_PARAMS`.
pub(crate) const FINISH: u32 = 306;

impl Control {
    /// Listens in `folder`, for a source that talks to the target at `target`.
    pub(crate) fn start(folder: &Path, target: &str, cut: Cut, how: How) -> io::Result<Self> {
        let socket = folder.join("control");
        let listener = UnixListener::bind(&socket)?;
        let this = Self { socket, heard: Arc::default(), is_cut: Arc::default() };
        let (heard, is_cut, target) = (this.heard.clone(), this.is_cut.clone(), target.to_owned());
        thread::spawn(move || {
            for source in listener.incoming().flatten() {
                let Ok(target) = UnixStream::connect(&target) else { return };
                let talk = Arc::new(Talk {
                    streams: [source, target],
                    cut,
                    how,
                    serials: Mutex::default(),
                    heard: heard.clone(),
                    is_cut: is_cut.clone(),
                });
                for from in [0, 1] {
                    let talk = talk.clone();
                    thread::spawn(move || talk.pass_on(from));
                }
            }
        });
        Ok(this)
    }

    pub(crate) fn socket(&self) -> String {
        self.socket.display().to_string()
    }

    /// The procedures that the source has called, in their order.
    pub(crate) fn heard(&self) -> Vec<u32> {
        self.heard.lock().unwrap().clone()
    }

    pub(crate) fn is_cut(&self) -> bool {
        self.is_cut.load(Ordering::SeqCst)
    }
}

/// One connection of the source's.
struct Talk {
    streams: [UnixStream; 2],
    cut: Cut,
    how: How,
    /// The number of each request, by its serial.
    serials: Mutex<BTreeMap<u32, usize>>,
    heard: Arc<Mutex<Vec<u32>>>,
    is_cut: Arc<AtomicBool>,
}

impl Talk {
    fn pass_on(&self, from: usize) {
        let (mut reader, mut writer) = (&self.streams[from], &self.streams[1 - from]);
        while let Ok(message) = read(&mut reader) {
            if self.ends_with(&message, from == 0) {
                self.is_cut.store(true, Ordering::SeqCst);
            }
            if self.is_cut.load(Ordering::SeqCst) {
                match self.how {
                    How::Closed => break,
                    How::Silent => continue,
                }
            }
            if writer.write_all(&message).is_err() {
                break;
            }
        }
        if self.how == How::Closed || !self.is_cut.load(Ordering::SeqCst) {
            for stream in &self.streams {
                let _ = stream.shutdown(Shutdown::Both);
            }
        }
    }

    fn ends_with(&self, message: &[u8], by_source: bool) -> bool {
        let word = |n: usize| message[4 * n..4 * n + 4].try_into().map_or(0, u32::from_be_bytes);
        let (program, procedure, kind, serial) = (word(1), word(3), word(4), word(5));
        if program != REMOTE {
            return false;
        }
        let mut serials = self.serials.lock().unwrap();
        if by_source && kind == CALL {
            let mut heard = self.heard.lock().unwrap();
            serials.insert(serial, heard.len());
            heard.push(procedure);
            return self.cut == Cut::Request(heard.len() - 1);
        }
        !by_source && serials.get(&serial).is_some_and(|n| self.cut == Cut::Answer(*n))
    }
}

fn read(stream: &mut &UnixStream) -> io::Result<Vec<u8>> {
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let size = u32::from_be_bytes(length) as usize;
    if size < HEADER {
        return Err(io::Error::other("no message of libvirt's"));
    }
    let mut message = vec![0; size];
    message[..4].copy_from_slice(&length);
    stream.read_exact(&mut message[4..])?;
    Ok(message)
}
