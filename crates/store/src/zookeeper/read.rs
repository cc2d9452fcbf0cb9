//! Many keys in few requests.
//!
//! Several requests are on their way at once, so that a listing costs the server's time and not as many round trips. The
//! client sends a request when its future is made, in that order.

use super::client::{self, Client, Error};
use crate::store::{Children, Stat, Value};

/// Keys per multi-read.
const CHUNK_KEYS: usize = 256;
/// Bytes of paths per multi-read: the server drops a connection whose request exceeds `jute.maxbuffer` (1 MiB). Answers
/// have no such limit on the server's side; on ours they have.
const CHUNK_PATH_BYTES: usize = 128 * 1024;
/// Multi-reads on their way at once: bounds the memory that answers take.
const CHUNKS_AT_ONCE: usize = 4;
/// Single requests on their way at once.
const STATS_AT_ONCE: usize = 128;

pub(super) fn value(data: Vec<u8>, stat: &client::Stat) -> Value {
    let Stat { version, mzxid, children } = self::stat(stat);
    Value { data, version, mzxid, children }
}

fn stat(stat: &client::Stat) -> Stat {
    let children = u32::try_from(stat.num_children).unwrap_or(0);
    Stat { version: stat.version, mzxid: stat.mzxid, children }
}

pub(super) async fn values(client: &Client, paths: &[String]) -> Result<Vec<Option<Value>>, Error> {
    let found = in_chunks(paths, |chunk| client.get_data_of(chunk)).await?;
    Ok(found.into_iter().map(|found| found.map(|(data, stat)| value(data, &stat))).collect())
}

pub(super) async fn children(client: &Client, paths: &[String]) -> Result<Vec<Option<Children>>, Error> {
    in_chunks(paths, |chunk| client.get_children_of(chunk)).await
}

/// ZooKeeper's multi-read has no `exists`, so this is one request a key.
pub(super) async fn stats(client: &Client, paths: &[String]) -> Result<Vec<Option<Stat>>, Error> {
    let mut found = Vec::with_capacity(paths.len());
    for some in paths.chunks(STATS_AT_ONCE) {
        let requests: Vec<_> = some.iter().map(|path| client.exists(path)).collect();
        for request in requests {
            found.push(request.await?.as_ref().map(stat));
        }
    }
    Ok(found)
}

/// Reads chunk by chunk, a few at once.
async fn in_chunks<T, F>(paths: &[String], read: impl Fn(&[String]) -> F) -> Result<Vec<T>, Error>
where
    F: Future<Output = Result<Vec<T>, Error>>,
{
    let chunks: Vec<&[String]> = chunks(paths).collect();
    let mut found = Vec::with_capacity(paths.len());
    for some in chunks.chunks(CHUNKS_AT_ONCE) {
        let requests: Vec<(&[String], F)> = some.iter().map(|chunk| (*chunk, read(chunk))).collect();
        for (chunk, request) in requests {
            match request.await {
                Err(Error::TooLong) if chunk.len() > 1 => found.extend(in_halves(chunk, &read).await?),
                read => found.extend(read?),
            }
        }
    }
    Ok(found)
}

/// Reads what is too much for one answer, because somebody filled many keys: in ever smaller parts, one after the other.
async fn in_halves<T, F>(paths: &[String], read: &impl Fn(&[String]) -> F) -> Result<Vec<T>, Error>
where
    F: Future<Output = Result<Vec<T>, Error>>,
{
    let (first, second) = paths.split_at(paths.len() / 2);
    let (mut found, mut left) = (Vec::with_capacity(paths.len()), vec![second, first]);
    while let Some(some) = left.pop() {
        match read(some).await {
            Err(Error::TooLong) if some.len() > 1 => {
                let (first, second) = some.split_at(some.len() / 2);
                left.extend([second, first]);
            }
            read => found.extend(read?),
        }
    }
    Ok(found)
}

/// Splits by count and by the length of the paths.
fn chunks(paths: &[String]) -> impl Iterator<Item = &[String]> {
    let mut rest = paths;
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fits = rest.iter().take(CHUNK_KEYS).take_while(|path| {
            bytes += path.len();
            bytes <= CHUNK_PATH_BYTES
        });
        // A single path longer than the limit goes alone.
        let count = fits.count().max(1).min(rest.len());
        let (chunk, others) = rest.split_at(count);
        rest = others;
        (!chunk.is_empty()).then_some(chunk)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_bounded_by_count_and_by_bytes_and_lose_nothing() {
        let long = format!("/{}", "x".repeat(50_000));
        let mut paths: Vec<String> = (0..600).map(|i| format!("/k{i}")).collect();
        paths.extend(std::iter::repeat_n(long, 5));
        paths.push(format!("/{}", "y".repeat(CHUNK_PATH_BYTES + 1)));
        let split: Vec<&[String]> = chunks(&paths).collect();
        assert_eq!(split.concat(), paths);
        for chunk in split {
            let bytes: usize = chunk.iter().map(String::len).sum();
            assert!(chunk.len() <= CHUNK_KEYS && (bytes <= CHUNK_PATH_BYTES || chunk.len() == 1));
        }
        assert_eq!(chunks(&[]).count(), 0);
    }
}
