//! A worker: one warden, one Python process tree, and the tasks that move bytes between them and a [`Sink`].
//!
//! ```text
//! caller --submit--> outbox ==pipe==> Python ==pipe==> reader task ---> Sink::frame
//!                      |                 |=====pipe==> reader task ---> Sink::print (and frame)
//!                 writer task            |=====pipe==> output tasks --> Sink::output
//!                                    warden ==socket==> life task ----> Sink::started, Sink::ended
//! ```
//!
//! Ownership: [`Worker`] is shared by whoever submits frames and by the tasks. The life task owns the socket to the warden,
//! and is the last to end: it waits for the other tasks, so that whatever Python said before it died is delivered first, and
//! then calls [`Sink::ended`] once. That call comes on every road: Python exits, the warden is killed, somebody stops the
//! worker, bytes arrive that are no frame. Dropping every `Worker` does not stop Python; [`Worker::stop`] does.

pub(crate) mod frame_reader;
pub(crate) mod inbound;
mod launch;
mod life;
mod link;
mod pipe_size;
mod reader;
mod shared;
mod spin;
mod streams;
mod warden;

use crate::control::{Exit, Spec};
use crate::frame::{Frame, Header};
use crate::handshake::{Hello, Ready};
use crate::outbox::{Outbox, Submitted};
use shared::SharedMemory;
use std::future::Future;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::{Notify, mpsc};

pub use launch::Transport;

/// Where a worker's news goes. Called on the worker's tasks alone, never on the thread of a caller; nothing here may block.
pub trait Sink: Send + Sync + 'static {
    /// Where the body of a frame is read to.
    type Body: Body;

    /// The program runs, as this process. Comes before anything else but an early end.
    fn started(&self, pid: i32);
    /// The handshake succeeded. Comes before any frame.
    fn ready(&self, ready: Ready);
    /// A frame arrived. An error is a frame that Python may not send, and ends the worker.
    fn frame(&self, header: Header, body: Self::Body) -> Result<(), String>;
    /// A request printed: a byte that tells the stream (1, 2), and what it printed. What follows on the same pipe waits until
    /// the future is done, and so does Python when the pipe is full.
    fn print(&self, request: u64, body: Self::Body) -> impl Future<Output = ()> + Send;
    /// A log event, as a term in external format. What follows on the same pipe waits until the future is done.
    fn log(&self, event: Self::Body) -> impl Future<Output = ()> + Send;
    /// There is room again, or there never will be: those who wait for it should try once more.
    fn writable(&self);
    /// How many processes wait for Python: callers for an answer, and feeders for a request for items.
    fn waiting(&self) -> usize;
    /// The tree wrote this. No more is read from the same stream until the future is done.
    fn output(&self, stream: Stream, chunk: &[u8]) -> impl Future<Output = ()> + Send;
    /// The tree is gone. Comes once, and last.
    fn ended(&self, end: End);
}

/// Memory for the body of a frame.
pub trait Body: Send + Sized {
    /// Memory of `length` bytes; `None` if there is none.
    fn with_length(length: usize) -> Option<Self>;
    /// Makes it longer, keeping the content. False, with nothing changed, if there is no memory for that.
    #[must_use]
    fn grow(&mut self, length: usize) -> bool;
    /// The memory from byte `from` on, or the first part of it, to be filled. At least [`LEAST_ROOM`] bytes, unless fewer are left.
    fn room(&mut self, from: usize) -> &mut [u8];
}

/// See [`Body::room`].
pub const LEAST_ROOM: usize = 64 * 1024;

impl Body for Vec<u8> {
    fn with_length(length: usize) -> Option<Self> {
        let mut body = Vec::new();
        body.grow(length).then_some(body)
    }

    fn grow(&mut self, length: usize) -> bool {
        let enough = self.try_reserve_exact(length.saturating_sub(self.len())).is_ok();
        if enough {
            self.resize(length, 0);
        }
        enough
    }

    fn room(&mut self, from: usize) -> &mut [u8] {
        self.get_mut(from..).unwrap_or_default()
    }
}

/// One of the two streams that programs print to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output
    Stdout,
    /// Standard error
    Stderr,
}

/// How a worker ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    /// Why.
    pub cause: Cause,
    /// How the program exited, where that is known.
    pub exit: Option<Exit>,
    /// The last bytes that the tree wrote to standard error.
    pub stderr: Vec<u8>,
}

/// Why a worker ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cause {
    /// The program could not be started.
    NotStarted(String),
    /// The program exited by itself.
    Exited,
    /// [`Worker::stop`] was called.
    Stopped,
    /// What came over the pipe was not the protocol.
    Broken(String),
    /// The warden is gone, and took the program with it.
    WardenLost,
}

/// What to start, and how to treat it.
#[derive(Debug)]
pub struct Settings {
    /// The warden's executable.
    pub warden: PathBuf,
    /// The program; its `descriptors` are filled in here.
    pub spec: Spec,
    /// Which descriptors the program talks over.
    pub transport: Transport,
    /// The first frame.
    pub hello: Hello,
    /// Low and high mark of what is queued towards Python, in bytes.
    pub marks: (usize, usize),
    /// Bytes of shared memory in each direction; `None` for none. Where there can be none, all goes through the pipes.
    pub shared_memory: Option<u64>,
    /// Python's end of the socket for memory that it hands over; see [`crate::handover`].
    pub handover: Option<OwnedFd>,
}

/// What tasks and callers ask of the life task.
#[derive(Debug)]
enum Command {
    Stop(Duration),
    Interrupt,
    Broken(String),
    /// How far the last frame came, where it is not whole.
    EndOfFrames(Option<String>),
}

