//! What stands of ours, known without listing it: since our last transaction nobody has touched our tables, says the kernel.
//!
//! So what we do costs no more than what changes, and what others do is noticed at once. All is listed now and then, for what is counted; it
//! is then compared with the listing before, in case all of this should err.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use pvc_core::plan::firewall::Ruleset;
use pvc_host::firewall::{Firewall, FirewallError, Listing, Mark};
use tokio::time::Instant;

/// The least time between two listings that nothing but time gives cause to.
const LIST_EVERY: Duration = Duration::from_secs(30);

/// What is said of what rules count is no older.
const OLDEST: Duration = Duration::from_mins(1);

/// What we have made, until somebody else touches it.
#[derive(Default)]
pub(super) struct Standing {
    loaded: Mutex<Option<Loaded>>,
    listed_at: Mutex<Option<Instant>>,
    /// Held from a transaction of ours until it is known what it has led to.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Clone)]
struct Loaded {
    ruleset: Arc<Ruleset>,
    /// Nobody has touched it since.
    since: Mark,
    /// How it looks, if it was listed. Whoever finds another listing finds somebody else's work.
    looks: Option<Arc<BTreeMap<String, String>>>,
    /// Somebody has changed it.
    is_spoilt: bool,
}

/// What a transaction has led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Made {
    /// It stands.
    Stands,
    /// It stands, in the place of what somebody had made of ours.
    Mended,
    /// Somebody has touched our tables at the same time.
    Disturbed,
}

/// What a listing has shown.
pub(super) enum Listed {
    /// It is due then.
    At(Instant),
    /// Ours.
    Ours(Listing),
    /// What somebody has made of it.
    Spoilt,
}

impl Standing {
    /// What stands of ours. It is listed only if somebody has touched it: that may have changed nothing.
    pub(super) async fn look(&self, firewall: &dyn Firewall) -> Result<Option<Arc<Ruleset>>, FirewallError> {
        let Some(loaded) = self.unspoilt() else { return Ok(None) };
        let is_ours = firewall.mark().await?.is_as(&loaded.since)
            || loaded.looks.is_some() && self.list(firewall).await?.is_some();
        Ok(is_ours.then_some(loaded.ruleset))
    }

    /// Makes a ruleset stand, of another that does or of whatever does.
    pub(super) async fn make(
        &self,
        firewall: &dyn Firewall,
        ruleset: &Arc<Ruleset>,
        from: Option<&Ruleset>,
    ) -> Result<Made, FirewallError> {
        let _turn = self.turn.lock().await;
        // Until it is known what stands, nothing of it is.
        let known = self.loaded().take();
        let before = match (from, &known) {
            (Some(_), Some(known)) => known.since,
            _ => firewall.mark().await?,
        };
        match from {
            Some(from) => firewall.change(from, ruleset).await?,
            None => firewall.load(ruleset).await?,
        }
        let since = firewall.mark().await?;
        if !since.is_next_to(&before) {
            return Ok(Made::Disturbed);
        }
        let ruleset = Arc::clone(ruleset);
        *self.loaded() = Some(Loaded { ruleset, since, looks: None, is_spoilt: false });
        Ok(if from.is_none() && known.is_some() { Made::Mended } else { Made::Stands })
    }

    /// Loads what is not ours; answers whether ours is as it was. `None`: it was not loaded, as ours does not stand.
    pub(super) async fn import(
        &self,
        firewall: &dyn Firewall,
        text: &str,
    ) -> Result<Option<bool>, FirewallError> {
        let _turn = self.turn.lock().await;
        // So much may be imported that not all of it is heard. Then its looks tell.
        let has_looks = self.unspoilt().is_some_and(|loaded| loaded.looks.is_some());
        if !has_looks && self.list(firewall).await?.is_none() {
            return Ok(None);
        }
        firewall.import(text).await?;
        Ok(Some(self.look(firewall).await?.is_some()))
    }

    /// Lists it if that is due.
    pub(super) async fn list_if_due(&self, firewall: &dyn Firewall) -> Result<Listed, FirewallError> {
        let last = *self.listed_at();
        if let Some(at) = last.filter(|at| at.elapsed() < LIST_EVERY) {
            return Ok(Listed::At(at + OLDEST));
        }
        Ok(self.list(firewall).await?.map_or(Listed::Spoilt, Listed::Ours))
    }

    /// Whether nobody else has touched what stands.
    pub(super) async fn is_untouched(&self, firewall: &dyn Firewall) -> bool {
        let _turn = self.turn.lock().await;
        let Some(loaded) = self.unspoilt() else { return false };
        firewall.mark().await.is_ok_and(|now| now.is_as(&loaded.since))
    }

    /// Lists what stands; `None`: it is not ours any more.
    async fn list(&self, firewall: &dyn Firewall) -> Result<Option<Listing>, FirewallError> {
        *self.listed_at() = Some(Instant::now());
        let now = firewall.mark().await?;
        let listing = firewall.listing().await?;
        let is_quiet = firewall.mark().await?.is_as(&now);
        let mut loaded = self.loaded();
        let Some(loaded) = &mut *loaded else { return Ok(None) };
        let is_ours = match (&loaded.looks, &listing) {
            (Some(looks), Some(listing)) => **looks == listing.standing,
            (None, Some(_)) => is_quiet && now.is_as(&loaded.since),
            (_, None) => false,
        };
        loaded.is_spoilt = !is_ours;
        let Some(listing) = listing.filter(|_| is_ours) else { return Ok(None) };
        loaded.since = now;
        loaded.looks.get_or_insert_with(|| Arc::new(listing.standing.clone()));
        Ok(Some(listing))
    }

    fn unspoilt(&self) -> Option<Loaded> {
        self.loaded().clone().filter(|loaded| !loaded.is_spoilt)
    }

    fn loaded(&self) -> MutexGuard<'_, Option<Loaded>> {
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn listed_at(&self) -> MutexGuard<'_, Option<Instant>> {
        self.listed_at.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
