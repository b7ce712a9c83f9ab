//! The life task of a worker: it acts on the warden's reports and on commands, and ends the worker.

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

/// How long a program may run after it has closed its end of the pipe: enough for an orderly exit.
const EXIT_TIME: Duration = Duration::from_secs(1);

/// How long a warden may take to report the end of its tree after the grace is over. A warden that takes longer hangs or has
/// been stopped by a signal (SIGSTOP). It is killed, and the life task ends the tree itself.
const WARDEN_TIME: Duration = Duration::from_secs(5);

/// How long the tasks that read from the tree may delay [`Sink::ended`] to deliver what is left in the pipes.
const DELIVERY_TIME: Duration = Duration::from_secs(5);

/// How long to search for the processes of a tree that has lost its warden. The limit is for a process that cannot die yet,
/// for example because it waits for a disk.
const SEARCH_TIME: Duration = Duration::from_secs(5);

/// The tree counts as gone after this many searches in a row that found nothing. One alone may miss a process that forks and
/// exits during the search.
const EMPTY_SEARCHES: usize = 3;

/// The pause between two searches.
const SEARCH_INTERVAL: Duration = Duration::from_millis(10);

/// The tasks that write to the program and read from it. The transport decides whether there is a pipe for prints and one for
/// standard output.
pub(super) struct Tasks {
    pub(super) writer: Option<JoinHandle<()>>,
    pub(super) frames: JoinHandle<()>,
    pub(super) prints: Option<JoinHandle<()>>,
    pub(super) stderr: JoinHandle<Vec<u8>>,
    pub(super) stdout: Option<JoinHandle<Vec<u8>>>,
}

/// The state of the life task.
struct Life {
    branch: Branch,
    /// `None` once it has been waited for.
    writer: Option<JoinHandle<()>>,
    /// Why the worker ends, as far as is known.
    cause: Option<Cause>,
    /// How the program exited.
    exit: Option<Exit>,
    /// When to stop a program that has closed its end of the pipe.
    exit_deadline: Option<Instant>,
    /// When to kill the warden, which should have ended the tree by then.
    warden_deadline: Option<Instant>,
    /// Where the last frame was cut off, if the pipe ended inside a frame.
    cut: Option<String>,
}

/// Runs until the tree is gone, then notifies the sink.
pub(super) async fn supervise<B, S>(
    worker: Arc<Worker<B, S>>,
    branch: Branch,
    mut commands: mpsc::UnboundedReceiver<Command>,
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
        exit_deadline: None,
        warden_deadline: None,
        cut: None,
    };
    loop {
        let (exit_deadline, warden_deadline) = (life.exit_deadline, life.warden_deadline);
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
                    if life.warden_deadline.is_none() {
                        life.limit_warden(ORPHAN_GRACE);
                    }
                }
                Some(FromWarden::Gone { .. }) => break,
                None => {
                    // Once the leader has been reaped, its id may belong to another process.
                    let group = worker.pid().filter(|_| life.exit.is_none());
                    let mark = life.branch.mark();
                    let _ = tokio::task::spawn_blocking(move || end_lost(group, &mark)).await;
                    life.cause.get_or_insert(Cause::WardenLost);
                    break;
                }
            },
            // Never `None`: the worker itself holds a sender.
            Some(command) = commands.recv() => life.execute(&worker, command).await,
            () = until(warden_deadline), if warden_deadline.is_some() => {
                life.warden_deadline = None;
                // The branches of all its trees, this one included, then report that the warden is gone.
                life.branch.kill_warden();
            }
            () = until(exit_deadline), if exit_deadline.is_some() => {
                life.exit_deadline = None;
                let reason = life.cut.take().unwrap_or_else(|| "Python closed its end of the pipe".into());
                life.execute(&worker, Command::Broken(reason)).await;
            }
        }
    }
    life.close(&worker).await;
    phase.send_replace(Phase::Gone);
    let deadline = Instant::now() + DELIVERY_TIME;
    finish(Some(tasks.frames), deadline).await;
    finish(tasks.prints, deadline).await;
    let stderr = finish(Some(tasks.stderr), deadline).await.unwrap_or_default();
    finish(tasks.stdout, deadline).await;
    while let Ok(command) = commands.try_recv() {
        life.note(command);
    }
    if let Some(shared) = &worker.shared {
        shared.give_all_back();
    }
    worker.sink.ended(End { cause: life.cause(), exit: life.exit, stderr });
}

