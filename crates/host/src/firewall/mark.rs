//! Whether anybody has touched our tables, told without listing them.
//!
//! The kernel numbers the transactions on a machine's tables, and says at any time which was the last: the generation. To whoever listens
//! it says of each transaction which tables it touches, then its number. So what was missed is noticed by the numbers.

use std::{
    io,
    sync::{Mutex, PoisonError},
};

use rtnetlink::sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};

/// A moment of this machine's tables. Two of them tell whether ours were touched in between.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// The kernel's.
    pub(super) generation: u32,
    /// So many transactions have touched our tables since somebody listens.
    pub(super) touched: u64,
    /// Whether that counts all of them up to the generation.
    pub(super) is_complete: bool,
}

impl Mark {
    /// Whether our tables are certainly as they were at an earlier moment.
    pub fn is_as(&self, earlier: &Self) -> bool {
        self.generation == earlier.generation || (self.is_complete && self.touched == earlier.touched)
    }

    /// Whether certainly no more than one transaction has touched them since: one's own, if there was one.
    pub fn is_next_to(&self, earlier: &Self) -> bool {
        let one_at_most = self.generation.wrapping_sub(earlier.generation) <= 1;
        one_at_most || (self.is_complete && self.touched <= earlier.touched + 1)
    }
}

/// What was missed counts as more than one of ours.
const MISSED: u64 = 2;

/// What is heard, counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Heard {
    /// Of the last transaction.
    pub(super) generation: u32,
    /// As in [`Mark`].
    pub(super) touched: u64,
    /// Whether the transaction that is being told of touches ours.
    is_ours: bool,
}

impl Heard {
    /// Nothing yet.
    pub(super) fn from(generation: u32) -> Self {
        Self { generation, touched: 0, is_ours: false }
    }

    /// Whether all transactions up to this generation are counted.
    pub(super) fn reaches(&self, generation: u32) -> bool {
        !is_later(generation, self.generation)
    }

    /// What the kernel says, in one piece.
    pub(super) fn hear(&mut self, mut said: &[u8]) {
        while !said.is_empty() {
            let (message, rest) = Message::first_of(said);
            said = rest;
            match message {
                Message::Table { is_ours } => self.is_ours |= is_ours,
                Message::End { generation } => self.end(generation),
            }
        }
    }

    /// All up to this generation may have been missed.
    pub(super) fn miss(&mut self, generation: u32) {
        *self = Self { generation, touched: self.touched + MISSED, is_ours: false };
    }

    fn end(&mut self, generation: u32) {
        let is_ours = std::mem::take(&mut self.is_ours);
        if !is_later(generation, self.generation) {
            // Counted as missed.
            return;
        }
        let is_next = generation.wrapping_sub(self.generation) == 1;
        self.touched += if is_next { u64::from(is_ours) } else { MISSED };
        self.generation = generation;
    }
}

/// The number begins anew at its end.
fn is_later(generation: u32, than: u32) -> bool {
    (1..u32::MAX / 2).contains(&generation.wrapping_sub(than))
}

// linux/netlink.h, linux/netfilter/nfnetlink.h, linux/netfilter/nf_tables.h, linux/netfilter.h.
const HEADER: usize = 16;
const OWN_HEADER: usize = 4;
const REQUEST: u16 = 1;
const SUBSYSTEM: u16 = 10 << 8;
const NEW_GENERATION: u16 = SUBSYSTEM | 15;
const GET_GENERATION: u16 = SUBSYSTEM | 16;
/// The attribute that names the table, of a table and of whatever is in one; and that which is the number of a generation.
const FIRST_ATTRIBUTE: u16 = 1;
/// The families and names of our tables.
const OURS: [(u8, &[u8]); 2] = [(1, b"pvc\0"), (7, b"pvc\0")];

/// What the kernel says of tables.
#[derive(Debug, PartialEq, Eq)]
enum Message {
    /// Something of a table has changed.
    Table {
        /// Ours, or who knows whose.
        is_ours: bool,
    },
    /// All of a transaction was told.
    End { generation: u32 },
}

impl Message {
    /// What cannot be read might be about ours.
    const ODD: Self = Self::Table { is_ours: true };

    /// The first of several, and the others.
    fn first_of(said: &[u8]) -> (Self, &[u8]) {
        let Some(length) = number(said, 0).and_then(|length| usize::try_from(length).ok()) else {
            return (Self::ODD, &[]);
        };
        let Some(message) = said.get(..length).filter(|_| length >= HEADER + OWN_HEADER) else {
            return (Self::ODD, &[]);
        };
        let rest = said.get(length.next_multiple_of(4)..).unwrap_or_default();
        (Self::read(message).unwrap_or(Self::ODD), rest)
    }

    fn read(message: &[u8]) -> Option<Self> {
        let first = attribute(message.get(HEADER + OWN_HEADER..)?)?;
        if half(message, 4)? == NEW_GENERATION {
            return Some(Self::End { generation: u32::from_be_bytes(first.try_into().ok()?) });
        }
        let family = *message.get(HEADER)?;
        Some(Self::Table { is_ours: OURS.contains(&(family, first)) })
    }
}

