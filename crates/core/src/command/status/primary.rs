//! Who is primary, who is to be, and what is the matter with it.

use super::{Survey, explain};
use crate::model::NodeName;

impl Survey<'_> {
    pub(super) fn primary(&mut self) {
        let view = self.facts.view;
        let holds = |node: &NodeName| format!("{node} holds the floating addresses");
        match (&view.primary_node.value, &view.primary_holder) {
            (Some(desired), Some(holder)) if desired == holder => {}
            (Some(desired), Some(holder)) => {
                self.notice(format!("{desired} is to become primary, {}", holds(holder)), explain(desired));
            }
            (Some(desired), None) => {
                self.wrong(format!("nobody is primary: {desired} is to be"), explain(desired));
            }
            (None, Some(holder)) => {
                self.notice(format!("{holder} is stepping down as primary"), explain(holder));
            }
            (None, None) if self.facts.coordinators().well > 0 => self.wrong("nobody is primary", None),
            // The missing coordinators are told above.
            (None, None) => {}
        }
        // What is left of a node that is primary no more concerns nobody.
        if let (Some(holder), Some(said)) = (&view.primary_holder, self.facts.primary_says)
            && let (true, Some(error)) = (said.by == holder.as_str(), &said.error)
        {
            self.wrong(format!("{holder} is primary with trouble: {error}"), explain(holder));
        }
    }
}