/// Waits for the life task, and ends the worker if that task panics. The panic drops the task's branch, which ends the tree.
pub(super) async fn guard<B, S>(worker: Arc<Worker<B, S>>, life: JoinHandle<()>)
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
    /// Records what a task has found in the pipes.
    fn note(&mut self, command: Command) {
        match command {
            // This takes precedence over an exit, which came after it.
            Command::Broken(reason) if matches!(self.cause, None | Some(Cause::Exited)) => {
                self.cause = Some(Cause::Broken(reason));
            }
            Command::EndOfFrames(cut) => self.cut = cut,
            _ => (),
        }
    }

    /// Why the worker has ended. A program that exits with status 0 and leaves half a frame has broken the protocol; one that
    /// fails may leave half a frame.
    fn cause(&mut self) -> Cause {
        match self.cause.take() {
            None | Some(Cause::Exited) if self.exit == Some(Exit::Status(0)) => {
                self.cut.take().map_or(Cause::Exited, Cause::Broken)
            }
            cause => cause.unwrap_or(Cause::Exited),
        }
    }

    async fn execute<B, S>(&mut self, worker: &Worker<B, S>, command: Command)
    where
        B: AsRef<[u8]> + Send + 'static,
        S: Sink,
    {
        match command {
            Command::Stop(grace) => {
                self.cause.get_or_insert(Cause::Stopped);
                if grace.is_zero() {
                    // Before the pipe is closed: Python would take its end of file as a request to shut down in good order.
                    self.branch.stop(grace);
                }
                self.close(worker).await;
                self.stop(grace);
            }
            Command::Interrupt => self.branch.interrupt(),
            Command::Broken(_) => {
                self.note(command);
                self.close(worker).await;
                self.stop(ORPHAN_GRACE);
            }
            Command::EndOfFrames(_) => {
                // Most likely the program is exiting, and the warden is about to report how.
                self.note(command);
                self.close(worker).await;
                self.exit_deadline = Some(Instant::now() + EXIT_TIME);
            }
        }
    }

    /// Closes the pipe towards Python, and waits until Python can read end of file. By that, Python can tell the SIGTERM of a
    /// stop from one that the machine sends to every process when it shuts down.
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
        self.limit_warden(grace);
    }

    /// Sets the deadline of a warden whose tree has `grace` left. A deadline is never moved further ahead.
    fn limit_warden(&mut self, grace: Duration) {
        let deadline = Instant::now() + grace + WARDEN_TIME;
        self.warden_deadline = Some(self.warden_deadline.map_or(deadline, |earlier| earlier.min(deadline)));
    }
}

/// Waits for a task and returns its result. Aborts the task at the deadline: then the consumer of what it delivers is stuck.
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

async fn until(time: Option<Instant>) {
    tokio::time::sleep_until(time.unwrap_or_else(Instant::now)).await;
}

/// Kills what is left of a tree that has lost its warden. On Linux the kernel has already killed the leader, with the
/// parent-death signal. This function kills the leader's process group, and then the processes that left the group. On Linux
/// it finds these by their mark, even if they have become orphans.
fn end_lost(group: Option<i32>, mark: &str) {
    if let Some(group) = group {
        let _ =
            nix::sys::signal::killpg(nix::unistd::Pid::from_raw(group), nix::sys::signal::Signal::SIGKILL);
    }
    let deadline = Instant::now() + SEARCH_TIME;
    let mut empty = 0;
    while empty < EMPTY_SEARCHES && Instant::now() < deadline {
        let found = process_tree::marked(mark).map(process_tree::kill_with_group).count();
        empty = if found == 0 { empty + 1 } else { 0 };
        std::thread::sleep(SEARCH_INTERVAL);
    }
}
