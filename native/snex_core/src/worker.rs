//! A worker: one warden, one Python process tree, and the tasks that move bytes between them and a [`Sink`].
//!
//! ```text
//! caller --submit--> outbox ==pipe==> Python ==pipe==> reader task ---> Sink::frame
//!                      |                 |=====pipe==> reader task ---> Sink::print (and frame)
//!                 writer task            |=====pipe==> output tasks --> Sink::output
//!                                    warden ==socket==> life task ----> Sink::started, Sink::ended
//! ```
//!
//! Ownership: those who submit frames and the tasks share the [`Worker`]. The life task owns the tree's branch of the
//! connection to the warden. It ends last: it waits for the other tasks, so that everything Python wrote before it died is
//! delivered, and then calls [`Sink::ended`] once. It does so however the worker ends: Python exits, the warden is killed,
//! someone calls [`Worker::stop`], or Python breaks the protocol. Dropping every `Worker` does not stop Python;
//! [`Worker::stop`] does.

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

/// Receives a worker's events. Only the worker's tasks call it, never the thread of a caller. No method may block.
pub trait Sink: Send + Sync + 'static {
    /// The memory that the bodies of frames are read into.
    type Body: Body;

    /// The program runs, with this process id. Called before everything else, unless the start failed.
    fn started(&self, pid: i32);
    /// The handshake succeeded. Called before the first frame.
    fn ready(&self, ready: Ready);
    /// A frame arrived. An error means that Python must not send such a frame; it ends the worker.
    fn frame(&self, header: Header, body: Self::Body) -> Result<(), String>;
    /// A request printed. The body is a byte for the stream (1 or 2), and then the text. Nothing more is read from the same
    /// pipe until the future completes; when the pipe is full, Python waits as well.
    fn print(&self, request: u64, body: Self::Body) -> impl Future<Output = ()> + Send;
    /// A log event, in external term format. Nothing more is read from the same pipe until the future completes.
    fn log(&self, event: Self::Body) -> impl Future<Output = ()> + Send;
    /// The queue has room again, or is closed: those who wait for room should try again.
    fn writable(&self);
    /// How many processes wait for Python: callers for an answer, and feeders for a request for items.
    fn waiting(&self) -> usize;
    /// The tree wrote `chunk` to a stream. Nothing more is read from that stream until the future completes.
    fn output(&self, stream: Stream, chunk: &[u8]) -> impl Future<Output = ()> + Send;
    /// The tree is gone. Called once, and last.
    fn ended(&self, end: End);
}

/// Memory for the body of a frame.
pub trait Body: Send + Sized {
    /// Allocates `length` bytes; `None` if there is no memory.
    fn with_length(length: usize) -> Option<Self>;
    /// Allocates `length` bytes that are copied from `offset` in a file. The first should be in the same place of a
    /// [cache line](crate::shared_memory::CACHE_LINE) as there.
    fn in_step(length: usize, _offset: usize) -> Option<Self> {
        Self::with_length(length)
    }
    /// Grows to `length` bytes and keeps the content. Returns false, and changes nothing, if there is no memory.
    #[must_use]
    fn grow(&mut self, length: usize) -> bool;
    /// The memory to be filled next, from byte `from` on: at least [`LEAST_ROOM`] bytes, or all that are left.
    fn room(&mut self, from: usize) -> &mut [u8];
}

/// The least that [`Body::room`] returns before the end of the body, in bytes.
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

/// What to start, and how.
#[derive(Debug)]
pub struct Settings {
    /// The warden's executable.
    pub warden: PathBuf,
    /// The program. The worker fills in its `descriptors`.
    pub spec: Spec,
    /// The descriptors that frames travel over.
    pub transport: Transport,
    /// The first frame.
    pub hello: Hello,
    /// Low and high mark of what is queued towards Python, in bytes.
    pub marks: (usize, usize),
    /// Bytes of shared memory in each direction; `None` for none. If the system has none, everything travels through the pipes.
    pub shared_memory: Option<u64>,
    /// Python's end of the socket for memory that it hands over; see [`crate::handover`].
    pub handover: Option<OwnedFd>,
}

/// What tasks and callers tell the life task.
#[derive(Debug)]
enum Command {
    /// End the tree, with this grace between SIGTERM and SIGKILL.
    Stop(Duration),
    /// Interrupt the program.
    Interrupt,
    /// Python broke the protocol in this way, or a task of the worker panicked.
    Broken(String),
    /// The pipe with frames is at its end. If it ended inside a frame, this says where.
    EndOfFrames(Option<String>),
}

/// The phase of a tree, which the life task publishes to the tasks that read from the tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The warden has not reported a start. Nothing is read yet, because [`Sink::started`] has to be called first.
    Starting,
    /// The tree may write at any time.
    Running,
    /// No process is left to write. The tasks read what the pipes still hold, and end.
    Gone,
}

