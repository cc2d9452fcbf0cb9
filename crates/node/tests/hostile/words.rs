//! Hostile texts and bytes, from a seed.

/// What has a meaning to some program on the way, and what is nearly right.
const PIECES: [&str; 58] = [
    "tcp",
    "dport",
    "22",
    "accept",
    "drop",
    "reject",
    "ip",
    "saddr",
    "daddr",
    "10.100.0.5",
    "10.0.0.0/8",
    "fd00::1",
    "{",
    "}",
    ",",
    " ",
    " ",
    " ",
    "; ",
    "\n",
    "\r\n",
    "\0",
    "\t",
    "include",
    "\"/etc/shadow\"",
    "flush ruleset",
    "add rule",
    "jump",
    "log prefix",
    "$(reboot)",
    "`reboot`",
    "|",
    "&&",
    ">",
    "'",
    "\"",
    "\\",
    "#",
    "@",
    "--conf-file=/etc/passwd",
    "--dhcp-script=/bin/sh",
    "=",
    "/",
    "..",
    ".",
    "-",
    "web1",
    "net100.example",
    "net101.example",
    "gateway",
    "ns",
    "wpad",
    "localhost",
    "*",
    "ü",
    "\u{202e}",
    "255.255.255.255",
    "999.1.1.1",
];

pub(super) struct Words(fastrand::Rng);

impl Words {
    pub(super) fn new(seed: u64) -> Self {
        Self(fastrand::Rng::with_seed(seed))
    }

    pub(super) fn below(&mut self, n: usize) -> usize {
        self.0.usize(..n)
    }

    pub(super) fn byte(&mut self) -> u8 {
        self.0.u8(..)
    }

    /// One of so many times.
    pub(super) fn chance(&mut self, of: usize) -> bool {
        self.below(of) == 0
    }

    /// A few pieces, seldom a great many, seldom with a character from anywhere.
    pub(super) fn text(&mut self) -> String {
        let count = if self.chance(200) { self.below(300) } else { self.below(6) };
        let mut text = String::new();
        let spaced = self.chance(2);
        for _ in 0..count {
            text.push_str(PIECES[self.below(PIECES.len())]);
            if spaced {
                text.push(' ');
            }
            if self.chance(20) {
                text.extend(char::from_u32(u32::from(self.byte()) << self.below(9)));
            }
        }
        text
    }

    /// One that can be the name of a key.
    pub(super) fn key(&mut self) -> String {
        let text: String = self.text().chars().filter(|c| !c.is_control() && *c != '/').collect();
        if matches!(text.as_str(), "" | "." | "..") { "x".to_owned() } else { text }
    }

    /// That, or something else.
    pub(super) fn or(&mut self, good: &str) -> Vec<u8> {
        match self.below(6) {
            0 => self.text().into_bytes(),
            1 => (0..self.below(40)).map(|_| self.byte()).collect(),
            _ => good.as_bytes().to_vec(),
        }
    }
}
