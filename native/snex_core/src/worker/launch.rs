//! The start of a worker: makes pipes and shared memory, starts or forks the program, and spawns the tasks.

use super::link::{Branch, Link};
use super::shared::SharedMemory;
use super::{Command, Phase, Settings, Sink, Stream, Worker, life, pipe_size, reader, streams};
use crate::control::Spec;
use crate::frame::Kind;
use crate::handshake;
use crate::outbox::Outbox;
use crate::process_tree;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::resource::{Resource, getrlimit};
use nix::unistd;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::path::Path;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::runtime::Handle;
use tokio::sync::{Notify, mpsc, watch};

/// The descriptors that frames travel over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// Descriptors 3 to 6, and 7, 8 and 10 for shared memory. Standard output and error have pipes of their own.
    Pipes,
    /// Standard input and output, for wrappers that pass on no other descriptors. Standard error has a pipe of its own.
    Stdio,
}

/// The program's descriptors of shared memory: the arena towards it, and the one from it.
const SHARED_MEMORY: [RawFd; 2] = [7, 8];

/// The program's descriptor of the socket over which the warden asks it to fork; `None` on systems that cannot have copies.
const FORKS: Option<RawFd> = if cfg!(target_os = "linux") { Some(9) } else { None };

/// The program's descriptor of the socket for memory that it hands over.
const HANDOVER: RawFd = 10;

impl Transport {
    /// The program's descriptors, in this order: frames in, frames out, standard error, standard output, prints, interrupts.
    /// Over standard streams, the last three are missing.
    fn numbers(self) -> &'static [RawFd] {
        match self {
            Transport::Pipes => &[3, 4, 2, 1, 5, 6],
            Transport::Stdio => &[0, 1, 2],
        }
    }
}

/// A pipe between the VM and the program. Our end is non-blocking.
struct Pipe {
    ours: OwnedFd,
    theirs: OwnedFd,
}

impl Pipe {
    fn to_program() -> io::Result<Self> {
        let (theirs, ours) = pipe()?;
        Pipe { ours, theirs }.unblock()
    }

    fn from_program() -> io::Result<Self> {
        let (ours, theirs) = pipe()?;
        Pipe { ours, theirs }.unblock()
    }

    fn unblock(self) -> io::Result<Self> {
        fcntl(&self.ours, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        Ok(self)
    }

    fn enlarge(self) -> Self {
        pipe_size::usual(&self.ours);
        self
    }
}

fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    #[cfg(target_os = "linux")]
    return Ok(unistd::pipe2(OFlag::O_CLOEXEC)?);
    #[cfg(not(target_os = "linux"))]
    {
        let (reader, writer) = unistd::pipe()?;
        for fd in [&reader, &writer] {
            fcntl(fd, FcntlArg::F_SETFD(nix::fcntl::FdFlag::FD_CLOEXEC))?;
        }
        Ok((reader, writer))
    }
}

/// How the program of a worker comes to be.
pub(super) enum Origin {
    /// A new warden starts it.
    Started,
    /// The program that the warden behind `link` started forks it.
    Forked { link: Arc<Link>, ignore_threads: bool },
}

/// Starts or forks the program, and spawns the worker's tasks.
pub(super) fn launch<B, S>(
    runtime: &Handle,
    settings: Settings,
    origin: Origin,
    sink: S,
) -> io::Result<Arc<Worker<B, S>>>
where
    B: AsRef<[u8]> + Send + 'static,
    S: Sink,
{
    start(runtime, settings, origin, sink).map_err(explain)
}

/// If an error means that the VM has run out of descriptors, adds the limit and how many a start needs.
pub(super) fn explain(error: io::Error) -> io::Error {
    let limit = getrlimit(Resource::RLIMIT_NOFILE);
    match limit {
        Ok((limit, _)) if error.raw_os_error() == Some(libc::EMFILE) => io::Error::new(
            error.kind(),
            format!(
                "{error}: the VM may have {limit} at a time (ulimit -n); an interpreter needs 10 of them, and 18 while it starts"
            ),
        ),
        _ => error,
    }
}

