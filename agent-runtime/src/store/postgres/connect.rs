//! Connections, and the tables that they find.

use std::str::FromStr as _;
use std::time::Duration;

use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{ConnectOptions as _, PgPool, SqlSafeStr as _};

use super::{Error, TRY};

/// Connections of one replica at most.
const CONNECTIONS: u32 = 10;
/// How long a connection is waited for.
const CONNECTED_WITHIN: Duration = Duration::from_secs(3);

/// Reads the address, and says what every session of ours needs.
pub(super) fn options(url: &str) -> Result<PgConnectOptions, Error> {
    if !["postgres://", "postgresql://"].iter().any(|scheme| url.starts_with(scheme)) {
        return Err(Error::Url("it begins with postgres://".to_owned()));
    }
    let options = PgConnectOptions::from_str(url).map_err(|error| Error::Url(error.to_string()))?;
    let options = options.application_name("agent-runtime").disable_statement_logging();
    Ok(options.options([
        // A commit that was answered is on disk, whatever the server's default is.
        ("synchronous_commit", "on"),
        ("statement_timeout", "8s"),
        ("lock_timeout", "5s"),
        // A replica that stalls in a transaction holds nobody up.
        ("idle_in_transaction_session_timeout", "5s"),
    ]))
}

pub(super) fn pool(options: PgConnectOptions) -> PgPool {
    let pool = PgPoolOptions::new().max_connections(CONNECTIONS).acquire_timeout(CONNECTED_WITHIN);
    // What is tried on a broken connection is tried again on another.
    pool.test_before_acquire(false).connect_lazy_with(options)
}

fn migrator() -> Migrator {
    let sql = include_str!("../../../migrations/0001_store.sql").into_sql_str();
    Migrator::with_migrations(vec![Migration::new(1, "store".into(), MigrationType::Simple, sql, false)])
}

/// Brings the tables up to date. Replicas that start together take turns.
pub(super) async fn migrate(pool: &PgPool) -> Result<(), Error> {
    let migrated = async {
        // A connection of its own, without the pool's patience, so that the reason is the server's own.
        let mut connection = pool.connect_options().connect().await?;
        migrator().run_direct(None, &mut connection, false).await
    };
    match tokio::time::timeout(TRY, migrated).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(MigrateError::VersionMissing(version) | MigrateError::VersionTooNew(version, _))) => Err(Error::Schema(
            format!("migration {version} in it is not known: run the version that made it, or a newer one"),
        )),
        Ok(Err(MigrateError::VersionMismatch(version))) => {
            Err(Error::Schema(format!("migration {version} in it is another: run the version that made it")))
        }
        Ok(Err(error)) => Err(Error::Unreachable(error.to_string())),
        Err(_) => Err(Error::Unreachable("it did not answer in time".to_owned())),
    }
}
