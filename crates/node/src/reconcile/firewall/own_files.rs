//! An operator's own rules: each file is loaded when the daemon begins, when its text has changed, and after our tables were taken away.
//! A file that is removed takes nothing back: what it has made is the operator's.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use pvc_core::model::Trouble;
use pvc_host::firewall::{Firewall, FirewallError, OwnFile};
use tracing::info;

use crate::log::chain;

/// The texts that were loaded, and what came of it: why it was refused.
#[derive(Default)]
pub(super) struct Imported(Mutex<BTreeMap<String, Option<String>>>);

impl Imported {
    fn texts(&self) -> MutexGuard<'_, BTreeMap<String, Option<String>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nothing of it may stand any more.
    pub(super) fn forget(&self) {
        self.texts().clear();
    }

    /// The next text that is not loaded, in the order of the files.
    pub(super) fn next(&self, files: &[OwnFile]) -> Option<String> {
        let mut texts = self.texts();
        let current = |text: &String| files.iter().any(|file| file.text.as_ref() == Ok(text));
        // A text that comes back is loaded again.
        texts.retain(|text, _| current(text));
        files
            .iter()
            .filter_map(|file| file.text.as_ref().ok())
            .find(|text| !texts.contains_key(*text))
            .cloned()
    }

    /// Loads one. That `nft` refuses it is no failure of ours: it is told, and tried again when it is another one.
    pub(super) async fn import(&self, firewall: &dyn Firewall, text: &str) -> Result<(), FirewallError> {
        let refused = match firewall.import(text).await {
            Ok(()) => None,
            Err(error @ FirewallError::Refused { .. }) => Some(chain(&error)),
            Err(error) => return Err(error),
        };
        if refused.is_none() {
            info!("firewall: a file of an operator's rules is loaded");
        }
        self.texts().insert(text.to_owned(), refused);
        Ok(())
    }

    /// The files that do not stand.
    pub(super) fn troubles(&self, files: &[OwnFile]) -> Vec<Trouble> {
        let texts = self.texts();
        let why = |file: &OwnFile| match &file.text {
            Ok(text) => texts.get(text).cloned().flatten(),
            Err(why) => Some(why.clone()),
        };
        let trouble = |file: &OwnFile| {
            let what =
                format!("the operator's rules in nft/static/{} are not loaded: {}", file.name, why(file)?);
            Some(Trouble::of_all(what).with_todo("mend the file, or remove it, on that node"))
        };
        files.iter().filter_map(trouble).collect()
    }
}
