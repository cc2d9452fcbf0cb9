//! What is said to a node before it carries a guest's screen (VNC), and what it answers: short, of fixed size, and never a word about what is on the screen.
//!
//! ```text
//! client:  "pvc-screen/1 " VM " " until " " ticket "\n"      HELLO_BYTES, always
//! node:    a letter, two bytes of length, so many bytes of UTF-8      then, after `Open`, RFB both ways
//! ```

use std::fmt;

use super::{NodeName, VmId, token::TokenHash};

/// The port of each node's address in the cluster network.
pub const SCREEN_PORT: u16 = 7371;

/// The size of a hello.
pub const HELLO_BYTES: usize = GREETING.len() + 36 + 1 + 12 + 1 + 64 + 1;

/// The most that an answer says, bytes.
pub const MOST_WORDS: usize = 1024;

/// The head of an answer: its letter, and how many bytes follow.
pub const ANSWER_HEAD: usize = 3;

const GREETING: &str = "pvc-screen/1 ";

/// Who asks for which screen, and the ticket that says that it may.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Hello {
    /// Whose screen.
    pub vm: VmId,
    /// From when on the ticket is good for nothing, in seconds since 1970.
    pub until_unix_s: u64,
    /// A secret that is used once.
    pub ticket: [u8; 32],
}

/// The ticket is a secret until it is used.
impl fmt::Debug for Hello {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hello")
            .field("vm", &self.vm)
            .field("until_unix_s", &self.until_unix_s)
            .finish_non_exhaustive()
    }
}

impl Hello {
    /// As it is sent.
    pub fn line(&self) -> String {
        let until = self.until_unix_s.min(999_999_999_999);
        format!("{GREETING}{} {until:012} {}\n", self.vm, String::from(TokenHash(self.ticket)))
    }

    /// What is not quite a hello is none.
    pub fn parse(sent: &[u8; HELLO_BYTES]) -> Option<Self> {
        let line = std::str::from_utf8(sent).ok()?.strip_prefix(GREETING)?.strip_suffix('\n')?;
        let mut words = line.split(' ');
        let (vm, until, ticket) = (words.next()?, words.next()?, words.next()?);
        if words.next().is_some() || until.len() != 12 || !until.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let TokenHash(ticket) = ticket.to_owned().try_into().ok()?;
        let this = Self { vm: vm.parse().ok()?, until_unix_s: until.parse().ok()?, ticket };
        // One spelling only.
        (this.line().as_bytes() == sent).then_some(this)
    }

    /// What a ticket's key is the hash of: it is good for this VM, on this node, until then.
    pub fn bound_to(&self, node: &NodeName) -> String {
        format!("{node} {}", self.line())
    }
}

/// A node's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ScreenAnswer {
    /// From here on it is the guest's screen.
    Open,
    /// The guest is not active there, or its process is only being made.
    NotActive,
    /// The guest has no screen: what it lacks, and what to write.
    Lacking(String),
    /// As many are open as may be.
    Full(String),
    /// Nobody has a ticket like this, or it is used, too old, or of another node.
    NoTicket,
    /// It could not be opened.
    Failed(String),
}

impl ScreenAnswer {
    /// As it is sent.
    pub fn encode(&self) -> Vec<u8> {
        let (letter, words) = match self {
            Self::Open => (b'o', ""),
            Self::NotActive => (b'a', ""),
            Self::NoTicket => (b't', ""),
            Self::Lacking(words) => (b'l', words.as_str()),
            Self::Full(words) => (b'f', words.as_str()),
            Self::Failed(words) => (b'e', words.as_str()),
        };
        let end = (0..=words.len().min(MOST_WORDS)).rev().find(|end| words.is_char_boundary(*end));
        let words = words.get(..end.unwrap_or(0)).unwrap_or_default();
        let length = u16::try_from(words.len()).unwrap_or(0);
        let mut sent = vec![letter];
        sent.extend(length.to_be_bytes());
        sent.extend(words.as_bytes());
        sent
    }

