//! Who asks: by the token in `X-Api-Key`, or by the cookie of a session that a token has opened. Tokens are those of the configuration and those of the state
//! tree (`book`).
//!
//! Tokens are kept as their SHA-256 only. A slow hash is for passwords, which people make up: a token is random, the configuration warns of a short one, and
//! who has the hash of 128 random bits does not find them by trying. Hashes are compared in constant time, and all of them, whichever fits.

use std::{
    convert::Infallible,
    net::IpAddr,
    time::{Duration, Instant},
};

use axum::http::{HeaderMap, HeaderValue, header, uri::Authority};
use pvc_config::{ApiToken, Authentication, Role, SHORT_TOKEN, Secret, Token};
use pvc_store::Store;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use tokio::time::timeout;
use tracing::warn;

use crate::{
    book::Book,
    clock::now_unix_s,
    guesses::Guesses,
    limits::Limits,
    session::{Hash, Sessions},
    who::{Known, Who},
};

/// The header that carries a token.
pub(crate) const KEY: &str = "x-api-key";

/// Nobody who is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stranger {
    /// Sends no token.
    Nobody,
    /// Sends a wrong one.
    Wrong,
    /// A browser asks for a page of another site.
    Foreign,
    /// Is not listened to, since so many wrong ones came from there.
    Guesses,
    /// Sends one that may be of the state tree, which has not been read yet.
    NotYet,
}

/// How long who may have a token of the state tree waits until those have been read.
const READ_WITHIN: Duration = Duration::from_secs(5);

/// Who tries does not find a token of so many characters, so it is looked at however many wrong ones came from there: behind a proxy everybody has one address.
const UNGUESSABLE: usize = SHORT_TOKEN;

/// Lets in who has a token.
pub struct Gate {
    /// `None`: authentication is off.
    guarded: Option<Guarded>,
    /// Only this machine reaches the service.
    is_local: bool,
    is_behind_tls: bool,
}

struct Guarded {
    known: Vec<Known>,
    book: Book,
    sessions: Sessions,
    guesses: Guesses,
}

impl Gate {
    /// The same behind TLS: sessions are sent nowhere else, and a page that came without is another site's.
    #[must_use]
    pub fn behind_tls(mut self) -> Self {
        self.is_behind_tls = true;
        if let Some(guarded) = &mut self.guarded {
            guarded.sessions.only_over_tls();
        }
        self
    }

    /// The gate that a configuration describes. `is_local`: the service listens on loopback only.
    pub fn new(authentication: Option<&Authentication>, is_local: bool, limits: Limits) -> Self {
        let guarded = authentication.map(|authentication| Guarded {
            known: authentication.tokens.iter().map(Known::of).collect(),
            book: Book::default(),
            sessions: Sessions::new(authentication.secret_key.as_ref().map(Secret::reveal)),
            guesses: Guesses::new(limits.wrong_tokens),
        });
        Self { guarded, is_local, is_behind_tls: false }
    }

    /// Whether authentication is on.
    pub(crate) fn is_guarded(&self) -> bool {
        self.guarded.is_some()
    }

    /// Keeps what is known of the state tree's tokens fresh, for ever.
    pub(crate) async fn keep(&self, store: &dyn Store) -> Infallible {
        match &self.guarded {
            Some(guarded) => guarded.book.keep(store).await,
            None => std::future::pending().await,
        }
    }

    /// Reads the state tree's tokens now, after a change of them: what cannot be read now is read soon. Whether the change counts already.
    pub(crate) async fn read_tokens(&self, store: &dyn Store) -> bool {
        let Some(guarded) = &self.guarded else { return true };
        let read = guarded.book.refresh(store).await;
        if let Err(error) = &read {
            warn!("the tokens of the state tree were changed, and cannot be read anew yet: {error}");
        }
        read.is_ok()
    }

    /// Waits until the state tree's tokens are read, if these headers, or what is sent to log in, may be one of them.
    pub(crate) async fn settle(
        &self,
        headers: &HeaderMap,
        login: Option<&str>,
        from: IpAddr,
    ) -> Result<(), Stranger> {
        let Some(guarded) = self.guarded.as_ref().filter(|guarded| guarded.book.known().is_none()) else {
            return Ok(());
        };
        let sent = login.map(str::as_bytes).or_else(|| headers.get(KEY).map(HeaderValue::as_bytes));
        let hash = match sent {
            Some(token) => Some(Sha256::digest(token).into()),
            None => guarded.session(headers).map(|(hash, _)| hash),
        };
        if hash.is_none_or(|hash| guarded.by_hash(&hash).is_some()) {
            return Ok(());
        }
        let read = timeout(READ_WITHIN, guarded.book.is_read()).await;
        // Whoever guesses meanwhile is counted as ever.
        read.map_err(|_| match guarded.count(Stranger::NotYet, from) {
            Stranger::Guesses if sent.is_some_and(|token| token.len() >= UNGUESSABLE) => Stranger::NotYet,
            stranger => stranger,
        })
    }

