//! Lets hyper put its tasks on the worker's own thread.

use hyper::rt::Executor;

/// Spawns on the runtime of the current worker.
#[derive(Clone, Copy, Debug, Default)]
pub struct LocalExecutor;

impl<F: Future<Output = ()> + 'static> Executor<F> for LocalExecutor {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}
