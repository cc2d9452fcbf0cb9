//! The format of ZooKeeper's transaction logs: what a server wrote to its disk before it agreed to a change.
//! Reads as far as a log is whole, and says how far that was. Knows of each transaction only what changes the tree.
//!
//! A header of 16 bytes; then records: a checksum (8 bytes), a length (4), so many bytes of transaction, the letter `B`; then
//! zeros, since the server makes its file longer in advance. All numbers are big-endian.

use anyhow::{Context, Result, bail, ensure};

const MAGIC: &[u8] = b"ZKLG";
pub(super) const HEADER: usize = 16;
/// What a record has besides its transaction: in front, and behind.
const FRONT: usize = 12;
const END: u8 = b'B';

/// The kinds of transactions that matter here, as the server numbers them.
mod kind {
    pub(super) const CREATE: i32 = 1;
    pub(super) const DELETE: i32 = 2;
    pub(super) const SET: i32 = 5;
    pub(super) const MULTI: i32 = 14;
    pub(super) const CREATE_2: i32 = 15;
    pub(super) const CREATE_CONTAINER: i32 = 19;
    pub(super) const DELETE_CONTAINER: i32 = 20;
    pub(super) const CREATE_TTL: i32 = 21;
    pub(super) const ERROR: i32 = -1;
    pub(super) const END_SESSION: i32 = -11;
}

/// One transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) zxid: i64,
    /// By the leader's wall clock, in milliseconds since 1970.
    pub(super) at_ms: u64,
    pub(super) session: i64,
    pub(super) operations: Vec<Operation>,
}

/// What a transaction does to the tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    Create {
        path: String,
        value: String,
        ephemeral: bool,
    },
    Set {
        path: String,
        value: String,
    },
    Delete {
        path: String,
    },
    /// The session's ephemeral keys go.
    EndSession,
}

/// The whole records at the beginning of `bytes`, and how many bytes they take. `from_the_start`: `bytes` begins with the header.
pub(super) fn records(bytes: &[u8], from_the_start: bool) -> Result<(Vec<Record>, usize)> {
    let mut taken = 0;
    if from_the_start {
        if bytes.len() < HEADER {
            return Ok((Vec::new(), 0));
        }
        ensure!(bytes.starts_with(MAGIC), "no transaction log: it begins with {:?}", &bytes[..4]);
        taken = HEADER;
    }
    let mut found = Vec::new();
    while let Some(transaction) = next(&bytes[taken..]) {
        found.push(record(transaction).with_context(|| format!("the record at byte {taken}"))?);
        taken += FRONT + transaction.len() + 1;
    }
    Ok((found, taken))
}

/// The transaction of the record that `bytes` begins with, if it is there as a whole.
fn next(bytes: &[u8]) -> Option<&[u8]> {
    let length = u32::from_be_bytes(bytes.get(8..FRONT)?.try_into().ok()?) as usize;
    let end = FRONT.checked_add(length)?;
    (length > 0 && bytes.get(end) == Some(&END)).then(|| &bytes[FRONT..end])
}

fn record(transaction: &[u8]) -> Result<Record> {
    let mut bytes = Bytes(transaction);
    let session = bytes.long()?;
    bytes.int()?;
    let (zxid, at) = (bytes.long()?, bytes.long()?);
    let operations = match bytes.int()? {
        kind::MULTI => {
            let mut all = Vec::new();
            for _ in 0..bytes.int()? {
                let kind = bytes.int()?;
                let mut one = Bytes(bytes.buffer()?);
                if kind == kind::ERROR {
                    // Of a transaction that fails nothing is done.
                    return Ok(Record { zxid, at_ms: u64::try_from(at)?, session, operations: Vec::new() });
                }
                all.extend(operation(kind, &mut one)?);
            }
            all
        }
        kind => operation(kind, &mut bytes)?.into_iter().collect(),
    };
    Ok(Record { zxid, at_ms: u64::try_from(at)?, session, operations })
}

fn operation(kind: i32, bytes: &mut Bytes<'_>) -> Result<Option<Operation>> {
    Ok(Some(match kind {
        kind::CREATE | kind::CREATE_2 | kind::CREATE_CONTAINER | kind::CREATE_TTL => {
            let (path, value) = (bytes.text()?, bytes.value()?);
            for _ in 0..bytes.int()? {
                // Who may do what with it.
                bytes.int()?;
                bytes.text()?;
                bytes.text()?;
            }
            let ephemeral = matches!(kind, kind::CREATE | kind::CREATE_2) && bytes.take(1)? == [1];
            Operation::Create { path, value, ephemeral }
        }
        kind::SET => Operation::Set { path: bytes.text()?, value: bytes.value()? },
        kind::DELETE | kind::DELETE_CONTAINER => Operation::Delete { path: bytes.text()? },
        kind::END_SESSION => Operation::EndSession,
        // Checks of versions, new sessions, failed requests, access rights.
        _ => return Ok(None),
    }))
}

