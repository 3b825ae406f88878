//! What the database's errors mean.

use super::Error;

/// Whether another try may succeed: the connection broke, or the server is busy, restarting or full.
pub(super) fn passes(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Database(error) => {
            let code = error.code().unwrap_or_default();
            // Connections, rollbacks, resources, intervention by an operator, and system errors.
            let classes = ["08", "40", "53", "57", "58"];
            classes.iter().any(|class| code.starts_with(class)) || ["55P03", "25P03"].contains(&code.as_ref())
        }
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed => true,
        _ => false,
    }
}

/// The same for the rest of the runtime.
pub(super) fn of(error: &sqlx::Error) -> Error {
    if let sqlx::Error::Database(database) = error
        && database.code().as_deref() == Some("53100")
    {
        return Error::Full;
    }
    match error {
        // What the pool says after it has tried to connect for a while.
        sqlx::Error::PoolTimedOut => Error::Unreachable("it did not answer in time".to_owned()),
        error => Error::Unreachable(error.to_string()),
    }
}