    /// Whether somebody who was let in still is, as the same.
    pub(crate) fn still(&self, who: &Who) -> bool {
        self.guarded.as_ref().is_none_or(|guarded| guarded.by_hash(&who.token).as_ref() == Some(who))
    }

    /// Returns when they are not any more.
    pub(crate) async fn until_revoked(&self, who: &Who) {
        let Some(guarded) = &self.guarded else { return std::future::pending().await };
        let mut changes = guarded.book.changes();
        loop {
            // What comes after this is heard, so it is looked at first.
            let known = changes.borrow_and_update().clone();
            if !self.still(who) {
                return;
            }
            let of_who = known.iter().flat_map(|known| known.iter()).find(|known| known.who == *who);
            let end = of_who.and_then(|known| known.expires_unix_s);
            // Clocks are set: looked at now and then, and not only at the end.
            let left = end.map_or(3600, |end| end.saturating_sub(now_unix_s()).clamp(1, 3600));
            let _ = timeout(Duration::from_secs(left), changes.changed()).await;
        }
    }

    /// When the session ends that these headers ask by; `None`: they ask by a token, or nobody has to say who asks.
    pub(crate) fn session_end(&self, headers: &HeaderMap) -> Option<u64> {
        let guarded = self.guarded.as_ref().filter(|_| !headers.contains_key(KEY))?;
        guarded.session(headers).map(|(_, end)| end)
    }

    /// Who sends these headers from there. `changes`: the request would change something.
    pub(crate) fn who(&self, headers: &HeaderMap, changes: bool, from: IpAddr) -> Result<Who, Stranger> {
        let Some(guarded) = &self.guarded else {
            // A page of another site, in a browser that reaches this address; its own name may lead here, too.
            let is_foreign =
                changes && !self.is_same_site(headers) || self.is_local && !is_asked_locally(headers);
            let anybody =
                Who { name: "anybody".to_owned(), role: Role::Admin, token: Hash::default(), vms: None };
            return if is_foreign { Err(Stranger::Foreign) } else { Ok(anybody) };
        };
        let mut keys = headers.get_all(KEY).iter();
        match (keys.next(), keys.next()) {
            (Some(key), None) => guarded.by_token(key.as_bytes(), from),
            // Of two, nobody could say which counts.
            (Some(_), Some(_)) => Err(guarded.count(Stranger::Wrong, from)),
            (None, _) if changes && !self.is_same_site(headers) => {
                Err(guarded.count(Stranger::Foreign, from))
            }
            (None, _) => match guarded.by_session(headers) {
                Some(who) => Ok(who),
                // Whoever opens the page has nothing to show yet.
                None if !changes => Err(Stranger::Nobody),
                None => Err(guarded.count(Stranger::Nobody, from)),
            },
        }
    }

    /// A cookie for who has this token. A page of another site logs nobody in, and its wrong tokens are not those of who looks at it.
    pub(crate) fn open_session(
        &self,
        token: &str,
        headers: &HeaderMap,
        from: IpAddr,
    ) -> Result<String, Stranger> {
        let guarded = self.guarded.as_ref().ok_or(Stranger::Nobody)?;
        if !self.is_same_site(headers) {
            return Err(Stranger::Foreign);
        }
        let who = guarded.by_token(token.as_bytes(), from)?;
        Ok(guarded.sessions.open(&who.token, now_unix_s()))
    }

    /// Whether a browser says that a page of ours asks, or nothing says otherwise: old clients keep a session's cookie, too, and send none of these. What a
    /// browser says itself counts before what follows from `Host`, which a proxy may have changed.
    fn is_same_site(&self, headers: &HeaderMap) -> bool {
        if let Some(site) = text(headers, "sec-fetch-site") {
            return site == "same-origin" || site == "none";
        }
        let Some(origin) = text(headers, header::ORIGIN.as_str()) else { return true };
        let Some((scheme, authority)) = origin.split_once("://") else { return false };
        // Without TLS here there may be a proxy that speaks it.
        let may_be = scheme == "https" || scheme == "http" && !self.is_behind_tls;
        may_be && text(headers, header::HOST.as_str()) == Some(authority)
    }
}

impl Guarded {
    fn by_token(&self, token: &[u8], from: IpAddr) -> Result<Who, Stranger> {
        if token.len() < UNGUESSABLE && self.guesses.are_too_many(from, Instant::now()) {
            return Err(Stranger::Guesses);
        }
        self.by_hash(&Sha256::digest(token).into()).ok_or_else(|| self.count(Stranger::Wrong, from))
    }

