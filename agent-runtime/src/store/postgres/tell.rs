//! Telling other replicas, and hearing from them, over LISTEN and NOTIFY. It only makes them look sooner: what is
//! lost on the way is found by looking every second or few.

use std::collections::BTreeSet;
use std::ops::Range;
use std::time::Duration;

use sqlx::postgres::PgListener;
use tokio::sync::mpsc;

use super::Store;
use super::write::is_state;
use crate::store::Entry;

/// What waits to be told; more is not told.
pub(super) const AHEAD: usize = 4096;
/// What was heard lately, for those who follow.
pub(super) const KEPT: usize = 1024;
/// Told in one statement.
const GROUP: usize = 256;
const CHANNEL: &str = "agent_runtime";
/// Before a connection that listened is made again.
const AGAIN: Duration = Duration::from_secs(1);

/// What is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Told {
    Work,
    Asked,
    Entries { execution: String, last: u64, is_state: bool },
}

/// What was heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// An execution's journal has grown.
    Entries {
        /// The execution.
        execution: String,
        /// The number of its last entry.
        last: u64,
        /// Its state has changed.
        is_state: bool,
    },
    /// Something may not have been heard: who waits for anything looks.
    Missed,
}

impl Told {
    fn payload(&self) -> String {
        match self {
            Self::Work => "work".to_owned(),
            Self::Asked => "asked".to_owned(),
            Self::Entries { execution, last, is_state } => format!("{execution} {last} {}", u8::from(*is_state)),
        }
    }
}

impl Store {
    /// Tells every replica that there may be something to claim.
    pub fn notify_work(&self) {
        self.shared.work.notify_one();
        self.say(Told::Work);
    }

    pub(super) fn notify_asked(&self) {
        self.say(Told::Asked);
    }

    pub(super) fn notify_entries(&self, execution: &str, seqs: Range<u64>, entries: &[Entry]) {
        if !entries.is_empty() {
            let (execution, is_state) = (execution.to_owned(), entries.iter().any(is_state));
            self.say(Told::Entries { execution, last: seqs.end.saturating_sub(1), is_state });
        }
    }

    fn say(&self, told: Told) {
        // Who is not told looks by itself.
        let _ = self.shared.told.try_send(told);
    }

    /// Tells what happens from now on in every replica.
    #[must_use]
    pub fn hear(&self) -> tokio::sync::broadcast::Receiver<Heard> {
        self.shared.heard.subscribe()
    }

    fn heard(&self, payload: &str) {
        let mut words = payload.split(' ');
        match (words.next(), words.next().and_then(|last| last.parse().ok()), words.next()) {
            (Some("work"), None, _) => self.shared.work.notify_one(),
            (Some("asked"), None, _) => self.shared.asked.notify_one(),
            (Some(execution), Some(last), Some(is_state)) => {
                let heard = Heard::Entries { execution: execution.to_owned(), last, is_state: is_state == "1" };
                // Nobody may follow.
                let _ = self.shared.heard.send(heard);
            }
            _ => tracing::debug!(payload, "something else was told in this database"),
        }
    }
}

/// Tells in groups, in transactions of their own that write nothing: a notification inside a commit would make
/// commits wait for one another.
pub(super) async fn tell(store: Store, mut told: mpsc::Receiver<Told>) {
    let mut group = Vec::new();
    while told.recv_many(&mut group, GROUP).await > 0 {
        let payloads: BTreeSet<String> = group.drain(..).map(|told| told.payload()).collect();
        let payloads: Vec<String> = payloads.into_iter().collect();
        let tells = async {
            sqlx::query("SELECT pg_notify($1, payload) FROM unnest($2::text[]) AS payload")
                .bind(CHANNEL)
                .bind(payloads)
                .execute(&store.pool())
                .await
        };
        if let Err(error) = store.once(tells).await {
            tracing::debug!(%error, "other replicas were not told");
        }
    }
}

/// Hears what is told, over every loss of the connection.
pub(super) async fn listen(store: Store) {
    let mut pools = store.shared.pool.subscribe();
    loop {
        let pool = pools.borrow_and_update().clone();
        let listening = async {
            let mut listener = PgListener::connect_with(&pool).await?;
            listener.listen(CHANNEL).await?;
            // What was told before is found by looking.
            let _ = store.shared.heard.send(Heard::Missed);
            while let Some(told) = listener.try_recv().await? {
                store.heard(told.payload());
            }
            Ok::<(), sqlx::Error>(())
        };
        tokio::select! {
            outcome = listening => {
                if let Err(error) = outcome {
                    tracing::debug!(%error, "what other replicas tell is not heard");
                }
                tokio::time::sleep(AGAIN).await;
            }
            // Its connection may hang.
            _ = pools.changed() => {}
        }
    }
}
