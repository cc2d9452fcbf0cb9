//! Many keys in few requests.
//!
//! Several requests are on their way at once, so that a listing costs the server's time and not as many round trips. The
//! library sends a request when its future is made, in that order.

use zookeeper_client::{Client, Error, MultiReadResult};

use crate::store::{Children, Stat, Value};

/// Keys per multi-read.
const CHUNK_KEYS: usize = 256;
/// Bytes of paths per multi-read: the server drops a connection whose request exceeds `jute.maxbuffer` (1 MiB). Answers
/// have no such limit on the server's side, nor on ours.
const CHUNK_PATH_BYTES: usize = 128 * 1024;
/// Multi-reads on their way at once: bounds the memory that answers take.
const CHUNKS_AT_ONCE: usize = 4;
/// Single requests on their way at once.
const STATS_AT_ONCE: usize = 128;

pub(super) fn value(data: Vec<u8>, stat: &zookeeper_client::Stat) -> Value {
    let Stat { version, mzxid, children } = self::stat(stat);
    Value { data, version, mzxid, children }
}

fn stat(stat: &zookeeper_client::Stat) -> Stat {
    let children = u32::try_from(stat.num_children).unwrap_or(0);
    Stat { version: stat.version, mzxid: stat.mzxid, children }
}

pub(super) async fn values(client: &Client, paths: &[String]) -> Result<Vec<Option<Value>>, Error> {
    let answers = multi_read(client, paths, Kind::Data).await?;
    answers
        .into_iter()
        .map(|answer| match answer {
            MultiReadResult::Data { data, stat } => Ok(Some(value(data, &stat))),
            other => absent(other),
        })
        .collect()
}

pub(super) async fn children(client: &Client, paths: &[String]) -> Result<Vec<Option<Children>>, Error> {
    let answers = multi_read(client, paths, Kind::Children).await?;
    answers
        .into_iter()
        .map(|answer| match answer {
            MultiReadResult::Children { children } => Ok(Some(children)),
            other => absent(other),
        })
        .collect()
}

/// ZooKeeper's multi-read has no `exists`, so this is one request a key.
pub(super) async fn stats(client: &Client, paths: &[String]) -> Result<Vec<Option<Stat>>, Error> {
    let mut found = Vec::with_capacity(paths.len());
    for some in paths.chunks(STATS_AT_ONCE) {
        let requests: Vec<_> = some.iter().map(|path| client.check_stat(path)).collect();
        for request in requests {
            found.push(request.await?.as_ref().map(stat));
        }
    }
    Ok(found)
}

#[derive(Clone, Copy)]
enum Kind {
    Data,
    Children,
}

async fn multi_read(client: &Client, paths: &[String], kind: Kind) -> Result<Vec<MultiReadResult>, Error> {
    let chunks: Vec<&[String]> = chunks(paths).collect();
    let mut found = Vec::with_capacity(paths.len());
    for some in chunks.chunks(CHUNKS_AT_ONCE) {
        let mut requests = Vec::with_capacity(some.len());
        for chunk in some {
            let mut reader = client.new_multi_reader();
            for path in *chunk {
                match kind {
                    Kind::Data => reader.add_get_data(path)?,
                    Kind::Children => reader.add_get_children(path)?,
                }
            }
            requests.push((chunk.len(), reader.commit()));
        }
        for (asked, request) in requests {
            let answers = request.await?;
            if answers.len() != asked {
                let what = format!("{asked} keys were asked for, {} were answered", answers.len());
                return Err(Error::UnexpectedError(what));
            }
            found.extend(answers);
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

fn absent<T>(answer: MultiReadResult) -> Result<Option<T>, Error> {
    match answer {
        MultiReadResult::Error { err: Error::NoNode } => Ok(None),
        MultiReadResult::Error { err } => Err(err),
        other => Err(Error::UnexpectedError(format!("an answer of another kind than asked for: {other:?}"))),
    }
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