/// What the attribute that is sought for holds.
fn attribute(mut attributes: &[u8]) -> Option<&[u8]> {
    loop {
        let length = usize::from(half(attributes, 0)?);
        let value = attributes.get(4..length)?;
        // The upper two bits are flags.
        if half(attributes, 2)? & 0x3fff == FIRST_ATTRIBUTE {
            return Some(value);
        }
        attributes = attributes.get(length.next_multiple_of(4)..)?;
    }
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// Asks the kernel for the generation of the network namespace it was opened in.
pub(super) struct Generations(Mutex<Socket>);

impl Generations {
    pub(super) fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_NETFILTER)?;
        socket.bind_auto()?;
        // The kernel answers before it has taken the request from us.
        socket.set_non_blocking(true)?;
        Ok(Self(Mutex::new(socket)))
    }

    pub(super) fn now(&self) -> io::Result<u32> {
        let socket = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut request = Vec::with_capacity(HEADER + OWN_HEADER);
        request.extend(u32::try_from(HEADER + OWN_HEADER).unwrap_or_default().to_ne_bytes());
        request.extend(GET_GENERATION.to_ne_bytes());
        request.extend(REQUEST.to_ne_bytes());
        request.resize(HEADER + OWN_HEADER, 0);
        socket.send_to(&request, &SocketAddr::new(0, 0), 0)?;
        let (answer, _) = socket.recv_from_full()?;
        match Message::first_of(&answer).0 {
            Message::End { generation } => Ok(generation),
            Message::Table { .. } => {
                Err(io::Error::other("the kernel does not say how often tables have changed"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the kernel puts it: a header, the family, and attributes.
    fn message(kind: u16, family: u8, attributes: &[(u16, &[u8])]) -> Vec<u8> {
        let mut body = vec![family, 0, 0, 0];
        for (name, value) in attributes {
            body.extend(u16::try_from(value.len() + 4).unwrap().to_ne_bytes());
            body.extend(name.to_ne_bytes());
            body.extend(*value);
            body.resize(body.len().next_multiple_of(4), 0);
        }
        let length = u32::try_from(HEADER + body.len()).unwrap();
        [&length.to_ne_bytes()[..], &(SUBSYSTEM | kind).to_ne_bytes(), &[0; 10], &body].concat()
    }

    fn rule(family: u8, table: &[u8]) -> Vec<u8> {
        message(6, family, &[(2, b"input\0"), (1, table)])
    }

    fn end(generation: u32) -> Vec<u8> {
        message(15, 0, &[(1, &generation.to_be_bytes()), (2, &[0; 4])])
    }

    fn mark(generation: u32, touched: u64, is_complete: bool) -> Mark {
        Mark { generation, touched, is_complete }
    }

    #[test]
    fn transactions_that_touch_our_tables_are_counted_and_no_others() {
        let mut heard = Heard::from(u32::MAX - 1);
        let said = |messages: &[Vec<u8>]| messages.concat();
        heard.hear(&said(&[rule(1, b"pvc\0"), rule(7, b"pvc\0"), end(u32::MAX)]));
        assert_eq!((heard.generation, heard.touched), (u32::MAX, 1));
        // The number begins anew.
        heard.hear(&said(&[rule(1, b"site\0"), rule(2, b"pvc\0"), rule(1, b"pvc2\0"), end(0)]));
        assert_eq!((heard.generation, heard.touched), (0, 1));
        // One may be told in several pieces.
        heard.hear(&rule(7, b"pvc\0"));
        heard.hear(&end(1));
        assert_eq!((heard.generation, heard.touched), (1, 2));
        assert!(heard.reaches(u32::MAX) && heard.reaches(1) && !heard.reaches(2));
    }

    #[test]
    fn what_is_missed_or_cannot_be_read_might_be_ours() {
        let mut heard = Heard::from(5);
        heard.hear(&end(8));
        assert_eq!((heard.generation, heard.touched), (8, 2), "two were not told");
        heard.miss(10);
        heard.hear(&[rule(1, b"pvc\0"), end(10)].concat());
        assert_eq!((heard.generation, heard.touched), (10, 4), "late: it is among those that were missed");
        for odd in
            [&[1, 2][..], &[0; 40], &[255; 24], &message(6, 1, &[])[..], &message(6, 1, &[(9, b"x")])[..]]
        {
            let (generation, touched) = (heard.generation + 1, heard.touched + 1);
            heard.hear(odd);
            heard.hear(&end(generation));
            assert_eq!((heard.generation, heard.touched), (generation, touched), "{odd:?}");
        }
    }

    #[test]
    fn our_tables_are_those_of_the_plan() {
        let families = [("inet", 1), ("bridge", 7)];
        let ours = pvc_core::plan::firewall::TABLES.map(|(family, name)| {
            (families.iter().find(|(known, _)| *known == family).unwrap().1, format!("{name}\0").into_bytes())
        });
        assert_eq!(ours, OURS.map(|(family, name)| (family, name.to_owned())));
    }

    #[test]
    fn a_mark_is_certain_by_the_count_or_by_the_generation() {
        let earlier = mark(7, 3, true);
        for (later, is_as, is_next) in [
            (mark(7, 3, true), true, true),
            (mark(9, 3, true), true, true),
            (mark(9, 4, true), false, true),
            (mark(9, 5, true), false, false),
            // What was said is not heard yet, or never will be.
            (mark(7, 3, false), true, true),
            (mark(8, 3, false), false, true),
            (mark(8, 9, true), false, true),
            (mark(9, 3, false), false, false),
        ] {
            assert_eq!((later.is_as(&earlier), later.is_next_to(&earlier)), (is_as, is_next), "{later:?}");
        }
    }
}
