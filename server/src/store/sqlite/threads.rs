//! The threads of the store: one that writes, a few that read. They make futures of SQLite's blocking calls without
//! asking for a certain async runtime.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::{self, JoinHandle};

use rusqlite::Connection;
use tokio::sync::{Semaphore, oneshot};

use crate::store::StoreError;
use crate::store::sqlite::schema::{Failure, failed};

/// Writes that share one transaction at most.
const WRITES_TOGETHER_MAX: usize = 512;

type Read = Box<dyn FnOnce(&Connection) + Send>;

/// Something that waits to be written.
trait Waiting: Send {
    /// Writes it inside the transaction that is open.
    fn write(&mut self, connection: &Connection) -> Result<(), Failure>;

    /// It is not written after all.
    fn fail(&mut self, failure: &Failure);

    /// Says what became of it, when that is durable.
    fn answer(self: Box<Self>);
}

struct Write<T, W> {
    work: W,
    result: Result<T, StoreError>,
    answer: oneshot::Sender<Result<T, StoreError>>,
}

impl<T: Send, W: Fn(&Connection) -> Result<T, Failure> + Send> Waiting for Write<T, W> {
    fn write(&mut self, connection: &Connection) -> Result<(), Failure> {
        self.result = Ok((self.work)(connection)?);
        Ok(())
    }

    fn fail(&mut self, failure: &Failure) {
        self.result = Err(failed(failure));
    }

    fn answer(self: Box<Self>) {
        // Whoever gave up waiting for a commit finds out by the push memory.
        drop(self.answer.send(self.result));
    }
}

/// The threads that read.
pub(super) struct Readers {
    /// There until the store is dropped.
    reads: Option<mpsc::Sender<Read>>,
    /// One thread is left to who reads little.
    long: Arc<Semaphore>,
    threads: Vec<JoinHandle<()>>,
}

impl Readers {
    pub(super) fn start(connections: Vec<Connection>) -> Result<Self, StoreError> {
        let (sender, receiver) = mpsc::channel::<Read>();
        let receiver = Arc::new(Mutex::new(receiver));
        let mut threads = Vec::new();
        for connection in connections {
            let receiver = Arc::clone(&receiver);
            threads.push(spawn("store-read", move || {
                loop {
                    let next = receiver.lock().unwrap_or_else(PoisonError::into_inner).recv();
                    let Ok(read) = next else { return };
                    // Whoever waits for it learns by its answer's channel that nothing comes.
                    drop(catch_unwind(AssertUnwindSafe(|| read(&connection))));
                }
            })?);
        }
        let long = Arc::new(Semaphore::new(threads.len().saturating_sub(1).max(1)));
        Ok(Self { reads: Some(sender), long, threads })
    }

    pub(super) async fn read<T: Send + 'static>(
        &self,
        query: impl FnOnce(&Connection) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (answer, answered) = oneshot::channel();
        let read: Read = Box::new(move |connection| {
            // If nobody waits any more, the answer is for nobody.
            drop(answer.send(query(connection).map_err(|error| failed(&error))));
        });
        self.reads.as_ref().ok_or_else(stopped)?.send(read).map_err(|_| stopped())?;
        answered.await.map_err(|_| stopped())?
    }

    /// A read of many records. However many wait for theirs, those who read little do not wait behind them.
    pub(super) async fn read_many<T: Send + 'static>(
        &self,
        query: impl FnOnce(&Connection) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, StoreError> {
        let turn = Arc::clone(&self.long).acquire_owned().await.map_err(|_| stopped())?;
        let query = move |connection: &Connection| {
            // Kept to the end of the read, also if nobody waits for it any more.
            let _turn = turn;
            query(connection)
        };
        self.read(query).await
    }
}

impl Drop for Readers {
    fn drop(&mut self) {
        drop(self.reads.take());
        join(self.threads.drain(..));
    }
}

/// The thread that writes.
pub(super) struct Writer {
    /// There until the store is dropped.
    writes: Option<mpsc::Sender<Box<dyn Waiting>>>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    pub(super) fn start(connection: Connection) -> Result<Self, StoreError> {
        let (sender, receiver) = mpsc::channel::<Box<dyn Waiting>>();
        let thread = spawn("store-write", move || {
            while let Ok(first) = receiver.recv() {
                // Everything that has come in while the last transaction was made durable goes into this one.
                let waiting = receiver.try_iter().take(WRITES_TOGETHER_MAX - 1);
                write_together(&connection, std::iter::once(first).chain(waiting).collect());
            }
            if let Err((_, error)) = connection.close() {
                tracing::error!(%error, "failed to close the database");
            }
        })?;
        Ok(Self { writes: Some(sender), thread: Some(thread) })
    }

    /// Does the work in a transaction with others', and gives its result when it is durable. If the work fails, nothing
    /// of it is written.
    pub(super) async fn write<T: Send + 'static>(
        &self,
        work: impl Fn(&Connection) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (answer, answered) = oneshot::channel();
        let write = Write { work, result: Err(stopped()), answer };
        self.writes.as_ref().ok_or_else(stopped)?.send(Box::new(write)).map_err(|_| stopped())?;
        answered.await.map_err(|_| stopped())?
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        drop(self.writes.take());
        join(self.thread.take().into_iter());
    }
}

/// Writes all in one transaction, and answers when it is durable.
fn write_together(connection: &Connection, mut writes: Vec<Box<dyn Waiting>>) {
    if let Err(failure) = transaction(connection, &mut writes) {
        if !connection.is_autocommit() {
            // If this fails too, the next transaction fails to begin and says so.
            drop(connection.execute_batch("ROLLBACK"));
        }
        writes.iter_mut().for_each(|write| write.fail(&failure));
    }
    writes.into_iter().for_each(|write| write.answer());
}

/// Fails if nothing is written at all.
fn transaction(connection: &Connection, writes: &mut [Box<dyn Waiting>]) -> Result<(), Failure> {
    let run = |sql| connection.prepare_cached(sql)?.execute([]).map(drop);
    run("BEGIN IMMEDIATE")?;
    for write in writes {
        run("SAVEPOINT one")?;
        if let Err(failure) = write.write(connection) {
            // Some errors end the whole transaction; then there is no savepoint to go back to.
            if run("ROLLBACK TO one").is_err() {
                return Err(failure);
            }
            write.fail(&failure);
        }
        run("RELEASE one")?;
    }
    Ok(run("COMMIT")?)
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, StoreError> {
    let thread = thread::Builder::new().name(name.to_owned()).spawn(work);
    thread.map_err(|error| StoreError::Unavailable(Box::new(error)))
}

fn join(threads: impl Iterator<Item = JoinHandle<()>>) {
    for thread in threads {
        if thread.join().is_err() {
            tracing::error!("a thread of the store panicked");
        }
    }
}

fn stopped() -> StoreError {
    StoreError::Unavailable("the store has stopped".into())
}
