//! The store in DynamoDB: the suite, on an emulator, over HTTP.

mod conformance {
    use std::sync::Arc;

    use tests::harness::DynamoDb;

    syncline_server::store_conformance!({
        let emulator = DynamoDb::start();
        (Arc::new(emulator.store().await), emulator)
    });
}