    /// How many bytes follow this head; `None`: more than any answer has.
    pub fn words_after(head: [u8; ANSWER_HEAD]) -> Option<usize> {
        let length = usize::from(u16::from_be_bytes([head[1], head[2]]));
        (length <= MOST_WORDS).then_some(length)
    }

    /// An answer, by its letter and its words; `None`: it is none that this program knows.
    pub fn decode(letter: u8, words: &[u8]) -> Option<Self> {
        let text = || String::from_utf8_lossy(words).chars().filter(|letter| !letter.is_control()).collect();
        Some(match letter {
            b'o' => Self::Open,
            b'a' => Self::NotActive,
            b't' => Self::NoTicket,
            b'l' => Self::Lacking(text()),
            b'f' => Self::Full(text()),
            b'e' => Self::Failed(text()),
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello() -> Hello {
        Hello {
            vm: "5a0b0ad5-2f1c-4f3e-9a3d-6d0d6b2f8c11".parse().unwrap(),
            until_unix_s: 1_796_000_000,
            ticket: [0xa7; 32],
        }
    }

    fn sent(line: &str) -> [u8; HELLO_BYTES] {
        line.as_bytes().try_into().unwrap()
    }

    #[test]
    fn a_hello_is_read_as_it_was_said_and_is_bound_to_all_that_it_says() {
        assert_eq!(Hello::parse(&sent(&hello().line())), Some(hello()));
        let node = "hv1".parse().unwrap();
        let other = Hello { until_unix_s: 1, ..hello() };
        assert_ne!(hello().bound_to(&node), other.bound_to(&node));
        assert_ne!(hello().bound_to(&node), hello().bound_to(&"hv2".parse().unwrap()));
        assert!(!format!("{:?}", hello()).contains("a7"), "no secret is shown");
    }

    #[test]
    fn what_is_not_quite_a_hello_is_none() {
        let line = hello().line();
        for (part, other) in [
            ("pvc-screen/1", "pvc-screen/2"),
            ("a7a7", "A7a7"),
            ("a7a7", "é7a"),
            ("5a0b", "5A0B"),
            ("001796", "+01796"),
            ("001796", " 01796"),
            ("\n", " "),
            ("5a0b0ad5-2", "GET / HTTP"),
        ] {
            let line = line.replacen(part, other, 1);
            assert_eq!(Hello::parse(&sent(&line)), None, "{line:?}");
        }
        assert_eq!(Hello::parse(&[0xff; HELLO_BYTES]), None);
    }

    #[test]
    fn an_answer_is_bounded_and_says_nothing_that_moves_a_cursor() {
        let long = ScreenAnswer::Failed("ä".repeat(2 * MOST_WORDS)).encode();
        assert_eq!(long.len(), ANSWER_HEAD + MOST_WORDS);
        for answer in [
            ScreenAnswer::Open,
            ScreenAnswer::NotActive,
            ScreenAnswer::NoTicket,
            ScreenAnswer::Lacking("no screen".to_owned()),
            ScreenAnswer::Full("full".to_owned()),
            ScreenAnswer::Failed("why".to_owned()),
        ] {
            let sent = answer.encode();
            let words = &sent[ANSWER_HEAD..];
            assert_eq!(ScreenAnswer::words_after([sent[0], sent[1], sent[2]]), Some(words.len()));
            assert_eq!(ScreenAnswer::decode(sent[0], words), Some(answer));
        }
        assert_eq!(ScreenAnswer::words_after([b'o', 0xff, 0xff]), None);
        assert_eq!(ScreenAnswer::decode(b'?', b""), None);
        let told = ScreenAnswer::decode(b'e', b"a\x1b[2Jb\xff\n").unwrap();
        assert_eq!(told, ScreenAnswer::Failed("a[2Jb\u{fffd}".to_owned()));
    }
}
