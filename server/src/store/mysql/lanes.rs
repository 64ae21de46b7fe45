//! Who does what many ask for at once: a few tasks, each of which does all that waits for it together. A disk makes many
//! commits durable as fast as one, and a statement about many rows costs little more than one about a single row.

use std::collections::{BTreeSet, VecDeque};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::mem;

use sqlx::mysql::MySqlPool;
use tokio::sync::{mpsc, oneshot};

use crate::store::attempts::Attempts;
use crate::store::mysql::failure::Failure;
use crate::store::{DatasetAddress, StoreError};

/// What is done for one dataset, together with the same for others.
pub(super) trait Job: Sized + Send + Sync + 'static {
    /// What comes of it.
    type Done: Send + 'static;
    /// Jobs that are done together at most.
    const TOGETHER_MAX: usize;
    /// Their size together, unless one has more.
    const SIZE_MAX: usize;

    fn dataset(&self) -> &DatasetAddress;

    fn size(&self) -> usize;

    /// Does jobs for different datasets in one transaction, and says for each what came of it. If it fails, nothing is
    /// done.
    fn do_together(
        pool: &MySqlPool,
        jobs: &[Self],
    ) -> impl Future<Output = Result<Vec<Result<Self::Done, Failure>>, Failure>> + Send;
}

type Answer<J> = oneshot::Sender<Result<<J as Job>::Done, StoreError>>;

/// A job that waits, and whom to tell.
struct Waiting<J: Job> {
    job: J,
    answer: Answer<J>,
}

/// The tasks that work. They end when they are dropped, after what waits is done.
pub(super) struct Lanes<J: Job>(Vec<mpsc::UnboundedSender<Waiting<J>>>);

impl<J: Job> Lanes<J> {
    pub(super) fn start(pool: &MySqlPool, lanes: usize) -> Self {
        let lane = |_| {
            let (sender, waiting) = mpsc::unbounded_channel();
            tokio::spawn(run(pool.clone(), waiting));
            sender
        };
        Self((0..lanes).map(lane).collect())
    }

    /// Does a job together with others, in the lane of its dataset, so that no two transactions of this server wait for
    /// each other's locks.
    pub(super) async fn do_it(&self, job: J) -> Result<J::Done, StoreError> {
        let mut hasher = DefaultHasher::new();
        job.dataset().hash(&mut hasher);
        let lane = &self.0[(hasher.finish() % self.0.len() as u64) as usize];
        let (answer, answered) = oneshot::channel();
        lane.send(Waiting { job, answer }).map_err(|_| stopped())?;
        answered.await.map_err(|_| stopped())?
    }
}

fn stopped() -> StoreError {
    StoreError::Unavailable("the store has stopped".into())
}

async fn run<J: Job>(pool: MySqlPool, mut arriving: mpsc::UnboundedReceiver<Waiting<J>>) {
    let mut waiting = VecDeque::new();
    loop {
        if waiting.is_empty() {
            let Some(first) = arriving.recv().await else { return };
            waiting.push_back(first);
        }
        // Everything that has come in while the last ones were done goes with this one.
        while let Ok(next) = arriving.try_recv() {
            waiting.push_back(next);
        }
        let (jobs, answers): (Vec<_>, Vec<_>) =
            take(&mut waiting).into_iter().map(|Waiting { job, answer }| (job, answer)).unzip();
        let results = do_all(&pool, jobs).await;
        for (answer, result) in answers.into_iter().zip(results) {
            // Whoever gave up waiting asks again; of a commit the push memory tells.
            drop(answer.send(result));
        }
    }
}

/// Takes jobs for different datasets, the longest waiting first. A second one for the same dataset waits.
fn take<J: Job>(waiting: &mut VecDeque<Waiting<J>>) -> Vec<Waiting<J>> {
    let (mut taken, mut left) = (Vec::new(), VecDeque::new());
    let (mut datasets, mut size) = (BTreeSet::new(), 0);
    for one in mem::take(waiting) {
        let fits = taken.is_empty() || (taken.len() < J::TOGETHER_MAX && size + one.job.size() <= J::SIZE_MAX);
        if datasets.insert(one.job.dataset().clone()) && fits {
            size += one.job.size();
            taken.push(one);
        } else {
            left.push_back(one);
        }
    }
    *waiting = left;
    taken
}

/// Does all, and says for each what came of it. What fails for a reason of one is tried one by one.
async fn do_all<J: Job>(pool: &MySqlPool, jobs: Vec<J>) -> Vec<Result<J::Done, StoreError>> {
    let mut attempts = Attempts::default();
    loop {
        let failure = match J::do_together(pool, &jobs).await {
            Ok(results) => return results.into_iter().map(|result| result.map_err(StoreError::from)).collect(),
            Err(failure) => failure,
        };
        if failure.is_of_one() && jobs.len() > 1 {
            let mut results = Vec::new();
            for job in jobs {
                results.extend(Box::pin(do_all(pool, vec![job])).await);
            }
            return results;
        }
        if let Err(failure) = attempts.after(failure).await {
            return failed(failure.into(), jobs.len());
        }
    }
}

/// The same error for all that were done together.
fn failed<T>(error: StoreError, jobs: usize) -> Vec<Result<T, StoreError>> {
    let text = error.to_string();
    let again = |_| match &error {
        StoreError::ReadOnly => Err(StoreError::ReadOnly),
        StoreError::Moved => Err(StoreError::Moved),
        StoreError::Full(cause) => Err(StoreError::Full(cause.to_string().into())),
        StoreError::Unavailable(cause) => Err(StoreError::Unavailable(cause.to_string().into())),
        StoreError::Corrupt(_) => Err(StoreError::Corrupt(text.clone())),
    };
    (0..jobs).map(again).collect()
}
