//! Reading from pipes, the writer task, and the tasks that relay standard output and error.

use super::pipe_size::{self, PipeSize};
use super::shared::{self, SharedMemory};
use super::{Phase, Sink, Stream, Worker};
use nix::errno::Errno;
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;

/// The most bytes of output in one chunk.
const CHUNK: usize = 32 * 1024;

/// How many of the last bytes of standard error are kept for the report of a crash.
const TAIL: usize = 4 * 1024;

/// The read end of a pipe.
pub(super) struct Source {
    pipe: AsyncFd<OwnedFd>,
    size: PipeSize,
}

impl Source {
    /// A source for `pipe`, which has to be non-blocking. Must be called inside the runtime.
    pub(super) fn new(pipe: OwnedFd) -> io::Result<Self> {
        Ok(Source { pipe: register(pipe, Interest::READABLE)?, size: PipeSize::default() })
    }

    /// Enlarges the pipe if `bytes` bytes, which are to be read next, are worth it.
    pub(super) fn expect(&mut self, bytes: usize) {
        self.size.prepare(self.pipe.get_ref(), bytes);
    }

    /// Gives the pipe its usual size again.
    pub(super) fn expect_no_more(&mut self) {
        self.size.restore(self.pipe.get_ref());
    }

    /// Reads into `buffer` without waiting; `None` if the pipe is empty.
    pub(super) fn look(&self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        match nix::unistd::read(self.pipe.get_ref(), buffer) {
            Ok(read) => Ok(Some(read)),
            Err(Errno::EAGAIN | Errno::EINTR) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Reads into `buffer`; returns 0 at end of file. Once the tree is gone, an empty pipe counts as ended, even if a process
    /// that left the tree still holds the other end.
    pub(super) async fn read(
        &self,
        buffer: &mut [u8],
        phase: &mut watch::Receiver<Phase>,
    ) -> io::Result<usize> {
        loop {
            let now = *phase.borrow_and_update();
            match now {
                Phase::Running => {}
                Phase::Starting => {
                    // Fails only if the life task is gone. It outlives this task, unless the runtime shuts down.
                    phase.changed().await.map_err(io::Error::other)?;
                    continue;
                }
                Phase::Gone => match nix::unistd::read(self.pipe.get_ref(), buffer) {
                    Ok(read) => return Ok(read),
                    Err(Errno::EAGAIN) => return Ok(0),
                    Err(Errno::EINTR) => continue,
                    Err(error) => return Err(error.into()),
                },
            }
            let mut ready = tokio::select! {
                biased;
                ready = self.pipe.readable() => ready?,
                _ = phase.changed() => continue,
            };
            match ready.try_io(|pipe| Ok(nix::unistd::read(pipe.get_ref(), buffer)?)) {
                Ok(Ok(read)) => {
                    // A short read has emptied the pipe, so the next read has to wait.
                    if read < buffer.len() && read != 0 {
                        ready.clear_ready();
                    }
                    return Ok(read);
                }
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(Err(error)) => return Err(error),
                Err(_would_block) => {}
            }
        }
    }
}

/// Registers a descriptor with the current runtime.
pub(super) fn register<T: AsRawFd + AsFd>(pipe: T, interest: Interest) -> io::Result<AsyncFd<T>> {
    // SAFETY: `pipe` owns its descriptor or shares it through an `Arc`, never gives it up while it lives, and always names
    // the same one.
    Ok(unsafe { AsyncFd::register_with_interest(pipe, interest)? })
}

/// The writer task: copies buffers to shared memory, and writes the queue whenever the pipe has room. While there is nothing
/// to write, it gives the pipe its usual size, and idle memory back to the system. Ends when the outbox is closed.
pub(super) async fn write<B, S>(worker: Arc<Worker<B, S>>, pipe: AsyncFd<Arc<OwnedFd>>)
where
    B: AsRef<[u8]> + Send + 'static,
    S: Sink,
{
    let _guard = worker.panic_guard();
    let memory = worker.shared.as_ref();
    let mut size = PipeSize::default();
    loop {
        size.restore(pipe.get_ref());
        tokio::select! {
            () = worker.queued.notified() => {}
            () = tokio::time::sleep(pipe_size::AGAIN), if size.is_large() => continue,
            () = tokio::time::sleep(shared::IDLE), if memory.is_some_and(SharedMemory::has_slack) => {
                if let Some(memory) = memory {
                    memory.sweep().await;
                }
                continue;
            }
        }
        loop {
            // The wake-up may be for the end, or for a frame that has been written since. With nothing to write, this task
            // must not wait for the pipe: the runtime reports only a change of its readiness, which may never come.
            let unplaced = {
                let mut outbox = worker.outbox();
                if outbox.is_closed() {
                    return;
                }
                if outbox.is_empty() {
                    break;
                }
                outbox.next_unplaced()
            };
            if let (Some(mut frame), Some(memory)) = (unplaced, memory) {
                let length = frame.len();
                let in_slots = memory.place(&mut frame).await;
                worker.outbox().placed(frame, length, in_slots);
            }
            size.prepare(pipe.get_ref(), worker.outbox().queued());
            let mut ready = tokio::select! {
                biased;
                ready = pipe.writable() => match ready {
                    Ok(ready) => ready,
                    Err(_runtime_is_gone) => return,
                },
                // More has been queued, which changes nothing, or the outbox is closed.
                () = worker.queued.notified() => {
                    if worker.outbox().is_closed() {
                        return;
                    }
                    continue;
                }
            };
            let (flushed, spent) = {
                let mut outbox = worker.outbox();
                if outbox.is_closed() {
                    return;
                }
                let before = outbox.queued();
                let flushed = outbox.flush();
                // A writable pipe has room for at least a page, so this one is full.
                if outbox.queued() == before {
                    ready.clear_ready();
                }
                (flushed, outbox.take_spent())
            };
            drop(spent);
            match flushed {
                Ok(true) => worker.sink.writable(),
                Ok(false) => {}
                Err(_broken) => return worker.close(),
            }
        }
    }
}

/// Relays one output stream to the sink, and returns its last [`TAIL`] bytes.
pub(super) async fn relay<B, S>(
    worker: Arc<Worker<B, S>>,
    stream: Stream,
    source: Source,
    mut phase: watch::Receiver<Phase>,
) -> Vec<u8>
where
    B: AsRef<[u8]> + Send + 'static,
    S: Sink,
{
    let _guard = worker.panic_guard();
    let mut buffer = vec![0; CHUNK];
    let mut tail = VecDeque::with_capacity(TAIL);
    while let Ok(read) = source.read(&mut buffer, &mut phase).await {
        if read == 0 {
            break;
        }
        let chunk = buffer.get(..read).unwrap_or_default();
        let fresh = chunk.get(read.saturating_sub(TAIL)..).unwrap_or_default();
        tail.drain(..(tail.len() + fresh.len()).saturating_sub(TAIL));
        tail.extend(fresh);
        worker.sink.output(stream, chunk).await;
    }
    tail.into()
}

#[cfg(test)]
mod tests {
    use super::super::{Command, End, Sink};
    use super::*;
    use crate::frame::{Frame, Header, Kind};
    use crate::handshake::Ready;
    use crate::outbox::{Outbox, Submitted};
    use std::future::Future;
    use std::sync::Mutex;
    use std::sync::atomic::AtomicI32;
    use std::time::Duration;
    use tokio::sync::{Notify, mpsc};

    struct Nobody;

    impl Sink for Nobody {
        type Body = Vec<u8>;
        fn started(&self, _pid: i32) {}
        fn ready(&self, _ready: Ready) {}
        fn frame(&self, _header: Header, _body: Vec<u8>) -> Result<(), String> {
            Ok(())
        }
        async fn print(&self, _request: u64, _body: Vec<u8>) {}
        async fn log(&self, _event: Vec<u8>) {}
        fn writable(&self) {}
        fn waiting(&self) -> usize {
            0
        }
        async fn output(&self, _stream: Stream, _chunk: &[u8]) {}
        fn ended(&self, _end: End) {}
    }

    fn worker(pipe: &Arc<OwnedFd>) -> Arc<Worker<Vec<u8>, Nobody>> {
        let (commands, _receiver) = mpsc::unbounded_channel::<Command>();
        Arc::new(Worker {
            outbox: Mutex::new(Outbox::new(Arc::clone(pipe), 1024, 4096)),
            queued: Notify::new(),
            interrupts: None,
            shared: None,
            commands,
            pid: AtomicI32::new(0),
            link: std::sync::Weak::new(),
            sink: Nobody,
        })
    }

    /// A non-blocking pipe, whose read end is kept open.
    fn pipe() -> (OwnedFd, Arc<OwnedFd>) {
        let (reader, writer) = nix::unistd::pipe().unwrap();
        nix::fcntl::fcntl(&writer, nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK)).unwrap();
        (reader, Arc::new(writer))
    }

    fn in_runtime(test: impl Future<Output = ()>) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test);
    }

    /// Lets the writer do what it can.
    async fn settle() {
        for _ in 0..10 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    #[test]
    fn the_writer_ends_when_the_outbox_is_closed_though_it_was_woken_for_nothing_before() {
        in_runtime(async {
            let (_reader, pipe) = pipe();
            let worker = worker(&pipe);
            let writable = register(pipe, Interest::WRITABLE).unwrap();
            let writer = tokio::spawn(write(Arc::clone(&worker), writable));
            settle().await;
            // What was queued had been written before the writer took notice.
            worker.queued.notify_one();
            settle().await;
            worker.close();
            tokio::time::timeout(Duration::from_secs(60), writer).await.unwrap().unwrap();
        });
    }

    #[test]
    fn the_writer_ends_when_the_outbox_is_closed_while_the_pipe_is_full() {
        in_runtime(async {
            let (_reader, pipe) = pipe();
            let worker = worker(&pipe);
            let writable = register(pipe, Interest::WRITABLE).unwrap();
            let writer = tokio::spawn(write(Arc::clone(&worker), writable));
            let frame = Frame::new(Header::new(Kind::Eval, 1), &vec![0; 8 * 1024 * 1024]);
            assert_eq!(worker.submit(frame), Submitted::Queued);
            settle().await;
            worker.close();
            tokio::time::timeout(Duration::from_secs(60), writer).await.unwrap().unwrap();
        });
    }
}
