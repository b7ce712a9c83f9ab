//! The life of a worker: what the warden reports, what others ask for, and the end.

use super::link::Branch;
use super::{Cause, Command, End, PANIC, Phase, Sink, Worker};
use crate::control::{Exit, FromWarden, ORPHAN_GRACE};
use crate::process_tree;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// How long a program may live on after it has closed its end of the pipe: time for an orderly exit, not more.
const EXIT_TIME: Duration = Duration::from_secs(1);

/// How long a warden may take for its last words once the grace of its tree is over. Afterwards it is killed, and the tree is
/// ended from here: somebody has stopped the warden (SIGSTOP), or it hangs.
const WARDEN_TIME: Duration = Duration::from_secs(5);

/// How long those who take the output of a tree may keep the news of its end waiting.
const LAST_WORDS_TIME: Duration = Duration::from_secs(5);

/// How long the processes of a tree without a warden are searched for: one that the kernel does not let die yet (a disk that
/// does not answer) must not hold up the news for ever.
const LOST_TIME: Duration = Duration::from_secs(5);

/// A search may miss a process that forks and exits while it looks; several in a row hardly do.
const EMPTY_SEARCHES: usize = 3;

/// The pause between two such searches.
const SEARCH_INTERVAL: Duration = Duration::from_millis(10);

/// The tasks that write to the program and read from it.
pub(super) struct Tasks {
    pub(super) writer: Option<JoinHandle<()>>,
    pub(super) frames: JoinHandle<()>,
    pub(super) prints: Option<JoinHandle<()>>,
    pub(super) stderr: JoinHandle<Vec<u8>>,
    pub(super) stdout: Option<JoinHandle<Vec<u8>>>,
}

/// What is known so far about the end.
struct Life {
    branch: Branch,
    /// `None` once it has ended.
    writer: Option<JoinHandle<()>>,
    cause: Option<Cause>,
    exit: Option<Exit>,
    /// When a program that closed its pipe is stopped.
    deadline: Option<Instant>,
    /// When the warden is killed, because it should have ended the tree by then.
    patience: Option<Instant>,
    /// How far the last frame came, when the pipe was closed inside of one.
    cut: Option<String>,
}

/// Runs until the tree is gone, then notifies the sink.
pub(super) async fn supervise<B, S>(
    worker: Arc<Worker<B, S>>,
    branch: Branch,
    mut orders: mpsc::UnboundedReceiver<Command>,
    phase: watch::Sender<Phase>,
    tasks: Tasks,
) where
    B: AsRef<[u8]> + Send + 'static,
    S: Sink,
{
    let mut life = Life {
        branch,
        writer: tasks.writer,
        cause: None,
        exit: None,
        deadline: None,
        patience: None,
        cut: None,
    };
    loop {
        let (deadline, patience) = (life.deadline, life.patience);
        tokio::select! {
            report = life.branch.report() => match report {
                Some(FromWarden::Started { pid, .. }) => {
                    worker.pid.store(pid, Ordering::Release);
                    worker.sink.started(pid);
                    phase.send_replace(Phase::Running);
                }
                Some(FromWarden::Failed { reason, .. }) => {
                    life.cause.get_or_insert(Cause::NotStarted(reason));
                    break;
                }
                Some(FromWarden::Exited { exit, .. }) => {
                    life.exit = Some(exit);
                    life.cause.get_or_insert(Cause::Exited);
                    life.close(&worker).await;
                    if life.patience.is_none() {
                        life.hurry(ORPHAN_GRACE);
                    }
                }
                Some(FromWarden::Gone { .. }) => break,
                None => {
                    // Not one that has been reaped: its number may be another's.
                    let group = worker.pid().filter(|_| life.exit.is_none());
                    let mark = life.branch.mark();
                    let _ = tokio::task::spawn_blocking(move || end_lost(group, &mark)).await;
                    life.cause.get_or_insert(Cause::WardenLost);
                    break;
                }
            },
            // The worker holds a sender, so orders never end.
            Some(order) = orders.recv() => life.obey(&worker, order).await,
            () = until(patience), if patience.is_some() => {
                life.patience = None;
                // Its end is reported to all of its trees.
                life.branch.kill_warden();
            }
            () = until(deadline), if deadline.is_some() => {
                life.deadline = None;
                let reason = life.cut.take().unwrap_or_else(|| "Python closed its end of the pipe".into());
                life.obey(&worker, Command::Broken(reason)).await;
            }
        }
    }
    life.close(&worker).await;
    // Nobody writes any more: what the pipes hold is all there will be.
    phase.send_replace(Phase::Gone);
    let last_words = Instant::now() + LAST_WORDS_TIME;
    finish(Some(tasks.frames), last_words).await;
    finish(tasks.prints, last_words).await;
    let stderr = finish(Some(tasks.stderr), last_words).await.unwrap_or_default();
    finish(tasks.stdout, last_words).await;
    while let Ok(order) = orders.try_recv() {
        life.note(order);
    }
    if let Some(shared) = &worker.shared {
        shared.end();
    }
    worker.sink.ended(End { cause: life.cause(), exit: life.exit, stderr });
}

