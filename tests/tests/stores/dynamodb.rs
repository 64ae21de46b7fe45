//! The store in DynamoDB, on an emulator, over HTTP.

mod costs;
mod crashes;
mod draft;
mod faults;
mod housekeeping;
mod layout;

use std::sync::Arc;

use syncline_server::metrics::StoreUnits;
use syncline_server::store::Store;
use syncline_server::store::conformance::{
    a_copy_takes_the_place_of_its_source, increments_at_several_servers_count_once,
};
use syncline_server::store::memory::MemoryStore;
use tests::harness::DynamoDb;

syncline_server::store_conformance!({
    let emulator = DynamoDb::start();
    (Arc::new(emulator.store().await), emulator)
});

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_servers_write_to_one_table() {
    let emulator = DynamoDb::start();
    let first: Arc<dyn Store> = Arc::new(emulator.store().await);
    let second: Arc<dyn Store> = Arc::new(DynamoDb::store_at(&emulator.url(), StoreUnits::default()).await);
    assert_eq!(increments_at_several_servers_count_once(&[first, second], 10).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_is_copied_here_and_on_to_another_one() {
    let emulator = DynamoDb::start();
    let store: Arc<dyn Store> = Arc::new(emulator.store().await);
    a_copy_takes_the_place_of_its_source(Arc::new(MemoryStore::new()), store).await;
    let emulator = DynamoDb::start();
    let store: Arc<dyn Store> = Arc::new(emulator.store().await);
    a_copy_takes_the_place_of_its_source(store, Arc::new(MemoryStore::new())).await;
}

#[test]
fn simulations_over_it_go_as_over_the_memory_store() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let new = || {
        let emulator = DynamoDb::start();
        (Arc::new(runtime.block_on(emulator.store())) as Arc<dyn Store>, emulator)
    };
    crate::simulations::go_as_over_the_memory_store(&runtime, 2, new);
}
