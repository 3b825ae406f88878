//! How many calls are under way at once: over all pods, and at most half of them to the pods of one object. Else an object
//! whose pods hang, each until its deadline, or one with thousands of pods, would hold up all others.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};

use crate::observe::index::Owner;

/// Hands out turns, first come, first served, to each object and then over all.
pub(super) struct Turns {
    all: Semaphore,
    /// Turns of one object at once.
    share: usize,
    owners: Mutex<HashMap<Owner, Own>>,
}

/// The turns of one object, while calls to its pods are under way or wait.
struct Own {
    turns: Arc<Semaphore>,
    calls: usize,
}

/// A call may be under way until this is dropped.
pub(super) struct Turn<'a> {
    _own: OwnedSemaphorePermit,
    _all: SemaphorePermit<'a>,
    _place: Place<'a>,
}

/// One of an object's calls, from its wait to its end.
struct Place<'a> {
    turns: &'a Turns,
    owner: &'a Owner,
}

impl Turns {
    /// At most `most` at once.
    pub(super) fn new(most: u16) -> Self {
        let most = usize::from(most.max(1));
        Self { all: Semaphore::new(most), share: most.div_ceil(2), owners: Mutex::default() }
    }

    /// Waits for a turn of an object. None never comes: the semaphores are not closed.
    pub(super) async fn of<'a>(&'a self, owner: &'a Owner) -> Option<Turn<'a>> {
        let (place, own) = self.place(owner);
        let own = own.acquire_owned().await.ok()?;
        let all = self.all.acquire().await.ok()?;
        Some(Turn { _own: own, _all: all, _place: place })
    }

    /// A turn of an object, if there is one at this moment.
    pub(super) fn now<'a>(&'a self, owner: &'a Owner) -> Option<Turn<'a>> {
        let (place, own) = self.place(owner);
        let own = own.try_acquire_owned().ok()?;
        let all = self.all.try_acquire().ok()?;
        Some(Turn { _own: own, _all: all, _place: place })
    }

    fn place<'a>(&'a self, owner: &'a Owner) -> (Place<'a>, Arc<Semaphore>) {
        let first = || Own { turns: Arc::new(Semaphore::new(self.share)), calls: 0 };
        let mut owners = self.lock();
        let own = owners.entry(owner.clone()).or_insert_with(first);
        own.calls += 1;
        (Place { turns: self, owner }, Arc::clone(&own.turns))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Owner, Own>> {
        self.owners.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut owners = self.turns.lock();
        if let Some(own) = owners.get_mut(self.owner) {
            own.calls -= 1;
            if own.calls == 0 {
                owners.remove(self.owner);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures::{FutureExt as _, poll};

    use super::*;

    fn owner(name: &str) -> Owner {
        Owner { namespace: "agents".to_owned(), name: name.to_owned() }
    }

    #[tokio::test]
    async fn an_object_whose_pods_hang_holds_nobody_up() {
        let (turns, hangs, well) = (Turns::new(4), owner("hangs"), owner("well"));
        let first = turns.of(&hangs).now_or_never().flatten().unwrap();
        let _second = turns.of(&hangs).now_or_never().flatten().unwrap();
        let mut third = pin!(turns.of(&hangs));
        assert!(poll!(third.as_mut()).is_pending(), "half of them are its own");
        let others = [(); 2].map(|()| turns.of(&well).now_or_never().flatten());
        assert!(others.iter().all(Option::is_some), "the other half is free");
        assert!(turns.of(&owner("more")).now_or_never().is_none(), "no more than four over all");
        drop(first);
        assert!(third.now_or_never().flatten().is_some(), "what ends lets the next of the object begin");
    }

    #[tokio::test]
    async fn turn_at_this_moment_is_none_where_one_would_wait() {
        let (turns, demo, other) = (Turns::new(2), owner("demo"), owner("other"));
        let first = turns.now(&demo).unwrap();
        assert!(turns.now(&demo).is_none(), "its half is taken");
        let _second = turns.now(&other).unwrap();
        drop(first);
        assert!(turns.now(&demo).is_some());
    }

    #[tokio::test]
    async fn an_object_that_waits_for_nothing_leaves_nothing_behind() {
        let (turns, demo) = (Turns::new(1), owner("demo"));
        {
            let turn = turns.of(&demo).now_or_never().flatten();
            assert!(turn.is_some(), "one is enough for everybody in turn");
            let mut gone = pin!(turns.of(&demo));
            assert!(poll!(gone.as_mut()).is_pending());
            assert_eq!(turns.lock().len(), 1);
        }
        assert!(turns.lock().is_empty());
    }
}
