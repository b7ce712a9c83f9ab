//! The life of a worker: what the warden reports, what others ask for, and the end.

use super::warden::Warden;
use super::{Cause, Command, End, PANIC, Phase, Sink, Worker};
use crate::control::{self, Exit, FromWarden, ORPHAN_GRACE, ToWarden};
use crate::process_tree;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// How long a program may live on after it has closed its end of the pipe: time for an orderly exit, not more.
const EXIT_TIME: Duration = Duration::from_secs(1);

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
    _warden: Warden,
    socket: OwnedWriteHalf,
    /// `None` once it has ended.
    writer: Option<JoinHandle<()>>,
    cause: Option<Cause>,
    exit: Option<Exit>,
    /// When a program that closed its pipe is stopped.
    deadline: Option<Instant>,
    /// How far the last frame came, when the pipe was closed inside of one.
    cut: Option<String>,
}

/// Runs until the tree is gone, and tells the sink.
pub(super) async fn live<B, S>(
    worker: Arc<Worker<B, S>>,
    (warden, socket): (Warden, UnixStream),
    mut orders: mpsc::UnboundedReceiver<Command>,
    phase: watch::Sender<Phase>,
    tasks: Tasks,
    mark: String,
) where
    B: AsRef<[u8]> + Send + 'static,
    S: Sink,
{
    let (mut reports, socket) = socket.into_split();
    let mut life = Life {
        _warden: warden,
        socket,
        writer: tasks.writer,
        cause: None,
        exit: None,
        deadline: None,
        cut: None,
    };
    // Reports are read by a task of their own: a read that `select!` gives up half-way would lose its bytes.
    let (report, mut reported) = mpsc::channel(4);
    let listener = tokio::spawn(async move {
        while let Ok(Some(message)) = next_report(&mut reports).await {
            if report.send(message).await.is_err() {
                break;
            }
        }
    });
    loop {
        let deadline = life.deadline;
        tokio::select! {
            report = reported.recv() => match report {
                Some(FromWarden::Started { pid }) => {
                    worker.pid.store(pid, Ordering::Release);
                    worker.sink.started(pid);
                    phase.send_replace(Phase::Running);
                }
                Some(FromWarden::Failed { reason }) => {
                    life.cause.get_or_insert(Cause::NotStarted(reason));
                    break;
                }
                Some(FromWarden::Exited(exit)) => {
                    life.exit = Some(exit);
                    life.cause.get_or_insert(Cause::Exited);
                    life.close(&worker).await;
                }
                Some(FromWarden::Gone) => break,
                None => {
                    // Not one that has been reaped: its number may be another's.
                    let group = worker.pid().filter(|_| life.exit.is_none());
                    let _ = tokio::task::spawn_blocking(move || end_lost(group, &mark)).await;
                    life.cause.get_or_insert(Cause::WardenLost);
                    break;
                }
            },
            // The worker holds a sender, so orders never end.
            Some(order) = orders.recv() => life.obey(&worker, order).await,
            () = tokio::time::sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {
                life.deadline = None;
                let reason = life.cut.take().unwrap_or_else(|| "Python closed its end of the pipe".into());
                life.obey(&worker, Command::Broken(reason)).await;
            }
        }
    }
    listener.abort();
    life.close(&worker).await;
    // Nobody writes any more: what the pipes hold is all there will be.
    phase.send_replace(Phase::Gone);
    let _ = tasks.frames.await;
    if let Some(prints) = tasks.prints {
        let _ = prints.await;
    }
    let stderr = tasks.stderr.await.unwrap_or_default();
    if let Some(stdout) = tasks.stdout {
        let _ = stdout.await;
    }
    while let Ok(order) = orders.try_recv() {
        life.note(order);
    }
    worker.sink.ended(End { cause: life.cause(), exit: life.exit, stderr });
}

/// The end of a worker whose life task has panicked. The socket to the warden is closed by then, which ends the tree.
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
                self.close(worker).await;
                self.stop(grace).await;
            }
            Command::Interrupt => self.tell(&ToWarden::Interrupt).await,
            Command::Broken(_) => {
                self.note(order);
                self.close(worker).await;
                self.stop(ORPHAN_GRACE).await;
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

    async fn stop(&mut self, grace: Duration) {
        let grace_ms = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
        self.tell(&ToWarden::Stop { grace_ms }).await;
    }

    async fn tell(&mut self, message: &ToWarden) {
        if let Ok(message) = control::encode(message) {
            // A warden that is gone is noticed by the listener.
            let _ = self.socket.write_all(&message).await;
        }
    }
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

async fn next_report(warden: &mut OwnedReadHalf) -> io::Result<Option<FromWarden>> {
    let mut length = [0; 4];
    if let Err(error) = warden.read_exact(&mut length).await {
        return if error.kind() == io::ErrorKind::UnexpectedEof { Ok(None) } else { Err(error) };
    }
    let mut body = vec![0; control::body_length(length)?];
    warden.read_exact(&mut body).await?;
    control::decode(&body).map(Some)
}
