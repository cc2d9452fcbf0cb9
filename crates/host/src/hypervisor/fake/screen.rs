//! Screens of guests that are not there, and a viewer that looks once: as much of RFB 3.8 (RFC 6143) as both need.

use std::{
    collections::BTreeMap,
    io::{self, Read, Write},
    os::unix::net::UnixStream,
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
};

use async_trait::async_trait;
use pvc_core::model::{VmId, screen};

use super::super::screen::{Screen, ScreenError, Screens};

/// What a guest's screen does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FakeDisplay {
    /// Shows one colour, eight by four pixels.
    Shows,
    /// Sends for ever, whatever is asked.
    Floods,
    /// Is defined so.
    Defined(String),
    /// libvirt does not open it, in these words.
    Refused(String),
}

/// The screens of some guests.
#[derive(Default)]
pub struct FakeScreens(Mutex<BTreeMap<VmId, (FakeDisplay, Vec<UnixStream>)>>);

impl FakeScreens {
    /// This guest is active from now on.
    pub fn put(&self, id: VmId, display: FakeDisplay) {
        self.guests().insert(id, (display, Vec::new()));
    }

    /// It is not any more.
    pub fn remove(&self, id: VmId) {
        let Some((_, open)) = self.guests().remove(&id) else { return };
        for stream in open {
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
    }

    fn guests(&self) -> MutexGuard<'_, BTreeMap<VmId, (FakeDisplay, Vec<UnixStream>)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Screens for FakeScreens {
    async fn open(&self, id: VmId) -> Result<Screen, ScreenError> {
        let mut guests = self.guests();
        let (display, open) = guests.get_mut(&id).ok_or(ScreenError::NotActive)?;
        match display {
            FakeDisplay::Refused(words) => return Err(ScreenError::Failed(words.clone())),
            FakeDisplay::Defined(xml) => {
                screen(xml).map_err(ScreenError::Lacking)?;
            }
            FakeDisplay::Shows | FakeDisplay::Floods => {}
        }
        let failed = |error: io::Error| ScreenError::Failed(error.to_string());
        let (ours, theirs) = UnixStream::pair().map_err(failed)?;
        open.push(ours.try_clone().map_err(failed)?);
        let floods = *display == FakeDisplay::Floods;
        thread::spawn(move || if floods { flood(&ours) } else { serve(&ours) });
        Ok(Screen(theirs))
    }
}

const WIDTH: u16 = 8;
const HEIGHT: u16 = 4;

fn flood(mut stream: &UnixStream) -> io::Result<()> {
    stream.write_all(b"RFB 003.008\n")?;
    loop {
        stream.write_all(&[0; 4096])?;
    }
}

fn serve(mut stream: &UnixStream) -> io::Result<()> {
    stream.write_all(b"RFB 003.008\n")?;
    stream.read_exact(&mut [0; 12])?;
    stream.write_all(&[1, 1])?;
    stream.read_exact(&mut [0; 1])?;
    stream.write_all(&[0; 4])?;
    stream.read_exact(&mut [0; 1])?;
    let mut init = [WIDTH.to_be_bytes(), HEIGHT.to_be_bytes()].concat();
    init.extend([32, 24, 0, 1, 0, 255, 0, 255, 0, 255, 16, 8, 0, 0, 0, 0]);
    init.extend([0, 0, 0, 4]);
    init.extend(b"fake");
    stream.write_all(&init)?;
    loop {
        let mut kind = [0];
        stream.read_exact(&mut kind)?;
        let rest = match kind[0] {
            0 => 19,
            2 => {
                let mut head = [0; 3];
                stream.read_exact(&mut head)?;
                4 * usize::from(u16::from_be_bytes([head[1], head[2]]))
            }
            3 => 9,
            4 => 7,
            5 => 5,
            _ => return Ok(()),
        };
        stream.read_exact(&mut vec![0; rest])?;
        if kind[0] == 3 {
            let mut update = vec![0, 0, 0, 1, 0, 0, 0, 0];
            update.extend([WIDTH.to_be_bytes(), HEIGHT.to_be_bytes()].concat());
            update.extend([0; 4]);
            update.extend([0x40; 4].repeat(usize::from(WIDTH * HEIGHT)));
            stream.write_all(&update)?;
        }
    }
}

/// What a viewer has seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Look {
    /// Pixels from left to right.
    pub width: u16,
    /// … and from top to bottom.
    pub height: u16,
    /// What the guest's machine calls it.
    pub name: String,
    /// What was shown, as it came.
    pub pixels: Vec<u8>,
}

/// Asks for the whole picture once.
pub fn look(stream: &mut (impl Read + Write)) -> io::Result<Look> {
    let not = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let mut greeting = [0; 12];
    stream.read_exact(&mut greeting)?;
    if !greeting.starts_with(b"RFB 003.") {
        return Err(not("this is no screen"));
    }
    stream.write_all(b"RFB 003.008\n")?;
    let mut count = [0];
    stream.read_exact(&mut count)?;
    let mut kinds = vec![0; usize::from(count[0])];
    stream.read_exact(&mut kinds)?;
    if !kinds.contains(&1) {
        return Err(not("it asks who this is"));
    }
    stream.write_all(&[1])?;
    let mut result = [0; 4];
    stream.read_exact(&mut result)?;
    // Shared.
    stream.write_all(&[1])?;
    let mut init = [0; 24];
    stream.read_exact(&mut init)?;
    let number = |at: usize| u16::from_be_bytes([init[at], init[at + 1]]);
    let (width, height) = (number(0), number(2));
    let mut name = vec![0; usize::from(number(22))];
    stream.read_exact(&mut name)?;
    // Raw pictures only, then the whole of it.
    stream.write_all(&[2, 0, 0, 1, 0, 0, 0, 0])?;
    let size = [width.to_be_bytes(), height.to_be_bytes()].concat();
    stream.write_all(&[&[3, 0, 0, 0, 0, 0][..], &size].concat())?;
    let mut head = [0; 4];
    stream.read_exact(&mut head)?;
    if head[0] != 0 {
        return Err(not("something else than a picture came"));
    }
    // Of a screen whose size changes meanwhile less may come than was asked for.
    let mut pixels = Vec::new();
    for _ in 0..u16::from_be_bytes([head[2], head[3]]) {
        let mut part = [0; 12];
        stream.read_exact(&mut part)?;
        let of = |at: usize| usize::from(u16::from_be_bytes([part[at], part[at + 1]]));
        let mut bytes = vec![0; 4 * of(4) * of(6)];
        stream.read_exact(&mut bytes)?;
        pixels.extend(bytes);
    }
    Ok(Look { width, height, name: String::from_utf8_lossy(&name).into_owned(), pixels })
}
