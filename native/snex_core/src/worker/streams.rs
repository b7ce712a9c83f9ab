//! Bytes in and out of pipes: reading without blocking, the writer task, and the tasks that relay what Python prints.

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

/// The most bytes of output that are relayed at a time.
const CHUNK: usize = 32 * 1024;

/// How much of standard error is kept for the report of a crash.
const TAIL: usize = 4 * 1024;

/// The read end of a pipe.
pub(super) struct Source {
    pipe: AsyncFd<OwnedFd>,
    size: PipeSize,
}

impl Source {
    /// Must be called inside the runtime. `pipe` is non-blocking.
    pub(super) fn new(pipe: OwnedFd) -> io::Result<Self> {
        Ok(Source { pipe: register(pipe, Interest::READABLE)?, size: PipeSize::default() })
    }

    /// So many bytes are going to be read, as far as one can tell.
    pub(super) fn expect(&mut self, bytes: usize) {
        self.size.prepare(self.pipe.get_ref(), bytes);
    }

    /// They have been read.
    pub(super) fn expect_no_more(&mut self) {
        self.size.restore(self.pipe.get_ref());
    }

    /// Reads into `buffer` if there is anything, without waiting.
    pub(super) fn look(&self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        match nix::unistd::read(self.pipe.get_ref(), buffer) {
            Ok(read) => Ok(Some(read)),
            Err(Errno::EAGAIN | Errno::EINTR) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Reads into `buffer`; 0 at end of file. Once the whole tree is gone, an empty pipe is at its end too: whoever may still
    /// hold the other end has left the tree.
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
                    // An error means that the life task, which outlives this one, is gone: then so is the runtime.
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
                    // A short read has emptied the pipe: the next readiness will be news.
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

/// Registers a descriptor with the runtime that this is called in.
pub(super) fn register<T: AsRawFd + AsFd>(pipe: T, interest: Interest) -> io::Result<AsyncFd<T>> {
    // SAFETY: `pipe` owns its descriptor or shares it through an `Arc`, never gives it up while it lives, and always names
    // the same one.
    Ok(unsafe { AsyncFd::register_with_interest(pipe, interest)? })
}

/// Writes what is queued whenever the pipe takes more. Ends when the outbox is closed.
pub(super) async fn write<B, S>(worker: Arc<Worker<B, S>>, pipe: AsyncFd<Arc<OwnedFd>>)
where
    B: AsRef<[u8]> + Send + 'static,
    S: Sink,
{
    let _alarm = worker.alarm();
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
            // Woken for the end, or for what has been written since. Without anything to write, nothing is learned about
            // the pipe, and it may have no news for ever.
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
                // More to write, which changes nothing, or the outbox is closed.
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
                // The pipe takes at least a page when it is writable at all.
                if outbox.queued() == before {
                    ready.clear_ready();
                }
                (flushed, outbox.spent())
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

/// Relays one output stream, and returns the last of it.
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
    let _alarm = worker.alarm();
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
        let (commands, _orders) = mpsc::unbounded_channel::<Command>();
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
