//! What is kept of a change for those who look later, and how much of a text.

use pvc_core::model::audit::AuditEntry;

use crate::{api::Api, clock::now_unix_s};

/// As much of a text as a line of the log takes …
pub(crate) const IN_A_LINE: usize = 500;
/// … and as much as is kept of it.
pub(crate) const IN_AN_ENTRY: usize = 200;

/// Keeps an entry, of now.
pub(crate) fn keep(api: &Api, entry: AuditEntry, said: &str) {
    let said = beginning(said, IN_AN_ENTRY).to_owned();
    api.audit.say(AuditEntry { at_unix_s: now_unix_s(), said, ..entry });
}

/// So many characters of a text at most.
pub(crate) fn beginning(text: &str, characters: usize) -> &str {
    text.char_indices().nth(characters).map_or(text, |(end, _)| &text[..end])
}
