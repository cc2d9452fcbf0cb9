//! ZooKeeper's wire format ("jute"): big-endian numbers, length-prefixed texts and buffers, and the few records that we use.
//! Source: `src/zookeeper.jute` of ZooKeeper 3.8. Reading never trusts a length that it was told.

use super::error::Error;

/// Request codes of `ZooDefs.OpCode`.
pub(super) mod op {
    pub(crate) const CREATE: i32 = 1;
    pub(crate) const DELETE: i32 = 2;
    pub(crate) const EXISTS: i32 = 3;
    pub(crate) const GET_DATA: i32 = 4;
    pub(crate) const SET_DATA: i32 = 5;
    pub(crate) const GET_CHILDREN: i32 = 8;
    pub(crate) const SYNC: i32 = 9;
    pub(crate) const PING: i32 = 11;
    pub(crate) const CHECK: i32 = 13;
    pub(crate) const MULTI: i32 = 14;
    pub(crate) const MULTI_READ: i32 = 22;
    pub(crate) const ADD_WATCH: i32 = 106;
    pub(crate) const CLOSE: i32 = -11;
    pub(crate) const ERROR: i32 = -1;
}

/// A request's body, or a whole packet, being written.
#[derive(Debug, Default, Clone)]
pub(super) struct Writer(pub(super) Vec<u8>);

impl Writer {
    pub(super) fn int(&mut self, value: i32) -> &mut Self {
        self.0.extend(value.to_be_bytes());
        self
    }

    pub(super) fn long(&mut self, value: i64) -> &mut Self {
        self.0.extend(value.to_be_bytes());
        self
    }

    pub(super) fn bool(&mut self, value: bool) -> &mut Self {
        self.0.push(value.into());
        self
    }

    /// A buffer, or a text. Requests are far below the 2 GiB that its length can say.
    pub(super) fn bytes(&mut self, value: &[u8]) -> &mut Self {
        self.int(i32::try_from(value.len()).unwrap_or(i32::MAX));
        self.0.extend(value);
        self
    }

    /// The header of one operation within a multi.
    pub(super) fn operation(&mut self, op: i32) -> &mut Self {
        self.int(op).bool(false).int(-1)
    }

    /// The end of a multi.
    pub(super) fn end_of_operations(&mut self) -> &mut Self {
        self.int(-1).bool(true).int(-1)
    }
}

/// An answer being read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let (taken, rest) = self.0.split_first_chunk::<N>().ok_or(Error::Malformed)?;
        self.0 = rest;
        Ok(*taken)
    }

    pub(super) fn int(&mut self) -> Result<i32, Error> {
        self.take().map(i32::from_be_bytes)
    }

    pub(super) fn long(&mut self) -> Result<i64, Error> {
        self.take().map(i64::from_be_bytes)
    }

    pub(super) fn bool(&mut self) -> Result<bool, Error> {
        self.take::<1>().map(|[byte]| byte != 0)
    }

    /// A buffer; the length -1 means none, which is the same to us as an empty one.
    pub(super) fn bytes(&mut self) -> Result<&'a [u8], Error> {
        let length = self.int()?.max(0);
        let length = usize::try_from(length).map_err(|_| Error::Malformed)?;
        let (taken, rest) = self.0.split_at_checked(length).ok_or(Error::Malformed)?;
        self.0 = rest;
        Ok(taken)
    }

    pub(super) fn text(&mut self) -> Result<String, Error> {
        let bytes = self.bytes()?.to_vec();
        String::from_utf8(bytes).map_err(|_| Error::Malformed)
    }

    pub(super) fn texts(&mut self) -> Result<Vec<String>, Error> {
        let count = self.int()?.max(0);
        (0..count).map(|_| self.text()).collect()
    }

    pub(super) fn stat(&mut self) -> Result<Stat, Error> {
        let _created = self.long()?;
        let mzxid = self.long()?;
        let _times = (self.long()?, self.long()?);
        let version = self.int()?;
        let _other_versions = (self.int()?, self.int()?);
        let _owner = self.long()?;
        let _length = self.int()?;
        let num_children = self.int()?;
        let _children_changed = self.long()?;
        Ok(Stat { mzxid, version, num_children })
    }

    /// The header of one result within a multi; `None` at its end.
    pub(super) fn operation(&mut self) -> Result<Option<i32>, Error> {
        let (op, done, _error) = (self.int()?, self.bool()?, self.int()?);
        Ok((!done).then_some(op))
    }
}

/// What we use of ZooKeeper's `Stat`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stat {
    pub(crate) mzxid: i64,
    pub(crate) version: i32,
    pub(crate) num_children: i32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let mut writer = Writer::default();
        writer.int(-3).long(1 << 40).bool(true).bytes("schön".as_bytes()).bytes(b"");
        let mut reader = Reader(&writer.0);
        assert_eq!(reader.int().unwrap(), -3);
        assert_eq!(reader.long().unwrap(), 1 << 40);
        assert!(reader.bool().unwrap());
        assert_eq!(reader.text().unwrap(), "schön");
        assert_eq!(reader.bytes().unwrap(), b"");
        assert!(reader.0.is_empty());
    }

    #[test]
    fn a_length_beyond_the_end_is_an_error_and_no_allocation() {
        let huge = i32::MAX.to_be_bytes();
        assert!(matches!(Reader(&huge).bytes(), Err(Error::Malformed)));
        assert!(matches!(Reader(&huge).texts(), Err(Error::Malformed)));
        assert!(matches!(Reader(&huge).stat(), Err(Error::Malformed)));
    }

    #[test]
    fn a_null_buffer_is_empty() {
        assert_eq!(Reader(&(-1_i32).to_be_bytes()).bytes().unwrap(), b"");
    }
}