/// ZooKeeper's serialisation, read from the front.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let Some((taken, rest)) = self.0.split_at_checked(count) else {
            bail!("{count} bytes expected, {} there", self.0.len())
        };
        self.0 = rest;
        Ok(taken)
    }

    fn int(&mut self) -> Result<i32> {
        Ok(i32::from_be_bytes(self.take(4)?.try_into()?))
    }

    fn long(&mut self) -> Result<i64> {
        Ok(i64::from_be_bytes(self.take(8)?.try_into()?))
    }

    /// Length and bytes; a length of -1 is nothing.
    fn buffer(&mut self) -> Result<&'a [u8]> {
        let length = self.int()?;
        self.take(usize::try_from(length.max(0))?)
    }

    fn text(&mut self) -> Result<String> {
        Ok(std::str::from_utf8(self.buffer()?)?.to_owned())
    }

    fn value(&mut self) -> Result<String> {
        Ok(String::from_utf8_lossy(self.buffer()?).into_owned())
    }
}

/// Logs as a server would write them.
#[cfg(test)]
pub(super) mod testing {
    use super::{HEADER, MAGIC, kind};

    pub(in super::super) fn header() -> Vec<u8> {
        let mut header = MAGIC.to_vec();
        header.resize(HEADER, 0);
        header
    }

    /// A record of so many bytes, which creates a key.
    pub(in super::super) fn record(zxid: i64, size: usize) -> Vec<u8> {
        let empty = whole(zxid, kind::CREATE, &create("/a", "", false)).len();
        whole(zxid, kind::CREATE, &create("/a", &"x".repeat(size - empty), false))
    }

    pub(super) fn text(text: &str) -> Vec<u8> {
        [&i32::try_from(text.len()).unwrap().to_be_bytes()[..], text.as_bytes()].concat()
    }

    pub(super) fn create(path: &str, value: &str, ephemeral: bool) -> Vec<u8> {
        let rights =
            [&1i32.to_be_bytes()[..], &31i32.to_be_bytes(), &text("world"), &text("anyone")].concat();
        [&text(path)[..], &text(value), &rights, &[u8::from(ephemeral)], &3i32.to_be_bytes()].concat()
    }

    pub(super) fn whole(zxid: i64, kind: i32, body: &[u8]) -> Vec<u8> {
        let head =
            [&77i64.to_be_bytes()[..], &1i32.to_be_bytes(), &zxid.to_be_bytes(), &1000i64.to_be_bytes()]
                .concat();
        let transaction = [&head[..], &kind.to_be_bytes(), body].concat();
        let length = i32::try_from(transaction.len()).unwrap().to_be_bytes();
        [&[9; 8][..], &length, &transaction, b"B"].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::{
        testing::{create, text, whole},
        *,
    };

    fn log(records: &[Vec<u8>]) -> Vec<u8> {
        [MAGIC, &[0; 12], &records.concat(), &[0; 64]].concat()
    }

    #[test]
    fn a_log_is_read_up_to_the_zeros_and_says_where_they_begin() {
        let set = [&text("/a")[..], &text("new"), &4i32.to_be_bytes()].concat();
        let log = log(&[
            whole(1, kind::CREATE, &create("/a", "old", true)),
            whole(2, kind::SET, &set),
            whole(3, kind::END_SESSION, &[]),
        ]);
        let (found, taken) = records(&log, true).unwrap();
        assert_eq!(taken, log.len() - 64);
        let all: Vec<_> = found.iter().flat_map(|record| record.operations.clone()).collect();
        let created = Operation::Create { path: "/a".into(), value: "old".into(), ephemeral: true };
        let changed = Operation::Set { path: "/a".into(), value: "new".into() };
        assert_eq!(all, [created, changed, Operation::EndSession]);
        assert_eq!((found[0].session, found[0].at_ms, found[2].zxid), (77, 1000, 3));
    }

    #[test]
    fn a_record_that_is_being_written_is_read_once_it_is_whole() {
        let whole_log = log(&[whole(1, kind::DELETE, &text("/a")), whole(2, kind::DELETE, &text("/b"))]);
        let half = whole_log.len() - 70;
        let (first, taken) = records(&whole_log[..half], true).unwrap();
        assert_eq!(first.len(), 1);
        let (second, _) = records(&whole_log[taken..], false).unwrap();
        assert_eq!(second[0].operations, [Operation::Delete { path: "/b".into() }]);
    }

    #[test]
    fn of_a_transaction_that_failed_nothing_is_done() {
        let part = |kind: i32, body: &[u8]| {
            [&kind.to_be_bytes()[..], &i32::try_from(body.len()).unwrap().to_be_bytes(), body].concat()
        };
        let check = [&text("/c")[..], &7i32.to_be_bytes()].concat();
        let create = create("/a", "", false);
        let done = [&2i32.to_be_bytes()[..], &part(13, &check), &part(kind::CREATE, &create)].concat();
        let failed =
            [&2i32.to_be_bytes()[..], &part(kind::ERROR, &[0; 4]), &part(kind::ERROR, &[0; 4])].concat();
        let log = log(&[whole(1, kind::MULTI, &done), whole(2, kind::MULTI, &failed)]);
        let (found, _) = records(&log, true).unwrap();
        assert_eq!(found.iter().map(|r| r.operations.len()).collect::<Vec<_>>(), [1, 0]);
    }

    #[test]
    fn another_file_is_refused() {
        assert!(records(b"SNAPxxxxxxxxxxxxxxxx", true).is_err());
    }
}