/// The end of a worker whose life task has panicked. Its branch is dropped by then, which ends the tree.
pub(super) async fn bury<B, S>(worker: Arc<Worker<B, S>>, life: JoinHandle<()>)
where
    B: AsRef<[u8]> + Send + 'static,
    S: Sink,
{
    if life.await.is_err_and(|error| error.is_panic()) {
        worker.close();
        worker.sink.ended(End { cause: Cause::Broken(PANIC.into()), exit: None, stderr: Vec::new() });
    }
}

impl Life {
    /// Takes notice of what a task has found in the pipes.
    fn note(&mut self, order: Command) {
        match order {
            // Also when the program has exited by now: it did so after that.
            Command::Broken(reason) if matches!(self.cause, None | Some(Cause::Exited)) => {
                self.cause = Some(Cause::Broken(reason));
            }
            Command::EndOfFrames(cut) => self.cut = cut,
            _ => (),
        }
    }

    /// Why it has all ended. A program that ends in good order leaves no frame half written; one that fails may.
    fn cause(&mut self) -> Cause {
        match self.cause.take() {
            None | Some(Cause::Exited) if self.exit == Some(Exit::Status(0)) => {
                self.cut.take().map_or(Cause::Exited, Cause::Broken)
            }
            cause => cause.unwrap_or(Cause::Exited),
        }
    }

    async fn obey<B, S>(&mut self, worker: &Worker<B, S>, order: Command)
    where
        B: AsRef<[u8]> + Send + 'static,
        S: Sink,
    {
        match order {
            Command::Stop(grace) => {
                self.cause.get_or_insert(Cause::Stopped);
                if grace.is_zero() {
                    // It is not to begin to end by itself, which an end of file tells it to do.
                    self.branch.stop(grace);
                }
                self.close(worker).await;
                self.stop(grace);
            }
            Command::Interrupt => self.branch.interrupt(),
            Command::Broken(_) => {
                self.note(order);
                self.close(worker).await;
                self.stop(ORPHAN_GRACE);
            }
            Command::EndOfFrames(_) => {
                // Most likely the program is exiting, and the warden is about to say how.
                self.note(order);
                self.close(worker).await;
                self.deadline = Some(Instant::now() + EXIT_TIME);
            }
        }
    }

    /// Closes the pipe towards Python. On return Python can read end of file, which tells a SIGTERM that comes after it
    /// from one that a machine sends to every process at its shutdown.
    async fn close<B, S>(&mut self, worker: &Worker<B, S>)
    where
        B: AsRef<[u8]> + Send + 'static,
        S: Sink,
    {
        worker.close();
        if let Some(writer) = self.writer.take() {
            let _ = writer.await;
        }
    }

    fn stop(&mut self, grace: Duration) {
        self.branch.stop(grace);
        self.hurry(grace);
    }

    /// From now on the tree has so much grace, and the warden not much more time.
    fn hurry(&mut self, grace: Duration) {
        let patience = Instant::now() + grace + WARDEN_TIME;
        self.patience = Some(self.patience.map_or(patience, |earlier| earlier.min(patience)));
    }
}

/// What a task returns, if it ends in time. Otherwise it is given up: whoever should take what it delivers does not.
async fn finish<T>(task: Option<JoinHandle<T>>, deadline: Instant) -> Option<T> {
    let mut task = task?;
    match tokio::time::timeout_at(deadline, &mut task).await {
        Ok(result) => result.ok(),
        Err(_elapsed) => {
            task.abort();
            None
        }
    }
}

/// Waits for a point in time.
async fn until(time: Option<Instant>) {
    tokio::time::sleep_until(time.unwrap_or_else(Instant::now)).await;
}

/// Ends a tree that has lost its warden. The kernel has killed the leader (Linux); its process group, which bears its id,
/// gets the same here, since there is nobody else left to do it. What has left the group, and is nobody's child any more, is
/// found by its mark (Linux).
fn end_lost(group: Option<i32>, mark: &str) {
    if let Some(group) = group {
        let _ =
            nix::sys::signal::killpg(nix::unistd::Pid::from_raw(group), nix::sys::signal::Signal::SIGKILL);
    }
    let deadline = Instant::now() + LOST_TIME;
    let mut empty = 0;
    while empty < EMPTY_SEARCHES && Instant::now() < deadline {
        let found = process_tree::marked(mark).map(process_tree::end).count();
        empty = if found == 0 { empty + 1 } else { 0 };
        std::thread::sleep(SEARCH_INTERVAL);
    }
}