/// How far a tree is; the life task says so to those that read from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The warden has not said that the program runs. Nothing is read: the sink hears of the start first.
    Starting,
    /// Bytes may come at any time.
    Running,
    /// Nobody is left to write. What the pipes hold is all there will be.
    Gone,
}

/// A running worker. `B` keeps large binaries alive while they are queued.
pub struct Worker<B, S: Sink> {
    outbox: Mutex<Outbox<B>>,
    queued: Notify,
    /// Where the numbers of requests to be interrupted go; `None` where the transport has no such pipe.
    interrupts: Option<OwnedFd>,
    /// Used once Python has said that it has it as well; emptied at the end.
    shared: Option<SharedMemory>,
    commands: mpsc::UnboundedSender<Command>,
    pid: AtomicI32,
    /// The connection to the warden, which the life tasks own.
    link: Weak<link::Link>,
    /// Where the news goes.
    pub sink: S,
}

/// More is too much for the clocks of this side and of the warden's.
const LONGEST_GRACE: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// What a worker ends with when a task of ours panics, which only a bug makes it do.
const PANIC: &str = "a task of Snex's own has panicked";

/// Held by a task without which a worker cannot go on: ends the worker when the task panics, so that nobody waits for it.
struct Alarm(mpsc::UnboundedSender<Command>);

impl Drop for Alarm {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _ = self.0.send(Command::Broken(PANIC.into()));
        }
    }
}

impl<B: AsRef<[u8]> + Send + 'static, S: Sink> Worker<B, S> {
    /// Starts a warden and a program. Blocks for the time of one `posix_spawn`. That the program runs, or does not, is told to
    /// the sink.
    ///
    /// # Errors
    /// When descriptors cannot be made or the warden cannot be started; the sink is dropped then without a call.
    pub fn start(runtime: &Handle, settings: Settings, sink: S) -> io::Result<Arc<Self>> {
        launch::launch(runtime, settings, launch::Origin::Started, sink)
    }

    /// Has the program of this worker fork a copy, and returns its worker. The same warden looks after both; apart from that
    /// they have nothing to do with each other. Of `settings`, the warden and all but the limits of the program are not used.
    /// Does not wait for the program: whether there is a copy, or why not, is told to the sink.
    ///
    /// # Errors
    /// When descriptors cannot be made or the program is gone; the sink is dropped then without a call.
    pub fn fork(
        &self,
        runtime: &Handle,
        settings: Settings,
        ignore_threads: bool,
        sink: S,
    ) -> io::Result<Arc<Self>> {
        let link = self.link.upgrade().filter(|_| !self.is_closed());
        let link = link.ok_or_else(|| io::Error::other("the template has ended"))?;
        launch::launch(runtime, settings, launch::Origin::Forked { link, ignore_threads }, sink)
    }

    /// Submits a frame, without blocking. `Closed` when Python is gone or going.
    pub fn submit(&self, frame: Frame<B>) -> Submitted {
        let (submitted, _spent) = {
            let mut outbox = self.outbox();
            (outbox.submit(frame), outbox.spent())
        };
        if submitted == Submitted::Queued {
            self.queued.notify_one();
        }
        submitted
    }

    /// Whether so much is queued that a frame should not even be made.
    pub fn is_full(&self) -> bool {
        self.outbox().is_full()
    }

    /// Bytes that wait to be written.
    pub fn queued(&self) -> usize {
        self.outbox().waiting()
    }

    /// Bytes of shared memory that Python has been given and still uses; `None` without shared memory.
    pub fn shared_bytes(&self) -> Option<u64> {
        self.shared.as_ref().filter(|_| self.outbox().shares()).map(SharedMemory::bytes)
    }

    /// As [`Worker::is_full`]; if so, [`Sink::writable`] is called when there is room.
    pub fn wait_if_full(&self) -> bool {
        self.outbox().wait_if_full()
    }

    /// Ends the tree: end of file towards Python and SIGTERM to all, SIGKILL after `grace`. Returns at once;
    /// [`Sink::ended`] tells when nothing is left. May be called again, to hurry.
    pub fn stop(&self, grace: Duration) {
        // The life task is gone only when the tree is.
        let _ = self.commands.send(Command::Stop(grace.min(LONGEST_GRACE)));
    }

    /// Interrupts code that blocks, if it runs for `request`: Python gets the number, and a signal to look at it. May be
    /// called again. Without effect over standard streams.
    pub fn interrupt(&self, request: u64) {
        let Some(pipe) = &self.interrupts else { return };
        // A pipe that is full of numbers which Python does not read needs no more of them.
        let _ = nix::unistd::write(pipe, &request.to_le_bytes());
        let _ = self.commands.send(Command::Interrupt);
    }

    /// Whether nothing more can be submitted: the end has come, or is coming.
    pub fn is_closed(&self) -> bool {
        self.outbox().is_closed()
    }

    /// The program's process id, once it runs.
    pub fn pid(&self) -> Option<i32> {
        match self.pid.load(Ordering::Acquire) {
            0 => None,
            pid => Some(pid),
        }
    }

    fn alarm(&self) -> Alarm {
        Alarm(self.commands.clone())
    }

    /// On the worker's tasks only: it calls the sink.
    fn close(&self) {
        let (awaited, _spent) = {
            let mut outbox = self.outbox();
            (outbox.close(), outbox.spent())
        };
        self.queued.notify_one();
        if awaited {
            self.sink.writable();
        }
    }

    fn outbox(&self) -> MutexGuard<'_, Outbox<B>> {
        // Nothing panics while holding it; if it did, the outbox would still be consistent enough to be closed.
        self.outbox.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
