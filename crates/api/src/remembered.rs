//! What was answered to changes that had an `Idempotency-Key`: whoever has lost an answer asks again with the same key, and gets it. Bounded, and of this process:
//! the next primary knows none of it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use axum::{
    body::{Body, Bytes},
    http::{HeaderMap, HeaderValue, StatusCode},
    response::Response,
};

use crate::{
    reply::{NothingChanged, Said},
    session::Hash,
};

/// How long an answer is remembered.
const KEPT_FOR: Duration = Duration::from_hours(24);

/// So many answers of one token are remembered …
const MOST_OF_TOKEN: usize = 256;
/// … and so many of all; of more the oldest are forgotten.
const MOST: usize = 1024;

/// A longer answer is not remembered; no change has one.
const LONGEST: usize = 8 * 1024;

/// Of whom, and the key.
type Key = (Hash, String);

#[derive(Clone, Default)]
pub(crate) struct Remembered(Arc<Mutex<HashMap<Key, Entry>>>);

struct Entry {
    /// Of method, path, query and body.
    question: Hash,
    since: Instant,
    /// `None`: it is being carried out.
    answer: Option<Kept>,
}

/// An answer.
#[derive(Clone)]
struct Kept {
    status: StatusCode,
    headers: HeaderMap,
    said: Option<Said>,
    body: Bytes,
}

/// What is known of a key.
pub(crate) enum Known {
    /// Nothing: it is to be carried out.
    Nothing(Ticket),
    /// It was carried out, and this was answered.
    Answered(Response),
    /// It is being carried out.
    Running,
    /// Something else was asked with it.
    Another,
}

/// A change that is being carried out. Dropped without an answer, it is forgotten.
pub(crate) struct Ticket {
    of: Remembered,
    key: Key,
    is_answered: bool,
}

impl Remembered {
    /// What is known of this key; from here on it is being carried out if that is nothing.
    pub(crate) fn begin(&self, token: Hash, key: &str, question: Hash, now: Instant) -> Known {
        let mut entries = self.entries();
        entries.retain(|_, entry| {
            entry.answer.is_none() || now.saturating_duration_since(entry.since) < KEPT_FOR
        });
        let key = (token, key.to_owned());
        match entries.get(&key) {
            Some(entry) if entry.question != question => return Known::Another,
            Some(Entry { answer: None, .. }) => return Known::Running,
            Some(Entry { answer: Some(kept), .. }) => return Known::Answered(kept.clone().again()),
            None => {}
        }
        let of_token = entries.keys().filter(|(of, _)| *of == token).count();
        if of_token >= MOST_OF_TOKEN {
            forget_oldest(&mut entries, |(of, _)| *of == token);
        } else if entries.len() >= MOST {
            forget_oldest(&mut entries, |_| true);
        }
        entries.insert(key.clone(), Entry { question, since: now, answer: None });
        Known::Nothing(Ticket { of: self.clone(), key, is_answered: false })
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<Key, Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is being carried out is not forgotten: it would be done twice. Of these there are no more than places for changes.
fn forget_oldest(entries: &mut HashMap<Key, Entry>, of: impl Fn(&Key) -> bool) {
    let answered = entries.iter().filter(|(key, entry)| of(key) && entry.answer.is_some());
    let oldest = answered.min_by_key(|(_, entry)| entry.since).map(|(key, _)| key.clone());
    oldest.and_then(|key| entries.remove(&key));
}

impl Ticket {
    /// Remembers an answer. What has changed nothing is forgotten, and so is what nobody knows the outcome of yet: asked again, it is decided anew.
    pub(crate) async fn answered(mut self, response: Response) -> Result<Response, axum::Error> {
        let (head, body) = response.into_parts();
        let body = axum::body::to_bytes(body, usize::MAX).await?;
        let is_open = [StatusCode::SERVICE_UNAVAILABLE, StatusCode::GATEWAY_TIMEOUT].contains(&head.status);
        if head.extensions.get::<NothingChanged>().is_none() && !is_open && body.len() <= LONGEST {
            let kept = Kept {
                status: head.status,
                headers: head.headers.clone(),
                said: head.extensions.get().cloned(),
                body: body.clone(),
            };
            if let Some(entry) = self.of.entries().get_mut(&self.key) {
                entry.answer = Some(kept);
            }
            self.is_answered = true;
        }
        Ok(Response::from_parts(head, Body::from(body)))
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if !self.is_answered {
            self.of.entries().remove(&self.key);
        }
    }
}

impl Kept {
    fn again(self) -> Response {
        let mut response = Response::new(Body::from(self.body));
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers;
        response.headers_mut().insert("idempotency-replayed", HeaderValue::from_static("true"));
        self.said.and_then(|said| response.extensions_mut().insert(said));
        response.extensions_mut().insert(NothingChanged);
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn answer(remembered: &Remembered, token: u8, key: usize, now: Instant) -> bool {
        match remembered.begin([token; 32], &key.to_string(), [0; 32], now) {
            Known::Nothing(ticket) => {
                ticket.answered(Response::new(Body::from("done"))).await.unwrap();
                false
            }
            Known::Answered(_) => true,
            Known::Running | Known::Another => panic!("{key} is neither"),
        }
    }

    #[tokio::test]
    async fn of_too_many_the_oldest_are_forgotten_and_nobody_forgets_anothers() {
        let (all, start) = (Remembered::default(), Instant::now());
        let at = |n: usize| start + Duration::from_millis(u64::try_from(n).unwrap());
        assert!(!answer(&all, 1, 0, at(0)).await && answer(&all, 1, 0, at(0)).await);
        for key in 0..2 * MOST_OF_TOKEN {
            answer(&all, 2, key, at(1 + key)).await;
        }
        assert_eq!(all.entries().len(), 1 + MOST_OF_TOKEN);
        let now = at(3 * MOST_OF_TOKEN);
        assert!(answer(&all, 2, 2 * MOST_OF_TOKEN - 1, now).await, "the newest");
        assert!(answer(&all, 1, 0, now).await, "another one's");
        for token in 3..=9 {
            for key in 0..MOST_OF_TOKEN {
                answer(&all, token, key, now + Duration::from_secs(token.into())).await;
            }
        }
        let now = now + Duration::from_secs(9);
        assert_eq!(all.entries().len(), MOST);
        assert!(answer(&all, 9, 0, now).await && !answer(&all, 9, 0, now + KEPT_FOR).await, "for a day");
    }

    #[tokio::test]
    async fn what_breaks_off_changes_nothing_is_undecided_or_says_too_much_is_forgotten() {
        let (all, now) = (Remembered::default(), Instant::now());
        for response in [
            None,
            Some({
                let mut refused = Response::new(Body::empty());
                refused.extensions_mut().insert(NothingChanged);
                refused
            }),
            Some(Response::new(Body::from("x".repeat(LONGEST + 1)))),
            Some({
                let mut away = Response::new(Body::empty());
                *away.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
                away
            }),
        ] {
            let Known::Nothing(ticket) = all.begin([1; 32], "k", [0; 32], now) else {
                panic!("it is forgotten")
            };
            assert!(matches!(all.begin([1; 32], "k", [0; 32], now), Known::Running));
            match response {
                None => drop(ticket),
                Some(response) => drop(ticket.answered(response).await.unwrap()),
            }
            assert!(all.entries().is_empty());
        }
    }
}
