//! Takes executions in: those that are triggered, and the ticks of timers.

use jiff::Timestamp;
use serde_json::{Map, Value};

use super::{Begun, Engine, Refused};
use crate::definition::{EntryPoint, Overlap, Trigger};
use crate::store::{Accepted, Error, Execution, Key};
use crate::trace::{self, TraceContext};

impl Engine {
    /// Accepts an execution. When this returns, it is on disk.
    ///
    /// # Errors
    /// See [`Refused`]; nothing was accepted.
    pub async fn begin(
        &self,
        entry_point: &str,
        memory: Map<String, Value>,
        key: Option<Key>,
        trace: Option<TraceContext>,
    ) -> Result<Begun, Refused> {
        let agent = self.agent();
        let entry = agent.entry_points.get(entry_point).ok_or_else(|| Refused::Unknown(entry_point.to_owned()))?;
        let execution = Execution::new(entry_point, &agent.hash, &entry.node, memory, Timestamp::now()).traced(trace);
        if let Some(shared) = self.store.shared() {
            return self.begin_shared(shared, execution, entry, key.as_ref()).await;
        }
        let reserved = self.queue().reserve(entry_point, entry.max_queued);
        if !reserved {
            // What was accepted before is answered with its execution however long the line is.
            let known = match key {
                Some(key) => self.store.known(entry_point, &key).await?,
                None => None,
            };
            return match known {
                Some(Accepted::Again(id)) => Ok(Begun { id, again: true }),
                Some(Accepted::Clash) => Err(Refused::Clash),
                Some(Accepted::New | Accepted::Full) | None => Err(Refused::Full(entry.max_queued)),
            };
        }
        let begun = match self.store.accept(execution.clone(), key).await {
            Ok(Accepted::New) => Ok(self.enqueue(execution, entry)),
            Ok(Accepted::Again(id)) => Ok(Begun { id, again: true }),
            Ok(Accepted::Clash) => Err(Refused::Clash),
            Ok(Accepted::Full) => Err(Refused::Full(entry.max_queued)),
            Err(error) => Err(Refused::Store(error)),
        };
        self.queue().unreserve(entry_point);
        begun
    }

    /// Takes in a timer's tick: an execution, unless one of this entry point has not ended yet.
    ///
    /// # Errors
    /// The store failed.
    pub async fn tick(&self, entry_point: &str, due: Timestamp) -> Result<(), Error> {
        let agent = self.agent();
        let Some(entry) = agent.entry_points.get(entry_point) else { return Ok(()) };
        let skips = matches!(&entry.trigger, Trigger::Timer(timer) if timer.overlap == Overlap::Skip);
        if let Some(shared) = self.store.shared() {
            return self.tick_shared(shared, entry_point, due, !skips).await;
        }
        let overlaps = skips && self.queue().active(entry_point) > 0;
        let execution = (!overlaps).then(|| {
            let memory = Map::from_iter([("scheduled_time".to_owned(), Value::String(due.to_string()))]);
            let span = trace::tick(entry_point, due);
            let execution = Execution::new(entry_point, &agent.hash, &entry.node, memory, Timestamp::now());
            span.record("hive.execution.id", &execution.id);
            execution.traced(TraceContext::of_span(&span))
        });
        let inserted = self.store.tick(entry_point.to_owned(), due, execution.clone()).await?;
        match execution {
            Some(execution) if inserted => drop(self.enqueue(execution, entry)),
            Some(_) | None => tracing::debug!(entry_point, %due, overlaps, "a tick was skipped"),
        }
        Ok(())
    }

    fn enqueue(&self, execution: Execution, entry: &EntryPoint) -> Begun {
        let id = execution.id.clone();
        self.queue().put(execution, entry.priority);
        self.changed.notify_one();
        Begun { id, again: false }
    }
}
