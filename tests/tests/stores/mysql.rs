//! MySQL or MariaDB.

use std::sync::Arc;

use syncline_server::store::Store;
use syncline_server::store::mysql::MysqlStore;
use tests::harness::MariaDb;

syncline_server::store_conformance!((open(&MariaDb::shared().database()).await, ()));

async fn open(url: &str) -> Arc<dyn Store> {
    MysqlStore::migrate(url).await.unwrap();
    Arc::new(MysqlStore::open(url).await.unwrap())
}
