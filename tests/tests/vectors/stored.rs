//! Replicas in device files, for replaying transcripts over SQLite.

use std::collections::BTreeMap;
use std::fs;

use sync_core::client::exchange::Absorbed;
use sync_core::conflict::{Question, Resolution};
use sync_core::device::{Address, DeviceDb, DeviceError, Which};
use sync_core::merge::stack::Context;
use sync_core::model::{DatasetName, DeviceId, Limits, Owner, Random, RecordKey, Timestamp, Value};
use sync_core::policy::Policies;
use sync_core::protocol::{DatasetRequest, DatasetResponse};
use sync_core::vectors::{Host, Refused, Seen};
use tests::harness::Folder;

/// Replicas in device files of a folder.
pub(crate) struct StoredHost {
    folder: Folder,
    files: BTreeMap<String, DeviceDb>,
    places: BTreeMap<String, Place>,
}

#[derive(Clone)]
struct Place {
    file: String,
    address: Address,
    limits: Limits,
}

const WORKS: &str = "the device's file works";
const ALL: usize = 1_000_000;

impl StoredHost {
    pub(crate) fn new() -> Self {
        Self { folder: Folder::new(), files: BTreeMap::new(), places: BTreeMap::new() }
    }

    fn place(&mut self, on: &str) -> (&mut DeviceDb, Place) {
        let place = self.places.get(on).expect("the transcript names its replicas").clone();
        (self.files.get_mut(&place.file).expect("it was opened"), place)
    }

    fn open_file(&mut self, file: &str, device: DeviceId) {
        let db = DeviceDb::open(self.folder.path(file), &mut FirstId(device)).expect(WORKS);
        self.files.insert(file.to_owned(), db);
    }

    fn parked_id(&mut self, on: &str, at: usize) -> u64 {
        let (db, Place { address, .. }) = self.place(on);
        db.parked(&address, None, ALL).expect(WORKS).get(at).map_or(u64::MAX >> 1, |(id, _)| *id)
    }
}

fn refused<T>(result: Result<T, DeviceError>) -> Refused {
    match result {
        Ok(_) => Ok(()),
        Err(DeviceError::Write(refused)) => Err(refused),
        Err(error) => panic!("{WORKS}: {error}"),
    }
}

impl Host for StoredHost {
    fn open(&mut self, name: &str, device: DeviceId, dataset: &DatasetName, limits: &Limits) {
        let file = format!("{device}.db");
        if !self.files.contains_key(&file) {
            self.open_file(&file, device);
        }
        let owner = Owner::parse(format!("vectors:{name}")).expect("names are letters");
        let address = Address { owner, dataset: dataset.clone() };
        self.places.insert(name.to_owned(), Place { file, address, limits: limits.clone() });
        self.place(name).0.set_limits(limits, None).expect(WORKS);
    }

    fn set_policies(&mut self, on: &str, policies: Policies) {
        let (db, Place { address, .. }) = self.place(on);
        db.set_policies(&address, policies).expect(WORKS);
    }

    fn write(&mut self, on: &str, writes: Vec<(RecordKey, Option<Value>)>, context: &mut Context<'_>) -> Refused {
        let (db, Place { address, .. }) = self.place(on);
        refused(db.write(&address, writes, context))
    }

    fn resolve(&mut self, on: &str, question: &Question, with: Resolution, context: &mut Context<'_>) -> Refused {
        let (db, Place { address, .. }) = self.place(on);
        refused(db.resolve(&address, question, with, context))
    }

    fn retry(&mut self, on: &str, at: usize, context: &mut Context<'_>) -> Refused {
        let id = self.parked_id(on, at);
        let (db, Place { address, .. }) = self.place(on);
        refused(db.retry(&address, Which::One(id), context))
    }

    fn discard(&mut self, on: &str, at: usize) {
        let id = self.parked_id(on, at);
        let (db, Place { address, .. }) = self.place(on);
        db.discard(&address, Which::One(id)).expect(WORKS);
    }

    fn restore(&mut self, on: &str, at: usize, context: &mut Context<'_>) -> Refused {
        let (db, Place { address, .. }) = self.place(on);
        let log = db.conflicts(&address, None, ALL).expect(WORKS);
        refused(db.restore(&address, log.get(at).map_or(u64::MAX >> 1, |(id, _)| *id), context))
    }

    fn delete(&mut self, on: &str) {
        let (db, Place { address, .. }) = self.place(on);
        db.delete_dataset(&address).expect(WORKS);
    }

    fn claim(&mut self, on: &str, guest: &str, context: &mut Context<'_>) {
        let guest = self.places.remove(guest).expect("the transcript names its replicas");
        let (db, Place { address, .. }) = self.place(on);
        db.claim(&guest.address.owner, &address.owner, context).expect(WORKS);
    }

    fn copy(&mut self, from: &str, to: &str) {
        let (db, place) = self.place(from);
        let device = db.device_id().expect(WORKS);
        // Closing the file brings all of it together.
        drop(self.files.remove(&place.file));
        let file = format!("{to}.db");
        fs::copy(self.folder.path(&place.file), self.folder.path(&file)).expect("a file can be copied");
        self.open_file(&place.file, device);
        self.open_file(&file, device);
        self.places.insert(to.to_owned(), Place { file, ..place });
    }

    fn request(&mut self, on: &str, first: bool) -> Option<DatasetRequest> {
        let (db, Place { address, limits, .. }) = self.place(on);
        db.prepare(&address, &limits, first).expect(WORKS).request
    }

    fn absorb(
        &mut self,
        on: &str,
        request: &DatasetRequest,
        response: Option<DatasetResponse>,
        server_time: Timestamp,
        context: &mut Context<'_>,
    ) -> Absorbed {
        let (db, Place { address, .. }) = self.place(on);
        db.absorb(&address, request, response, server_time, context).expect(WORKS).1
    }

    fn see(&mut self, on: &str) -> Seen {
        let (db, Place { address, .. }) = self.place(on);
        let datasets = db.datasets(&address.owner).expect(WORKS);
        let pending = datasets.iter().find(|status| status.name == address.dataset);
        Seen {
            visible: db.list(&address, "", None, ALL).expect(WORKS).into_iter().collect(),
            log: db.conflicts(&address, None, ALL).expect(WORKS).into_iter().map(|(_, entry)| entry).collect(),
            parked: db.parked(&address, None, ALL).expect(WORKS).into_iter().map(|(_, unit)| unit).collect(),
            questions: db.questions(&address).expect(WORKS),
            pending: pending.map_or(0, |status| usize::try_from(status.pending_groups).expect("few groups")),
            device: db.device_id().expect(WORKS),
        }
    }
}

/// What a new device draws first is its id.
struct FirstId(DeviceId);

impl Random for FirstId {
    fn fill(&mut self, bytes: &mut [u8]) {
        for (at, byte) in bytes.iter_mut().enumerate() {
            *byte = self.0.as_bytes()[at % 16];
        }
    }
}
