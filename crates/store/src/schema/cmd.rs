//! `/cmd/domains` and `/cmd/ceph`: the old clients' command pipeline. The lock that goes with it is [`crate::lock`].

use pvc_core::model::{StorageCommand, StorageCommandError};

use crate::{Transaction, Value};

/// Commands about VMs.
pub const DOMAINS: &str = "/cmd/domains";
/// Commands about storage.
pub const CEPH: &str = "/cmd/ceph";

/// What a pipeline key holds.
#[derive(Debug, Clone, PartialEq)]
pub enum Pipeline {
    /// Nothing to do.
    Empty,
    /// A command, as written, and what it means. One that cannot be understood is answered with a failure.
    Asked {
        /// The whole line.
        line: String,
        /// What it means.
        command: Result<StorageCommand, StorageCommandError>,
        /// The key's version: the answer must not overwrite a newer command.
        version: i32,
    },
    /// An answer that its client has not fetched yet.
    Answered,
}

/// What to do about a pipeline key.
pub fn decode(value: Option<&Value>) -> Pipeline {
    let Some(value) = value else { return Pipeline::Empty };
    let line = String::from_utf8_lossy(&value.data).trim().to_owned();
    if line.is_empty() {
        return Pipeline::Empty;
    }
    if line.starts_with("success-") || line.starts_with("failure-") {
        return Pipeline::Answered;
    }
    let command = line.parse();
    Pipeline::Asked { line, command, version: value.version }
}

/// Answers a command, unless a newer one has been written.
pub fn answer(key: &str, line: &str, done: bool, version: i32) -> Transaction {
    let mut txn = Transaction::default();
    txn.set(key, format!("{}-{line}", if done { "success" } else { "failure" }), Some(version));
    txn
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn value(text: &str) -> Value {
        Value { data: text.into(), version: 4, mzxid: 1, children: 0 }
    }

    #[test]
    fn a_command_is_understood_and_answered_with_its_whole_line() {
        let found = decode(Some(&value("osd_out 3\n")));
        let Pipeline::Asked { line, command: Ok(StorageCommand::OsdOut { id }), version: 4 } = found else {
            panic!("{found:?}")
        };
        assert_eq!(id.0, 3);
        let mut expected = Transaction::default();
        expected.set(CEPH, "success-osd_out 3", Some(4));
        assert_eq!(answer(CEPH, &line, true, 4), expected);
    }

    #[test]
    fn answers_and_nothing_are_no_commands() {
        assert_eq!(decode(None), Pipeline::Empty);
        assert_eq!(decode(Some(&value(" "))), Pipeline::Empty);
        assert_eq!(decode(Some(&value("failure-osd_out 3"))), Pipeline::Answered);
    }

    proptest! {
        #[test]
        fn no_content_makes_it_panic(data in prop::collection::vec(any::<u8>(), 0..80)) {
            let found = decode(Some(&Value { data, ..value("") }));
            if let Pipeline::Asked { line, .. } = found {
                prop_assert!(!line.is_empty());
            }
        }
    }
}