fn start<B, S>(
    runtime: &Handle,
    mut settings: Settings,
    origin: Origin,
    sink: S,
) -> io::Result<Arc<Worker<B, S>>>
where
    B: AsRef<[u8]> + Send + 'static,
    S: Sink,
{
    match (&origin, settings.transport) {
        (Origin::Forked { .. }, _) => settings.hello.limits = Some(settings.spec.limits),
        (Origin::Started, Transport::Pipes) => settings.hello.forks = FORKS,
        (Origin::Started, Transport::Stdio) => {}
    }
    settings.spec.forks = settings.hello.forks;
    let version = settings.hello.version.clone();
    let limit = settings.hello.reply_limit;
    let frames_in = Pipe::to_program()?.enlarge();
    let frames_out = Pipe::from_program()?.enlarge();
    let stderr = Pipe::from_program()?;
    let (stdout, prints, interrupts) = match settings.transport {
        Transport::Pipes => {
            (Some(Pipe::from_program()?), Some(Pipe::from_program()?), Some(Pipe::to_program()?))
        }
        Transport::Stdio => (None, None, None),
    };
    let always = [&frames_in, &frames_out, &stderr];
    let sometimes = [&stdout, &prints, &interrupts].into_iter().flatten();
    let mut theirs: Vec<BorrowedFd<'_>> =
        always.into_iter().chain(sometimes).map(|pipe| pipe.theirs.as_fd()).collect();
    settings.spec.descriptors = settings.transport.numbers().to_vec();
    let shared = match settings.transport {
        // An error is ignored: without shared memory everything works, only more slowly.
        Transport::Pipes => settings.shared_memory.and_then(|size| SharedMemory::new(size).ok()),
        Transport::Stdio => None,
    };
    if let Some(shared) = &shared {
        let [to, from] = shared.arenas();
        theirs.extend([to.as_fd(), from.as_fd()]);
        settings.spec.descriptors.extend(SHARED_MEMORY);
        settings.hello.shared = Some(((SHARED_MEMORY[0], to.size()), (SHARED_MEMORY[1], from.size())));
    }
    if let Some(socket) = &settings.handover {
        theirs.push(socket.as_fd());
        settings.spec.descriptors.push(HANDOVER);
        settings.hello.handover = Some(HANDOVER);
    }
    let hello = handshake::control_frame(Kind::Hello, &settings.hello).map_err(io::Error::other)?;
    let branch = match origin {
        Origin::Started => start_program(runtime, settings.spec, &settings.warden, &theirs)?,
        Origin::Forked { link, ignore_threads } => link.fork(ignore_threads, &theirs)?,
    };

    let _context = runtime.enter();
    let pipe = Arc::new(frames_in.ours);
    let writable = streams::register(Arc::clone(&pipe), tokio::io::Interest::WRITABLE)?;
    let frames = streams::Source::new(frames_out.ours)?;
    let stderr = streams::Source::new(stderr.ours)?;
    let source = |pipe: Pipe| streams::Source::new(pipe.ours);
    let stdout = stdout.map(source).transpose()?;
    let prints = prints.map(source).transpose()?;

    let (commands, receiver) = mpsc::unbounded_channel::<Command>();
    let (phase, phases) = watch::channel(Phase::Starting);
    let (low, high) = settings.marks;
    let worker = Arc::new(Worker {
        outbox: Mutex::new(Outbox::new(pipe, low, high)),
        queued: Notify::new(),
        interrupts: interrupts.map(|pipe| pipe.ours),
        shared,
        commands,
        pid: AtomicI32::new(0),
        link: Arc::downgrade(branch.link()),
        sink,
    });
    worker.submit(hello);
    let tasks = life::Tasks {
        writer: Some(runtime.spawn(streams::write(Arc::clone(&worker), writable))),
        frames: runtime.spawn(reader::read(Arc::clone(&worker), frames, phases.clone(), version, limit)),
        prints: prints
            .map(|source| reader::read_prints(Arc::clone(&worker), source, phases.clone(), limit))
            .map(|reading| runtime.spawn(reading)),
        stderr: runtime.spawn(streams::relay(Arc::clone(&worker), Stream::Stderr, stderr, phases.clone())),
        stdout: stdout
            .map(|source| runtime.spawn(streams::relay(Arc::clone(&worker), Stream::Stdout, source, phases))),
    };
    let life = runtime.spawn(life::supervise(Arc::clone(&worker), branch, receiver, phase, tasks));
    runtime.spawn(life::guard(Arc::clone(&worker), life));
    Ok(worker)
}

fn start_program(
    runtime: &Handle,
    mut spec: Spec,
    warden: &Path,
    theirs: &[BorrowedFd<'_>],
) -> io::Result<Branch> {
    let mark = mark();
    spec.env.retain(|(name, _)| name != process_tree::MARK.as_bytes());
    spec.env.push((process_tree::MARK.into(), mark.clone().into()));
    Link::start(runtime, warden, spec, mark, theirs)
}

/// A new mark, which no other tree of this machine has.
fn mark() -> String {
    static TREES: AtomicU64 = AtomicU64::new(0);
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let number = TREES.fetch_add(1, Ordering::Relaxed);
    format!("{}-{}-{number}", std::process::id(), since_1970.as_nanos())
}
