//! Sessions of browsers and of clients that log in: a signed cookie and nothing in memory, so that the next primary takes it too.
//!
//! `pvc_session=<end, Unix time>.<hash of the token>.<HMAC-SHA-256 of both>`. A token that leaves the configuration takes its sessions with it.

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use uuid::Uuid;

/// The SHA-256 of a token.
pub(crate) type Hash = [u8; 32];

const NAME: &str = "pvc_session";

/// How long a session lasts, seconds: a day's work.
const LASTS_S: u64 = 12 * 3600;

/// What takes the cookie away from a client.
pub(crate) const CLOSED: &str = "pvc_session=; Path=/; HttpOnly; SameSite=Strict; Max-Age=0";

pub(crate) struct Sessions {
    key: Vec<u8>,
    /// What browsers are told besides.
    also: &'static str,
}

impl Sessions {
    /// Without a key of the configuration: one of this process.
    pub(crate) fn new(secret_key: Option<&str>) -> Self {
        let random = || [Uuid::new_v4().into_bytes(), Uuid::new_v4().into_bytes()].concat();
        Self { key: secret_key.map_or_else(random, |key| key.as_bytes().to_vec()), also: "" }
    }

    /// Browsers keep them from connections without TLS.
    pub(crate) fn only_over_tls(&mut self) {
        self.also = "; Secure";
    }

    /// The cookie of a new session.
    pub(crate) fn open(&self, token: &Hash, now_unix_s: u64) -> String {
        let says = format!("{}.{}", now_unix_s.saturating_add(LASTS_S), hex(token));
        let mac = hex(&self.mac(&says).finalize().into_bytes());
        format!("{NAME}={says}.{mac}; Path=/; HttpOnly; SameSite=Strict; Max-Age={LASTS_S}{}", self.also)
    }

    /// The hash of the token whose session these cookies are of, and when that ends.
    pub(crate) fn find<'a>(
        &self,
        cookies: impl Iterator<Item = &'a str>,
        now_unix_s: u64,
    ) -> Option<(Hash, u64)> {
        let named = |cookie: &'a str| cookie.trim().strip_prefix(NAME)?.strip_prefix('=');
        let value = cookies.flat_map(|line| line.split(';')).find_map(named)?;
        let (says, mac) = value.rsplit_once('.')?;
        self.mac(says).verify_slice(&unhex::<32>(mac)?).ok()?;
        let (end, hash) = says.split_once('.')?;
        let end = end.parse().ok().filter(|end| *end > now_unix_s)?;
        Some((unhex(hash)?, end))
    }

    fn mac(&self, says: &str) -> Hmac<Sha256> {
        #[allow(clippy::expect_used, reason = "HMAC takes a key of any length")]
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.key).expect("a key of any length");
        mac.update(says.as_bytes());
        mac
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .filter_map(|d| char::from_digit(d.into(), 16))
        .collect()
}

fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits: Vec<u8> =
        text.chars().map(|c| c.to_digit(16).and_then(|d| u8::try_from(d).ok())).collect::<Option<_>>()?;
    let bytes: Vec<u8> =
        digits.chunks(2).map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | digit)).collect();
    if text.len() == 2 * N { bytes.try_into().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(cookie: &str) -> String {
        cookie.split(';').next().unwrap().to_owned()
    }

    #[test]
    fn a_session_lasts_its_time_and_is_known_to_whoever_has_the_key() {
        let cookie = value(&Sessions::new(Some("key")).open(&[7; 32], 1000));
        let find = |key, now| Sessions::new(key).find([cookie.as_str()].into_iter(), now);
        let found = Some(([7; 32], 1000 + LASTS_S));
        assert_eq!(find(Some("key"), 1000), found);
        assert_eq!(find(Some("key"), 1000 + LASTS_S), None);
        assert_eq!(find(Some("other"), 1000), None);
        assert_eq!(find(None, 1000), None);
        let among = format!("a=b; {cookie}; c");
        assert_eq!(Sessions::new(Some("key")).find([among.as_str()].into_iter(), 1000), found);
    }

    #[test]
    fn no_part_of_a_cookie_can_be_changed() {
        let sessions = Sessions::new(Some("key"));
        let cookie = value(&sessions.open(&[7; 32], 1000));
        let begin = cookie.find('=').unwrap() + 1;
        for at in begin..cookie.len() {
            let mut bytes = cookie.clone().into_bytes();
            bytes[at] = if bytes[at] == b'1' { b'2' } else { b'1' };
            let forged = String::from_utf8(bytes).unwrap();
            assert_eq!(sessions.find([forged.as_str()].into_iter(), 1000), None, "{forged}");
        }
        for rubbish in ["", "pvc_session", "pvc_session=", "pvc_session=..", "pvc_session=1.é.é"] {
            assert_eq!(sessions.find([rubbish].into_iter(), 0), None, "{rubbish}");
        }
    }
}
