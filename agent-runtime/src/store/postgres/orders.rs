//! What is asked in one replica of an execution that runs in another.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlx::Row as _;

use super::{Error, PATIENCE, Store};

/// How often an answer is looked for.
const LOOK: Duration = Duration::from_millis(50);
/// Orders that nobody waits for any more are thrown away after this, in seconds.
const FORGOTTEN: f64 = 3600.0;

/// What is asked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Asked {
    /// To end.
    Cancel,
    /// To take a person's answer.
    Answer {
        /// The branch that asked, if it is named.
        branch: Option<String>,
        /// The answer.
        value: Value,
    },
}

/// What the replica that runs it says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// It was done, and is on disk.
    Done,
    /// It was not done, and why.
    Refused(String),
    /// It does not run there any more: ask again.
    Gone,
}

impl Store {
    /// Asks whichever replica runs an execution, and waits for its reply: none when the execution does not run any
    /// more, and nothing was done.
    ///
    /// # Errors
    /// It is not known whether it was done.
    pub async fn ask(&self, execution: &str, asked: &Asked) -> Result<Reply, Error> {
        let text = serde_json::to_string(asked).map_err(|error| Error::Broken(error.to_string()))?;
        // Tried once, as a second row would be a second order.
        let put = || async {
            sqlx::query_scalar::<_, i64>("INSERT INTO orders (execution, order_) VALUES ($1, $2) RETURNING id")
                .bind(execution)
                .bind(&text)
                .fetch_one(&self.pool())
                .await
        };
        let order = self.until_done(Duration::ZERO, put).await?;
        self.notify_asked();
        loop {
            tokio::time::sleep(LOOK).await;
            if let Some(reply) = self.until_done(PATIENCE, || self.try_reply(order, execution)).await? {
                return serde_json::from_str(&reply).map_err(|error| Error::Broken(error.to_string()));
            }
        }
    }

    /// The reply to an order, which is withdrawn when nobody can obey it any more.
    async fn try_reply(&self, order: i64, execution: &str) -> Result<Option<String>, sqlx::Error> {
        let pool = self.pool();
        let row = sqlx::query(
            "SELECT taken, answer, EXISTS (SELECT FROM executions WHERE id = $2 AND ended IS NULL
                 AND claimed_by IS NOT NULL AND lease_until >= clock_timestamp())
             FROM orders WHERE id = $1",
        )
        .bind(order)
        .bind(execution)
        .fetch_optional(&pool)
        .await?;
        let gone = || serde_json::to_string(&Reply::Gone).ok();
        let Some(row) = row else { return Ok(gone()) };
        let (taken, answer, runs): (bool, Option<String>, bool) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        if answer.is_some() || runs {
            return Ok(answer);
        }
        if taken {
            // Whoever took it is about to reply, or was lost with its claim, and what it wrote is what counts.
            let age: f64 = sqlx::query_scalar(
                "SELECT extract(epoch FROM clock_timestamp() - created)::double precision FROM orders WHERE id = $1",
            )
            .bind(order)
            .fetch_one(&pool)
            .await?;
            return Ok(if age > self.shared.lease.as_secs_f64() * 2.0 { gone() } else { None });
        }
        let withdrawn =
            sqlx::query("DELETE FROM orders WHERE id = $1 AND NOT taken").bind(order).execute(&pool).await?;
        Ok(if withdrawn.rows_affected() > 0 { gone() } else { None })
    }

    /// Takes what is asked of executions that run here.
    ///
    /// # Errors
    /// The database is out of reach.
    pub async fn take_orders(&self) -> Result<Vec<(i64, String, Asked)>, Error> {
        let held = self.held();
        if held.is_empty() {
            return Ok(Vec::new());
        }
        let take = || async {
            let rows = sqlx::query(
                "UPDATE orders SET taken = true WHERE NOT taken AND execution = ANY ($1) RETURNING id, execution, order_",
            )
            .bind(&held)
            .fetch_all(&self.pool())
            .await?;
            rows.iter()
                .map(|row| Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?)))
                .collect::<Result<Vec<(i64, String, String)>, sqlx::Error>>()
        };
        let taken = self.until_done(Duration::ZERO, take).await?;
        let read = |(id, execution, text): (i64, String, String)| {
            serde_json::from_str(&text).ok().map(|asked| (id, execution, asked))
        };
        Ok(taken.into_iter().filter_map(read).collect())
    }

    /// Replies to an order.
    ///
    /// # Errors
    /// The database is out of reach.
    pub async fn reply(&self, order: i64, reply: &Reply) -> Result<(), Error> {
        let text = serde_json::to_string(reply).map_err(|error| Error::Broken(error.to_string()))?;
        let put = || async {
            sqlx::query("UPDATE orders SET answer = $2 WHERE id = $1")
                .bind(order)
                .bind(&text)
                .execute(&self.pool())
                .await
        };
        self.until_done(PATIENCE, put).await.map(drop)
    }

    pub(super) async fn forget_orders(&self) -> Result<(), Error> {
        let forget = || async {
            sqlx::query("DELETE FROM orders WHERE created < clock_timestamp() - make_interval(secs => $1)")
                .bind(FORGOTTEN)
                .execute(&self.pool())
                .await
        };
        self.until_done(Duration::ZERO, forget).await.map(drop)
    }
}
