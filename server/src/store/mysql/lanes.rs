//! Who writes commits: a few tasks, each of which commits all that waits for it in one transaction, as a disk makes
//! many durable at once as fast as one.

use std::collections::{BTreeSet, VecDeque};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::mem;

use sqlx::Executor as _;
use sqlx::mysql::MySqlPool;
use tokio::sync::{mpsc, oneshot};

use crate::store::attempts::Attempts;
use crate::store::mysql::failure::Failure;
use crate::store::mysql::transaction::end;
use crate::store::mysql::write::{EncodedCommit, write_together};
use crate::store::{CommitOutcome, StoreError};

/// Commits that share a transaction at most.
const COMMITS_TOGETHER_MAX: usize = 256;
/// Bytes that share a transaction, unless one commit has more.
const BYTES_TOGETHER_MAX: usize = 8 << 20;

type Answer = oneshot::Sender<Result<CommitOutcome, StoreError>>;

/// A commit that waits, and whom to tell.
struct Waiting {
    commit: EncodedCommit,
    answer: Answer,
}

/// The tasks that write. They end when they are dropped, after what waits is written.
pub(super) struct Lanes(Vec<mpsc::UnboundedSender<Waiting>>);

impl Lanes {
    pub(super) fn start(pool: &MySqlPool, lanes: usize) -> Self {
        let lane = |_| {
            let (sender, waiting) = mpsc::unbounded_channel();
            tokio::spawn(run(pool.clone(), waiting));
            sender
        };
        Self((0..lanes).map(lane).collect())
    }

    /// Commits together with others, in the lane of the dataset, so that no two transactions of this server wait for each
    /// other's locks.
    pub(super) async fn commit(&self, commit: EncodedCommit) -> Result<CommitOutcome, StoreError> {
        let mut hasher = DefaultHasher::new();
        commit.dataset.hash(&mut hasher);
        let lane = &self.0[(hasher.finish() % self.0.len() as u64) as usize];
        let (answer, answered) = oneshot::channel();
        lane.send(Waiting { commit, answer }).map_err(|_| stopped())?;
        answered.await.map_err(|_| stopped())?
    }
}

fn stopped() -> StoreError {
    StoreError::Unavailable("the store has stopped".into())
}

async fn run(pool: MySqlPool, mut arriving: mpsc::UnboundedReceiver<Waiting>) {
    let mut waiting = VecDeque::new();
    loop {
        if waiting.is_empty() {
            let Some(first) = arriving.recv().await else { return };
            waiting.push_back(first);
        }
        // Everything that has come in while the last transaction was made durable goes into this one.
        while let Ok(next) = arriving.try_recv() {
            waiting.push_back(next);
        }
        let (commits, answers): (Vec<_>, Vec<_>) =
            take(&mut waiting).into_iter().map(|Waiting { commit, answer }| (commit, answer)).unzip();
        let results = commit_all(&pool, commits).await;
        for (answer, result) in answers.into_iter().zip(results) {
            // Whoever gave up waiting finds out by the push memory.
            drop(answer.send(result));
        }
    }
}

/// Takes commits to different datasets, the longest waiting first. A second one to the same dataset waits.
fn take(waiting: &mut VecDeque<Waiting>) -> Vec<Waiting> {
    let (mut taken, mut left) = (Vec::new(), VecDeque::new());
    let (mut datasets, mut bytes) = (BTreeSet::new(), 0);
    for one in mem::take(waiting) {
        let fits = taken.is_empty()
            || (taken.len() < COMMITS_TOGETHER_MAX && bytes + one.commit.bytes() <= BYTES_TOGETHER_MAX);
        if fits && datasets.insert(one.commit.dataset.clone()) {
            bytes += one.commit.bytes();
            taken.push(one);
        } else {
            datasets.insert(one.commit.dataset.clone());
            left.push_back(one);
        }
    }
    *waiting = left;
    taken
}

/// Commits all, and says for each what became of it. What fails for a reason of one is tried one by one.
async fn commit_all(pool: &MySqlPool, commits: Vec<EncodedCommit>) -> Vec<Result<CommitOutcome, StoreError>> {
    let mut attempts = Attempts::default();
    loop {
        let failure = match transaction(pool, &commits).await {
            Ok(outcomes) => return outcomes.into_iter().map(|outcome| outcome.map_err(StoreError::from)).collect(),
            Err(failure) => failure,
        };
        if failure.is_of_one() && commits.len() > 1 {
            let mut results = Vec::new();
            for commit in commits {
                results.extend(Box::pin(commit_all(pool, vec![commit])).await);
            }
            return results;
        }
        if let Err(failure) = attempts.after(failure).await {
            return failed(failure.into(), commits.len());
        }
    }
}

async fn transaction(
    pool: &MySqlPool,
    commits: &[EncodedCommit],
) -> Result<Vec<Result<CommitOutcome, Failure>>, Failure> {
    let mut connection = pool.acquire().await?;
    connection.execute("START TRANSACTION").await?;
    let outcomes = write_together(&mut connection, commits).await;
    end(connection, outcomes).await
}

/// The same error for all that shared a transaction.
fn failed(error: StoreError, commits: usize) -> Vec<Result<CommitOutcome, StoreError>> {
    let text = error.to_string();
    let again = |_| match &error {
        StoreError::ReadOnly => Err(StoreError::ReadOnly),
        StoreError::Moved => Err(StoreError::Moved),
        StoreError::Full(cause) => Err(StoreError::Full(cause.to_string().into())),
        StoreError::Unavailable(cause) => Err(StoreError::Unavailable(cause.to_string().into())),
        StoreError::Corrupt(_) => Err(StoreError::Corrupt(text.clone())),
    };
    (0..commits).map(again).collect()
}
