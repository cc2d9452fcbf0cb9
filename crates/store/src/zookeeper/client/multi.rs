//! Several operations in one request: writes that are done together or not at all, and reads that save round trips.

use std::future::Future;

use super::{Client, Datum, Error, Reader, Stat, Writer, datum, op};

/// Flags of a create.
pub(crate) const EPHEMERAL: i32 = 1;
/// The server appends ten digits to the name.
pub(crate) const SEQUENTIAL: i32 = 2;

/// `ZooDefs.Perms.ALL` for `world:anyone`.
const ALL: i32 = 31;

/// Any version.
const ANY: i32 = -1;

/// Writes of one transaction, in order.
#[derive(Debug)]
pub(crate) struct Multi<'a> {
    client: &'a Client,
    body: Writer,
}

/// What a write did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Written {
    /// Under this path.
    Created(String),
    Set(Stat),
    /// A deletion, or a check.
    Done,
}

/// Why nothing was written, or nothing is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum MultiError {
    /// The operation of this index failed: nothing was written.
    Operation { index: usize, error: Error },
    /// The request as a whole failed.
    Request(Error),
}

impl From<Error> for MultiError {
    fn from(error: Error) -> Self {
        Self::Request(error)
    }
}

impl Multi<'_> {
    /// Adds: the key exists, in this version if one is given.
    pub(crate) fn check(&mut self, path: &str, version: Option<i32>) -> Result<(), Error> {
        let path = self.client.full(path)?;
        self.body.operation(op::CHECK).bytes(path.as_bytes()).int(known(version)?);
        Ok(())
    }

    /// Adds: create the key, open to everybody.
    pub(crate) fn create(&mut self, path: &str, data: &[u8], flags: i32) -> Result<(), Error> {
        let path = self.client.full(path)?;
        let body = self.body.operation(op::CREATE).bytes(path.as_bytes()).bytes(data);
        body.int(1).int(ALL).bytes(b"world").bytes(b"anyone").int(flags);
        Ok(())
    }

    /// Adds: write the key, if it has the version that is given.
    pub(crate) fn set(&mut self, path: &str, data: &[u8], version: Option<i32>) -> Result<(), Error> {
        let path = self.client.full(path)?;
        self.body.operation(op::SET_DATA).bytes(path.as_bytes()).bytes(data).int(known(version)?);
        Ok(())
    }

    /// Adds: delete the key, if it has the version that is given.
    pub(crate) fn delete(&mut self, path: &str, version: Option<i32>) -> Result<(), Error> {
        let path = self.client.full(path)?;
        self.body.operation(op::DELETE).bytes(path.as_bytes()).int(known(version)?);
        Ok(())
    }

    /// Sends it. One [`Written`] for each operation.
    pub(crate) async fn commit(mut self) -> Result<Vec<Written>, MultiError> {
        self.body.end_of_operations();
        let answer = self.client.ask(op::MULTI, self.body, None).await?;
        written(&mut answer.reader(), &self.client.chroot)
    }
}

/// On the wire -1 means any version: never by accident.
fn known(version: Option<i32>) -> Result<i32, Error> {
    match version {
        None => Ok(ANY),
        Some(version) if version >= 0 => Ok(version),
        Some(_) => Err(Error::BadArguments("a key's version is never negative")),
    }
}

fn written(reader: &mut Reader<'_>, chroot: &str) -> Result<Vec<Written>, MultiError> {
    let mut written = Vec::new();
    let mut failed = None;
    let mut index = 0;
    while let Some(op) = reader.operation()? {
        match op {
            op::CREATE => {
                let path = reader.text()?;
                let ours = path.strip_prefix(chroot).ok_or(Error::Malformed)?;
                written.push(Written::Created(ours.to_owned()));
            }
            op::SET_DATA => written.push(Written::Set(reader.stat()?)),
            op::DELETE | op::CHECK => written.push(Written::Done),
            // Operations before the one that failed say 0, those behind it that they were not tried (-2).
            op::ERROR => match reader.int()? {
                0 | -2 => {}
                code => failed = failed.or(Error::of(code).map(|error| (index, error))),
            },
            _ => return Err(Error::Malformed.into()),
        }
        index += 1;
    }
    match failed {
        Some((index, error)) => Err(MultiError::Operation { index, error }),
        None if written.len() == index => Ok(written),
        None => Err(Error::Malformed.into()),
    }
}

impl Client {
    /// Begins a transaction.
    pub(crate) fn multi(&self) -> Multi<'_> {
        Multi { client: self, body: Writer::default() }
    }

    /// The data of many keys, `None` for those that do not exist.
    pub(crate) fn get_data_of(
        &self,
        paths: &[String],
    ) -> impl Future<Output = Result<Vec<Option<Datum>>, Error>> + use<> {
        self.read_many(paths, op::GET_DATA, datum)
    }

    /// The names of many keys' children, `None` for those that do not exist.
    pub(crate) fn get_children_of(
        &self,
        paths: &[String],
    ) -> impl Future<Output = Result<Vec<Option<Vec<String>>>, Error>> + use<> {
        self.read_many(paths, op::GET_CHILDREN, texts)
    }

    fn read_many<T: Send>(
        &self,
        paths: &[String],
        op: i32,
        one: fn(&mut Reader<'_>) -> Result<T, Error>,
    ) -> impl Future<Output = Result<Vec<Option<T>>, Error>> + use<T> {
        let asked = paths.len();
        let reply = paths
            .iter()
            .try_fold(Writer::default(), |mut body, path| {
                body.operation(op).bytes(self.full(path)?.as_bytes()).bool(false);
                Ok(body)
            })
            .map(|mut body| {
                body.end_of_operations();
                self.ask(op::MULTI_READ, body, None)
            });
        async move {
            let answer = reply?.await?;
            let mut reader = answer.reader();
            let mut found = Vec::with_capacity(asked);
            while let Some(kind) = reader.operation()? {
                found.push(match kind {
                    op::ERROR => match Error::of(reader.int()?) {
                        Some(Error::NoNode) => None,
                        Some(error) => return Err(error),
                        None => return Err(Error::Malformed),
                    },
                    kind if kind == op => Some(one(&mut reader)?),
                    _ => return Err(Error::Malformed),
                });
            }
            if found.len() == asked { Ok(found) } else { Err(Error::Malformed) }
        }
    }
}

fn texts(reader: &mut Reader<'_>) -> Result<Vec<String>, Error> {
    reader.texts()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(codes: &[i32]) -> Vec<u8> {
        let mut writer = Writer::default();
        for code in codes {
            writer.operation(op::ERROR).int(*code);
        }
        writer.end_of_operations();
        writer.0
    }

    #[test]
    fn the_operation_that_failed_is_named() {
        let outcome = written(&mut Reader(&answer(&[0, 0, -103, -2])), "");
        assert_eq!(outcome, Err(MultiError::Operation { index: 2, error: Error::BadVersion }));
    }

    #[test]
    fn created_paths_are_told_without_the_root() {
        let mut body = Writer::default();
        body.operation(op::CREATE).bytes(b"/root/a0000000001").operation(op::CHECK).end_of_operations();
        let outcome = written(&mut Reader(&body.0), "/root").unwrap();
        assert_eq!(outcome, [Written::Created("/a0000000001".into()), Written::Done]);
    }

    #[test]
    fn an_answer_that_says_nothing_is_no_success() {
        assert_eq!(written(&mut Reader(&answer(&[0])), ""), Err(MultiError::Request(Error::Malformed)));
        assert_eq!(written(&mut Reader(&[]), ""), Err(MultiError::Request(Error::Malformed)));
    }
}
