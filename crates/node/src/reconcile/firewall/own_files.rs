//! An operator's own rules: each file is loaded when the daemon begins, when its text has changed, and after our tables were taken away.
//! A file that is removed takes nothing back: what it has made is the operator's.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use pvc_core::model::Trouble;
use pvc_host::{
    firewall::{Firewall, FirewallError, OwnFile},
    run::RunError,
};
use tracing::info;

use super::standing::Standing;
use crate::log::chain;

/// The texts that were loaded, and what came of it: why it was refused.
#[derive(Default)]
pub(super) struct Imported(Mutex<BTreeMap<String, Option<String>>>);

impl Imported {
    fn texts(&self) -> MutexGuard<'_, BTreeMap<String, Option<String>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was loaded may stand no more.
    pub(super) fn forget(&self) {
        self.texts().retain(|_, refused| refused.is_some());
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

    /// Loads one beside our tables, which stand. What `nft` does not take, or does not end with, is no failure of ours: it is told, and not tried
    /// again before it is another text. Nor is what touches our tables: it would be undone and done again for ever.
    pub(super) async fn import(
        &self,
        firewall: &dyn Firewall,
        ours: &Standing,
        text: &str,
    ) -> Result<(), FirewallError> {
        let refused = match ours.import(firewall, text).await {
            Ok(None) => return Ok(()),
            Ok(Some(true)) => None,
            Ok(Some(false)) => Some("it changes the tables of pvcd, which are made anew".to_owned()),
            Err(
                error @ (FirewallError::Refused { .. }
                | FirewallError::Run { cause: RunError::Late { .. }, .. }),
            ) => Some(chain(&error)),
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
