//! What pods say, kept once for all that say the same: those of an object mostly do, and there are thousands.

use std::collections::HashSet;
use std::sync::Arc;

use lifecycle::wire::Status;

/// So many are kept before it is asked for the first time whether they are still in use.
const FEW: usize = 64;

/// The statuses in use, and some that no longer are.
#[derive(Debug, Default)]
pub(super) struct Said {
    all: HashSet<Arc<Status>>,
    /// Those that nobody says any more are dropped when there are so many.
    most: usize,
}

impl Said {
    /// Puts an equal status that is kept already in the place of this one, or keeps this one.
    pub(super) fn share(&mut self, status: &mut Arc<Status>) {
        if let Some(known) = self.all.get(status) {
            *status = Arc::clone(known);
            return;
        }
        if self.all.len() >= self.most {
            self.all.retain(|status| Arc::strong_count(status) > 1);
            // Twice those in use: looking through all of them is then a small part of what each costs.
            self.most = self.all.len().saturating_mul(2).max(FEW);
        }
        self.all.insert(Arc::clone(status));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(epoch: i64) -> Arc<Status> {
        let text = r#"{"state": "running", "uptime_seconds": 1, "active_streams": 0, "total_executions": 1,
            "failed_executions": 0, "entry_points": [], "health": {}}"#;
        Arc::new(Status { epoch, ..serde_json::from_str(text).unwrap() })
    }

    #[test]
    fn pods_that_say_the_same_share_it_and_others_do_not() {
        let mut said = Said::default();
        let (mut first, mut same, mut other) = (status(1), status(1), status(2));
        for status in [&mut first, &mut same, &mut other] {
            said.share(status);
        }
        assert!(Arc::ptr_eq(&first, &same));
        assert_eq!((first.epoch, other.epoch), (1, 2));
    }

    #[test]
    fn what_nobody_says_any_more_is_dropped_and_what_is_said_is_kept() {
        let mut said = Said::default();
        let mut kept: Vec<_> = (0..FEW as i64 / 2).map(status).collect();
        kept.iter_mut().for_each(|status| said.share(status));
        for epoch in 1000..9000 {
            said.share(&mut status(epoch));
            assert!(said.all.len() <= FEW + 1, "{} are kept", said.all.len());
        }
        assert!(kept.iter().all(|status| said.all.contains(status)));
    }
}
