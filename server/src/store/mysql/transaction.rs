//! Where transactions begin and end.

use sqlx::mysql::MySqlPool;
use sqlx::pool::PoolConnection;
use sqlx::{Executor as _, MySql};

use crate::store::mysql::failure::Failure;

/// A connection on which statements read at one moment.
pub(super) async fn begin_reading(readers: &MySqlPool) -> Result<PoolConnection<MySql>, Failure> {
    let mut connection = readers.acquire().await?;
    connection.execute("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY").await?;
    Ok(connection)
}

/// Ends the moment. A connection on which it does not end is not used again.
pub(super) async fn end_reading<T>(
    mut connection: PoolConnection<MySql>,
    result: Result<T, Failure>,
) -> Result<T, Failure> {
    if result.is_err() || connection.execute("COMMIT").await.is_err() {
        // It may be in any state; closing it may fail, and it is gone all the same.
        drop(connection.close().await);
    }
    result
}

/// Ends a transaction: commits it, or takes it back if something failed. A connection on which that fails is not used
/// again.
pub(super) async fn end<T>(mut connection: PoolConnection<MySql>, result: Result<T, Failure>) -> Result<T, Failure> {
    match result {
        Ok(done) => match connection.execute("COMMIT").await {
            Ok(_) => Ok(done),
            Err(error) => {
                drop(connection.close().await);
                Err(Failure::Ending(error))
            }
        },
        Err(failure) => {
            if connection.execute("ROLLBACK").await.is_err() {
                drop(connection.close().await);
            }
            Err(failure)
        }
    }
}
