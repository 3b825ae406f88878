//! Lists that several wait for: one now and then in each namespace, and who comes in between shares the next.
//!
//! For a LIST from its store the API server looks through all pods of the namespace. When a thousand objects of one are
//! paused at once, one LIST for each would be most of what it does.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until};

/// Names in one list, so that a selector with all of them is no longer than proxies take.
const TOGETHER: usize = 50;
/// The time between the beginnings of two lists of a namespace.
const APART: Duration = Duration::from_millis(10);

/// The UIDs of an object's pods.
type Pods = Vec<String>;

/// Who waits for a list of pods, by namespace.
#[derive(Debug, Default)]
pub(super) struct Lists {
    spaces: Mutex<HashMap<String, Arc<Space>>>,
}

#[derive(Debug, Default)]
struct Space {
    /// Holds when the last list was begun.
    turn: tokio::sync::Mutex<Option<Instant>>,
    waiting: Mutex<HashMap<String, oneshot::Sender<Pods>>>,
}

impl Lists {
    /// What a list that was begun after this call shows of a name: one by `list`, or that of somebody who waits too.
    /// A name is asked for once at a time.
    ///
    /// # Errors
    /// Those of `list`. One that fails is the failure of one caller: the others take their own.
    pub(super) async fn of<E>(
        &self,
        namespace: &str,
        name: &str,
        list: impl AsyncFnOnce(&[String]) -> Result<HashMap<String, Pods>, E>,
    ) -> Result<Pods, E> {
        let space = Arc::clone(self.lock().entry(namespace.to_owned()).or_default());
        let outcome = loop {
            let (answer, answered) = oneshot::channel();
            space.lock().insert(name.to_owned(), answer);
            if let Some(others) = space.turn(name).await {
                break take(name, others, list).await;
            }
            if let Ok(found) = answered.await {
                break Ok(found);
            }
        };
        let mut spaces = self.lock();
        // Given back while the map is locked: of two that go at once, one sees that it is the last.
        drop(space);
        if spaces.get(namespace).is_some_and(|space| Arc::strong_count(space) == 1) {
            spaces.remove(namespace);
        }
        outcome
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Arc<Space>>> {
        self.spaces.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Space {
    /// Waits for the turn of a name, and says who shares its list; none if it has part in that of another.
    async fn turn(&self, name: &str) -> Option<Vec<(String, oneshot::Sender<Pods>)>> {
        let mut begun = self.turn.lock().await;
        if !self.lock().contains_key(name) {
            return None;
        }
        if let Some(before) = *begun {
            sleep_until(before + APART).await;
        }
        *begun = Some(Instant::now());
        let mut waiting = self.lock();
        waiting.remove(name);
        // Who has gone away waits no more.
        waiting.retain(|_, answer| !answer.is_closed());
        let others: Vec<String> = waiting.keys().take(TOGETHER - 1).cloned().collect();
        Some(others.iter().filter_map(|other| waiting.remove_entry(other)).collect())
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, oneshot::Sender<Pods>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Lists for a name and for others, and hands those their part.
async fn take<E>(
    name: &str,
    others: Vec<(String, oneshot::Sender<Pods>)>,
    list: impl AsyncFnOnce(&[String]) -> Result<HashMap<String, Pods>, E>,
) -> Result<Pods, E> {
    let names: Vec<String> = others.iter().map(|(other, _)| other.clone()).chain([name.to_owned()]).collect();
    let mut found = list(&names).await?;
    for (other, answer) in others {
        // Who has gone away meanwhile needs no answer.
        let _ = answer.send(found.remove(&other).unwrap_or_default());
    }
    Ok(found.remove(name).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use futures::future::join_all;
    use tokio::sync::Semaphore;

    use super::*;

    type Found = HashMap<String, Pods>;

    /// Lists that show of each name a pod that bears it, each as soon as there is an answer for it.
    struct Server {
        asked: RefCell<Vec<Vec<String>>>,
        answers: Semaphore,
    }

    impl Server {
        fn new() -> Self {
            Self { asked: RefCell::default(), answers: Semaphore::new(0) }
        }

        async fn list(&self, names: &[String], fails: bool) -> Result<Found, &'static str> {
            self.asked.borrow_mut().push(names.to_vec());
            self.answers.acquire().await.unwrap().forget();
            if fails {
                return Err("no");
            }
            Ok(names.iter().map(|name| (name.clone(), vec![format!("{name}-1")])).collect())
        }
    }

    #[tokio::test]
    async fn who_comes_after_a_list_was_begun_shares_the_next_one() {
        let (lists, server) = (Lists::default(), Server::new());
        let of =
            async |name: &str| lists.of("agents", name, async |names: &[String]| server.list(names, false).await).await;
        let first = of("a");
        let others = join_all(["b", "c", "d"].map(of));
        let (first, others, ()) = tokio::join!(first, others, async {
            assert_eq!(
                *server.asked.borrow(),
                [["a"]],
                "nobody waits for company, and nobody gets what was begun before"
            );
            server.answers.add_permits(2);
        });
        assert_eq!(first, Ok(vec!["a-1".to_owned()]));
        assert_eq!(others, ["b-1", "c-1", "d-1"].map(|pod| Ok(vec![pod.to_owned()])));
        let asked: Vec<usize> = server.asked.borrow().iter().map(Vec::len).collect();
        assert_eq!(asked, [1, 3], "three lists are one");
        assert!(lists.lock().is_empty(), "a namespace leaves nothing behind");
    }

    #[tokio::test]
    async fn no_list_has_more_names_than_proxies_take() {
        let (lists, server) = (Lists::default(), Server::new());
        let of = async |number: usize| {
            lists.of("agents", &number.to_string(), async |names: &[String]| server.list(names, false).await).await
        };
        let answer = async { server.answers.add_permits(9) };
        let (found, ()) = tokio::join!(join_all((0..TOGETHER * 2).map(of)), answer);
        assert!(found.iter().enumerate().all(|(number, pods)| *pods == Ok(vec![format!("{number}-1")])));
        let mut asked: Vec<usize> = server.asked.borrow().iter().map(Vec::len).collect();
        asked.sort_unstable();
        assert_eq!(asked, [1, TOGETHER - 1, TOGETHER]);
    }

    #[tokio::test]
    async fn a_list_that_fails_is_the_failure_of_its_caller_alone() {
        let (lists, server) = (Lists::default(), Server::new());
        let fails = std::cell::Cell::new(true);
        let of = async |name: &str| {
            let list = async |names: &[String]| server.list(names, names.len() > 1 && fails.replace(false)).await;
            lists.of("agents", name, list).await
        };
        let answer = async { server.answers.add_permits(9) };
        let (found, ()) = tokio::join!(join_all(["a", "b", "c", "d"].map(of)), answer);
        assert_eq!(found.iter().filter(|pods| pods.is_err()).count(), 1, "{found:?}");
        assert_eq!(server.asked.borrow().iter().map(Vec::len).max(), Some(3), "the one that failed was for three");
    }

    #[tokio::test]
    async fn namespaces_do_not_wait_for_each_other_and_a_caller_may_go_away() {
        let (lists, server) = (Lists::default(), Server::new());
        let of = async |namespace: &str, name: &str| {
            lists.of(namespace, name, async |names: &[String]| server.list(names, false).await).await
        };
        {
            let (gone, mut other) = (std::pin::pin!(of("agents", "a")), std::pin::pin!(of("elsewhere", "b")));
            assert!(futures::poll!(gone).is_pending());
            assert!(futures::poll!(other.as_mut()).is_pending());
            assert_eq!(*server.asked.borrow(), [["a"], ["b"]]);
            server.answers.add_permits(2);
        }
        assert_eq!(of("agents", "a").await, Ok(vec!["a-1".to_owned()]), "who went away holds nobody up");
    }
}