    /// A refusal that counts. Of very many no more is said, or the log would hold nothing else.
    fn count(&self, stranger: Stranger, from: IpAddr) -> Stranger {
        let now = Instant::now();
        if self.guesses.are_too_many(from, now) {
            return Stranger::Guesses;
        }
        self.guesses.count(from, now);
        stranger
    }

    fn by_session(&self, headers: &HeaderMap) -> Option<Who> {
        self.by_hash(&self.session(headers)?.0)
    }

    /// The hash of the token whose session is sent, and when that ends.
    fn session(&self, headers: &HeaderMap) -> Option<(Hash, u64)> {
        let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
        self.sessions.find(cookies, now_unix_s())
    }

    /// Of two with one hash that of the configuration counts.
    fn by_hash(&self, hash: &Hash) -> Option<Who> {
        let (book, now) = (self.book.known().unwrap_or_default(), now_unix_s());
        let mut found = None;
        for known in book.iter().rev().chain(&self.known) {
            let is_good = known.expires_unix_s.is_none_or(|end| now < end);
            if bool::from(known.who.token.ct_eq(hash)) && is_good {
                found = Some(known.who.clone());
            }
        }
        found
    }
}

impl Known {
    fn of(token: &ApiToken) -> Self {
        let hash = match &token.token {
            Token::Plain(plain) => Sha256::digest(plain.reveal().as_bytes()).into(),
            Token::Sha256(hash) => *hash,
        };
        let who = Who { name: token.description.clone(), role: token.role, token: hash, vms: None };
        Self { who, expires_unix_s: None }
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).map(|value| value.to_str().unwrap_or_default())
}

