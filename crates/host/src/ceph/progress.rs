//! How far a change is, as the thread that makes it tells whoever waits for it.

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicU64, Ordering::Relaxed},
};

/// All clones tell of the same change.
#[derive(Debug, Clone, Default)]
pub struct Progress(Arc<Steps>);

#[derive(Debug, Default)]
struct Steps {
    done: AtomicU64,
    /// 0: nothing was told yet.
    of: AtomicU64,
    /// Why it is to end before it is done.
    off: OnceLock<String>,
}

impl Progress {
    /// So many steps are done, bytes or objects, of so many.
    pub fn tell(&self, done: u64, of: u64) {
        self.0.done.store(done, Relaxed);
        self.0.of.store(of, Relaxed);
    }

    /// How many steps are done: as long as this grows, Ceph works on it.
    pub fn done(&self) -> u64 {
        self.0.done.load(Relaxed)
    }

    /// Has the change end, as refused: soon, not at once. Only of what leaves nothing that anybody could use: a copy.
    pub fn call_off(&self, why: String) {
        // The first reason counts.
        let _ = self.0.off.set(why);
    }

    /// Why it is to end.
    pub fn called_off(&self) -> Option<String> {
        self.0.off.get().cloned()
    }

    /// In percent; `None` before anything was told.
    pub fn percent(&self) -> Option<u8> {
        let (done, of) = (u128::from(self.done()), u128::from(self.0.of.load(Relaxed)));
        let percent = (done * 100).checked_div(of)?.min(100);
        u8::try_from(percent).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_told_in_percent_once_it_is_known() {
        let progress = Progress::default();
        assert_eq!(progress.percent(), None);
        for (done, of, percent) in
            [(0, 7, 0), (1, 3, 33), (3, 3, 100), (9, 3, 100), (u64::MAX / 2, u64::MAX, 49)]
        {
            progress.tell(done, of);
            assert_eq!(progress.clone().percent(), Some(percent));
        }
    }
}
