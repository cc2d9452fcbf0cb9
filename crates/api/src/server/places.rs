//! How many may be connected at once, and who makes room.

use std::collections::VecDeque;

use tokio::task::{AbortHandle, JoinSet};
use tracing::debug;

use crate::connection::Connection;

/// The connections; all end when this is dropped.
pub(super) struct Places {
    most: usize,
    tasks: JoinSet<()>,
    /// The oldest first.
    taken: VecDeque<(AbortHandle, Connection)>,
}

impl Places {
    pub(super) fn new(most: usize) -> Self {
        Self { most, tasks: JoinSet::new(), taken: VecDeque::new() }
    }

    /// Serves a new connection, in the place of one that asks nothing if there is no other; if all are asking, not at all.
    pub(super) fn admit<F: Future<Output = ()> + Send + 'static>(
        &mut self,
        serve: impl FnOnce(Connection) -> F,
    ) {
        while self.tasks.try_join_next().is_some() {}
        self.taken.retain(|(task, _)| !task.is_finished());
        if self.taken.len() >= self.most {
            let Some(idle) = self.taken.iter().position(|(_, connection)| !connection.is_busy()) else {
                debug!("a connection is refused: all places are taken");
                return;
            };
            if let Some((task, _)) = self.taken.remove(idle) {
                task.abort();
            }
        }
        let connection = Connection::default();
        let task = self.tasks.spawn(serve(connection.clone()));
        self.taken.push_back((task, connection));
    }
}