/// Whether it was asked for by an address, or by the one name that leads to this machine everywhere. Any other may be a stranger's, whose page would be of
/// "the same site".
fn is_asked_locally(headers: &HeaderMap) -> bool {
    let Some(host) = text(headers, header::HOST.as_str()) else { return true };
    let Ok(authority) = host.parse::<Authority>() else { return false };
    let name = authority.host().trim_matches(['[', ']']);
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    fn gate() -> Gate {
        let plain = |name: &str, token: &str| ApiToken {
            description: name.to_owned(),
            role: Role::Admin,
            token: Token::Plain(Secret::new(token)),
        };
        let hashed = ApiToken {
            description: "hashed".to_owned(),
            role: Role::Read,
            token: Token::Sha256(Sha256::digest("third").into()),
        };
        let tokens = vec![plain("one", "first"), plain("two", "second"), hashed];
        Gate::new(
            Some(&Authentication { secret_key: Some(Secret::new("key")), tokens }),
            false,
            Limits::default(),
        )
    }

    fn headers(of: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in of {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    fn who(of: &[(&'static str, &str)], changes: bool) -> Option<String> {
        gate().who(&headers(of), changes, HERE).ok().map(|who| who.name)
    }

    #[test]
    fn a_token_names_who_asks_and_nothing_else_does() {
        for (key, name) in [
            ("first", Some("one")),
            ("second", Some("two")),
            ("third", Some("hashed")),
            ("", None),
            ("firs", None),
            ("first ", None),
        ] {
            assert_eq!(who(&[(KEY, key)], true).as_deref(), name, "{key:?}");
        }
        assert_eq!(who(&[], false), None);
        assert_eq!(who(&[(KEY, "first"), (KEY, "second")], false), None);
        let hash: Hash = Sha256::digest("first").into();
        assert_eq!(
            gate().who(&headers(&[(KEY, &crate::session::hex(&hash))]), false, HERE),
            Err(Stranger::Wrong),
            "the hash of a token is none"
        );
    }

    #[test]
    fn a_session_stands_for_the_token_that_opened_it() {
        let cookie = gate().open_session("second", &HeaderMap::new(), HERE).unwrap();
        let cookie = cookie.split(';').next().unwrap();
        assert_eq!(who(&[("cookie", cookie)], true).as_deref(), Some("two"));
        assert_eq!(gate().open_session("wrong", &HeaderMap::new(), HERE), Err(Stranger::Wrong));
        // A wrong token is not made up for by a session.
        assert_eq!(who(&[("cookie", cookie), (KEY, "wrong")], false), None);
        let other = Gate::new(
            Some(&Authentication { secret_key: Some(Secret::new("key")), tokens: Vec::new() }),
            false,
            Limits::default(),
        );
        assert_eq!(
            other.who(&headers(&[("cookie", cookie)]), false, HERE),
            Err(Stranger::Nobody),
            "its token is gone"
        );
    }

    #[test]
    fn another_sites_page_changes_nothing_where_nobody_is_asked_for_a_token() {
        let open = Gate::new(None, true, Limits::default());
        assert!(open.who(&headers(&[("host", "localhost:7370")]), true, HERE).is_ok());
        let page = headers(&[("host", "localhost:7370"), ("origin", "http://evil.example")]);
        assert!(open.who(&page, true, HERE).is_err() && open.who(&page, false, HERE).is_ok());
        // Its name leads here, so its pages are of one site with this service.
        for (host, may) in [
            ("evil.example:7370", false),
            ("localhost.evil.example", false),
            ("[::1]:7370", true),
            ("127.0.0.1", true),
        ] {
            let origin = format!("http://{host}");
            let rebound = headers(&[("host", host), ("origin", &origin)]);
            assert_eq!(open.who(&rebound, false, HERE).is_ok(), may, "{host} reads");
            assert_eq!(open.who(&rebound, true, HERE).is_ok(), may, "{host} changes");
            // Whoever listens elsewhere without authentication has said that anybody may.
            let anywhere = Gate::new(None, false, Limits::default());
            assert!(anywhere.who(&rebound, true, HERE).is_ok());
        }
    }

    #[test]
    fn wrong_tokens_keep_out_who_may_be_guessing_and_nobody_with_a_long_token() {
        let long = "a-token-of-more-than-sixteen-characters";
        let token = |token: &str| ApiToken {
            description: token.to_owned(),
            role: Role::Admin,
            token: Token::Plain(Secret::new(token)),
        };
        let tokens = vec![token("short"), token(long)];
        let gate = Gate::new(Some(&Authentication { secret_key: None, tokens }), false, Limits::default());
        let ask = |key: &str| gate.who(&headers(&[(KEY, key)]), false, HERE).map(|who| who.name);
        for _ in 0..Limits::default().wrong_tokens {
            assert_eq!(ask("wrong"), Err(Stranger::Wrong));
        }
        assert_eq!(ask("short"), Err(Stranger::Guesses));
        assert_eq!(ask(long).as_deref(), Ok(long));
        assert!(gate.open_session(long, &HeaderMap::new(), HERE).is_ok());
        let foreign = headers(&[("host", "10.0.0.1"), ("origin", "http://evil.example")]);
        assert_eq!(
            gate.open_session(long, &foreign, HERE),
            Err(Stranger::Foreign),
            "nobody is logged in by another's page"
        );
    }

    #[test]
    fn behind_tls_a_page_that_came_without_is_another_sites() {
        for (gate, scheme, may) in [
            (gate(), "http", true),
            (gate(), "https", true),
            (gate(), "file", false),
            (gate().behind_tls(), "http", false),
            (gate().behind_tls(), "https", true),
        ] {
            let origin = format!("{scheme}://10.0.0.254:7370");
            let page = headers(&[("host", "10.0.0.254:7370"), ("origin", &origin)]);
            assert_eq!(gate.open_session("first", &page, HERE).is_ok(), may, "{origin}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_is_not_called_wrong_before_those_of_the_tree_are_read() {
        let gate = gate();
        let settled = async |of: &[(&'static str, &str)]| gate.settle(&headers(of), None, HERE).await;
        assert_eq!(settled(&[(KEY, "first")]).await, Ok(()), "it is of the configuration");
        assert_eq!(settled(&[]).await, Ok(()), "there is none");
        let long = "x".repeat(UNGUESSABLE);
        for _ in 0..=Limits::default().wrong_tokens {
            assert_eq!(settled(&[(KEY, &long)]).await, Err(Stranger::NotYet));
        }
        assert_eq!(settled(&[(KEY, "short")]).await, Err(Stranger::Guesses), "who guesses is counted");
        let tree = pvc_store::memory::MemoryTree::new();
        let store = tree.client();
        let (reads, waits) = (gate.read_tokens(&*store), [(KEY, long.as_str())]);
        let (settled, _) = tokio::join!(settled(&waits), reads);
        assert_eq!(settled, Ok(()));
    }

    #[test]
    fn another_sites_page_changes_nothing_by_a_session() {
        let cookie = gate().open_session("first", &HeaderMap::new(), HERE).unwrap();
        let cookie = cookie.split(';').next().unwrap();
        let host = ("host", "10.0.0.254:7370");
        for (header, may) in [
            (("origin", "http://10.0.0.254:7370"), true),
            (("origin", "http://evil.example"), false),
            (("origin", "null"), false),
            (("sec-fetch-site", "cross-site"), false),
            (("sec-fetch-site", "same-site"), false),
            (("sec-fetch-site", "same-origin"), true),
            (("sec-fetch-site", "none"), true),
        ] {
            assert_eq!(who(&[host, ("cookie", cookie), header], true).is_some(), may, "{header:?}");
            assert!(who(&[host, ("cookie", cookie), header], false).is_some(), "{header:?} reads");
            assert!(who(&[host, (KEY, "first"), header], true).is_some(), "{header:?} with a token");
        }
    }
}
