//! Owns which tests run beside each other. All are started at once, and wait here.
//!
//! Several share the operator. Those that take it away run alone, after the others, so that the others do not wait.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// How many tests share the operator at once. Each waits for pods more than it computes, so these are more than there
/// are cores; with many more, pods start so slowly that nothing is gained.
const SHARED: usize = 8;

static QUEUE: Mutex<Queue> = Mutex::new(Queue { waiting: 0, sharing: 0, alone: false });
static CHANGED: Condvar = Condvar::new();

/// Tests that share the operator, and whether one has it alone.
struct Queue {
    waiting: usize,
    sharing: usize,
    alone: bool,
}

/// The right to use the operator, until it is dropped.
pub(crate) enum Admission {
    Shared,
    Alone,
    /// Another namespace of a test that has been admitted.
    Beside,
}

impl Admission {
    /// Waits until the operator is there and few enough use it.
    pub(crate) fn shared() -> Self {
        let mut queue = lock();
        queue.waiting += 1;
        queue = wait_while(queue, |queue| queue.alone || queue.sharing >= SHARED);
        queue.waiting -= 1;
        queue.sharing += 1;
        Self::Shared
    }

    /// Waits until no other test uses the operator or waits for it.
    pub(crate) fn alone() -> Self {
        let mut queue = wait_while(lock(), |queue| queue.alone || queue.sharing + queue.waiting > 0);
        queue.alone = true;
        Self::Alone
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        let mut queue = lock();
        match self {
            Self::Shared => queue.sharing -= 1,
            Self::Alone => queue.alone = false,
            Self::Beside => return,
        }
        drop(queue);
        CHANGED.notify_all();
    }
}

fn lock() -> MutexGuard<'static, Queue> {
    QUEUE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn wait_while(queue: MutexGuard<'static, Queue>, condition: impl Fn(&Queue) -> bool) -> MutexGuard<'static, Queue> {
    CHANGED.wait_while(queue, |queue| condition(queue)).unwrap_or_else(PoisonError::into_inner)
}