/// A running worker. `B` keeps large binaries alive while they are queued.
pub struct Worker<B, S: Sink> {
    outbox: Mutex<Outbox<B>>,
    /// Wakes the writer task: something has been queued, or the outbox is closed.
    queued: Notify,
    /// The pipe for the numbers of requests to interrupt; `None` where the transport has no such pipe.
    interrupts: Option<OwnedFd>,
    /// Used once Python has reported in `READY` that it has found it. Emptied at the end.
    shared: Option<SharedMemory>,
    commands: mpsc::UnboundedSender<Command>,
    /// 0 until the program runs.
    pid: AtomicI32,
    /// The connection to the warden, which the life tasks of its trees own.
    link: Weak<link::Link>,
    /// Receives the events.
    pub sink: S,
}

/// The longest grace: a deadline that far ahead does not overflow a clock, here or in the warden.
const LONGEST_GRACE: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// The reason with which a worker ends when one of its tasks panics. Only a bug does that.
const PANIC: &str = "a task of Snex's own has panicked";

/// Held by each task that a worker cannot do without. If the task panics, this ends the worker, so that nobody waits in vain.
struct PanicGuard(mpsc::UnboundedSender<Command>);

impl Drop for PanicGuard {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _ = self.0.send(Command::Broken(PANIC.into()));
        }
    }
}

impl<B: AsRef<[u8]> + Send + 'static, S: Sink> Worker<B, S> {
    /// Starts a warden and a program. Blocks for the time of one `posix_spawn`. The sink learns whether the program runs.
    ///
    /// # Errors
    /// If descriptors cannot be made or the warden cannot be started. The sink is then dropped without a call.
    pub fn start(runtime: &Handle, settings: Settings, sink: S) -> io::Result<Arc<Self>> {
        launch::launch(runtime, settings, launch::Origin::Started, sink)
    }

    /// Has the program of this worker fork a copy, and returns the copy's worker. The two share a warden, and are otherwise
    /// independent. `settings.warden` and `settings.spec` are ignored, except for `spec.limits`. Does not wait for the
    /// program: the sink learns whether there is a copy, or why not.
    ///
    /// # Errors
    /// If descriptors cannot be made or the program is gone. The sink is then dropped without a call.
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

    /// Submits a frame. Never blocks.
    pub fn submit(&self, frame: Frame<B>) -> Submitted {
        // Dropped after the lock is released.
        let (submitted, _spent) = {
            let mut outbox = self.outbox();
            (outbox.submit(frame), outbox.take_spent())
        };
        if submitted == Submitted::Queued {
            self.queued.notify_one();
        }
        submitted
    }

    /// Whether the queue is above its high-water mark, so that a request should wait before its frame is built.
    pub fn is_full(&self) -> bool {
        self.outbox().is_full()
    }

    /// Bytes that Python has not read, without those in the pipe.
    pub fn queued(&self) -> usize {
        self.outbox().waiting()
    }

    /// Bytes of the shared memory towards Python that are in use; `None` without shared memory.
    pub fn shared_bytes(&self) -> Option<u64> {
        self.shared.as_ref().filter(|_| self.outbox().shares()).map(SharedMemory::bytes)
    }

    /// As [`Worker::is_full`]. If so, [`Sink::writable`] is called once there is room.
    pub fn wait_if_full(&self) -> bool {
        self.outbox().wait_if_full()
    }

    /// Ends the tree: closes the pipe towards Python, sends SIGTERM to every process, and SIGKILL after `grace`. Returns at
    /// once; [`Sink::ended`] is called when nothing is left. Another call with a shorter grace speeds it up.
    pub fn stop(&self, grace: Duration) {
        // Fails only when the life task has ended, and the tree before it.
        let _ = self.commands.send(Command::Stop(grace.min(LONGEST_GRACE)));
    }

    /// Interrupts the code that runs for `request`, even if it blocks Python's event loop: writes the number to a pipe, and
    /// has the warden send a signal whose handler reads it. May be called repeatedly. Has no effect over standard streams.
    pub fn interrupt(&self, request: u64) {
        let Some(pipe) = &self.interrupts else { return };
        // Fails if Python does not read and the pipe is full. One more number would not help then.
        let _ = nix::unistd::write(pipe, &request.to_le_bytes());
        let _ = self.commands.send(Command::Interrupt);
    }

    /// Whether frames are no longer accepted: the worker has ended, or is about to.
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

    fn panic_guard(&self) -> PanicGuard {
        PanicGuard(self.commands.clone())
    }

    /// Closes the pipe towards Python. Only for the worker's tasks, because it calls the sink.
    fn close(&self) {
        let (awaited, _spent) = {
            let mut outbox = self.outbox();
            (outbox.close(), outbox.take_spent())
        };
        self.queued.notify_one();
        if awaited {
            self.sink.writable();
        }
    }

    fn outbox(&self) -> MutexGuard<'_, Outbox<B>> {
        // Nothing panics while holding the lock. Even then, the outbox could still be closed.
        self.outbox.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
