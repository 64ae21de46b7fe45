//! The threads of the store: one that writes, a few that read. They make futures of SQLite's blocking calls without
//! asking for a certain async runtime.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::{self, JoinHandle};

use rusqlite::Connection;
use tokio::sync::oneshot;

use crate::store::sqlite::schema::failed;
use crate::store::sqlite::write::EncodedCommit;
use crate::store::{CommitOutcome, StoreError};

/// Commits that share one transaction at most.
const COMMITS_TOGETHER_MAX: usize = 512;

type Read = Box<dyn FnOnce(&Connection) + Send>;
type WriteResult = Result<CommitOutcome, StoreError>;

struct Write {
    commit: EncodedCommit,
    answer: oneshot::Sender<WriteResult>,
}

/// The threads that read.
pub(super) struct Readers {
    /// There until the store is dropped.
    reads: Option<mpsc::Sender<Read>>,
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
        Ok(Self { reads: Some(sender), threads })
    }

    pub(super) async fn read<T: Send + 'static>(
        &self,
        query: impl FnOnce(&Connection) -> Result<T, rusqlite::Error> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (answer, answered) = oneshot::channel();
        let read: Read = Box::new(move |connection| {
            // If nobody waits any more, the answer is for nobody.
            drop(answer.send(query(connection).map_err(|error| failed(&error))));
        });
        self.reads.as_ref().ok_or_else(stopped)?.send(read).map_err(|_| stopped())?;
        answered.await.map_err(|_| stopped())?
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
    writes: Option<mpsc::Sender<Write>>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    pub(super) fn start(connection: Connection) -> Result<Self, StoreError> {
        let (sender, receiver) = mpsc::channel::<Write>();
        let thread = spawn("store-write", move || {
            while let Ok(first) = receiver.recv() {
                // Everything that has come in while the last transaction was made durable goes into this one.
                let waiting = receiver.try_iter().take(COMMITS_TOGETHER_MAX - 1);
                let together: Vec<Write> = std::iter::once(first).chain(waiting).collect();
                write_together(&connection, together);
            }
            if let Err((_, error)) = connection.close() {
                tracing::error!(%error, "failed to close the database");
            }
        })?;
        Ok(Self { writes: Some(sender), thread: Some(thread) })
    }

    pub(super) async fn write(&self, commit: EncodedCommit) -> WriteResult {
        let (answer, answered) = oneshot::channel();
        let write = Write { commit, answer };
        self.writes.as_ref().ok_or_else(stopped)?.send(write).map_err(|_| stopped())?;
        answered.await.map_err(|_| stopped())?
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        drop(self.writes.take());
        join(self.thread.take().into_iter());
    }
}

/// Writes commits in one transaction, and answers when it is durable.
fn write_together(connection: &Connection, writes: Vec<Write>) {
    let (commits, answers): (Vec<_>, Vec<_>) = writes.into_iter().map(|write| (write.commit, write.answer)).unzip();
    let results = transaction(connection, &commits).unwrap_or_else(|error| {
        if !connection.is_autocommit() {
            // If this fails too, the next transaction fails to begin and says so.
            drop(connection.execute_batch("ROLLBACK"));
        }
        commits.iter().map(|_| Err(failed(&error))).collect()
    });
    for (answer, result) in answers.into_iter().zip(results) {
        // Whoever gave up waiting finds out by the push memory.
        drop(answer.send(result));
    }
}

/// Fails if nothing is written at all.
fn transaction(connection: &Connection, commits: &[EncodedCommit]) -> Result<Vec<WriteResult>, rusqlite::Error> {
    let run = |sql| connection.prepare_cached(sql)?.execute([]).map(drop);
    run("BEGIN IMMEDIATE")?;
    let mut results = Vec::with_capacity(commits.len());
    for commit in commits {
        run("SAVEPOINT one")?;
        results.push(match commit.write(connection) {
            Ok(outcome) => Ok(outcome),
            // Some errors end the whole transaction; then there is no savepoint to go back to.
            Err(error) => match run("ROLLBACK TO one") {
                Ok(()) => Err(failed(&error)),
                Err(_) => return Err(error),
            },
        });
        run("RELEASE one")?;
    }
    run("COMMIT")?;
    Ok(results)
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
