//! The tasks that read frames from Python and pass them to the sink.

use super::frame_reader::{Bytes, FrameReader, ReadError};
use super::inbound::Inbound;
use super::spin::{self, Spin};
use super::streams::Source;
use super::{Command, Phase, Sink, Worker};
use crate::frame::{Kind, SHARED};
use crate::handshake;
use std::io;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::watch;

/// Reads the handshake and then frames, until the pipe ends or Python breaks the protocol.
pub(super) async fn read<B, S>(
    worker: Arc<Worker<B, S>>,
    source: Source,
    phase: watch::Receiver<Phase>,
    version: String,
    limit: u64,
) where
    B: AsRef<[u8]> + Send + 'static,
    S: Sink,
{
    let _guard = worker.panic_guard();
    // Polls only for a single caller; while nobody waits, that one has its answer and may ask again. When several processes
    // wait, callers or feeders of streams, they need the processors themselves, and Python answers them together.
    let spin = Spin::new(spin::time(), || worker.sink.waiting() <= 1);
    let mut reader = FrameReader::new(Pipe { source, phase, spin }, limit);
    let stop = match reader.handshake(&worker, &version).await {
        Ok(()) => reader.frames(&worker).await,
        Err(stop) => stop,
    };
    let command = match stop {
        ReadError::EndOfFile => Command::EndOfFrames(None),
        ReadError::CutShort(reason) => Command::EndOfFrames(Some(reason)),
        ReadError::Broken(reason) => Command::Broken(reason),
    };
    // Cannot fail: the life task, which receives it, ends after this one.
    let _ = worker.commands.send(command);
}

/// Reads the frames with prints. This pipe may end before the other one.
pub(super) async fn read_prints<B, S>(
    worker: Arc<Worker<B, S>>,
    source: Source,
    phase: watch::Receiver<Phase>,
    limit: u64,
) where
    B: AsRef<[u8]> + Send + 'static,
    S: Sink,
{
    let _guard = worker.panic_guard();
    let mut reader = FrameReader::new(Pipe { source, phase, spin: Spin::never() }, limit);
    if let ReadError::Broken(reason) = reader.frames(&worker).await {
        let _ = worker.commands.send(Command::Broken(reason));
    }
}

/// A pipe from Python, and how to wait for it.
struct Pipe<F> {
    source: Source,
    phase: watch::Receiver<Phase>,
    spin: Spin<F>,
}

impl<F: Fn() -> bool + Send> Bytes for Pipe<F> {
    async fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if *self.phase.borrow() == Phase::Running {
            // A spin bypasses tokio's budget, so a pipe that is never empty would starve the other tasks of this thread.
            tokio::task::consume_budget().await;
            if let Some(read) = self.spin.run(|| self.source.look(buffer))? {
                return Ok(read);
            }
        }
        let begin = Instant::now();
        let read = self.source.read(buffer, &mut self.phase).await;
        self.spin.slept(begin.elapsed());
        read
    }

    fn expect(&mut self, more: usize) {
        self.source.expect(more);
    }

    fn expect_no_more(&mut self) {
        self.source.expect_no_more();
    }
}

impl<R: Bytes> FrameReader<R> {
    async fn frames<B, S>(&mut self, worker: &Worker<B, S>) -> ReadError
    where
        B: AsRef<[u8]> + Send + 'static,
        S: Sink,
    {
        loop {
            if let Err(stop) = self.deliver_next(worker).await {
                return stop;
            }
        }
    }

    /// Reads the next frame and delivers it: reports about slots to the worker, all else to the sink.
    async fn deliver_next<B, S>(&mut self, worker: &Worker<B, S>) -> Result<(), ReadError>
    where
        B: AsRef<[u8]> + Send + 'static,
        S: Sink,
    {
        let header = self.header().await?;
        if header.kind == Kind::Slots {
            let (_, reports): (_, Vec<u8>) = self.content(header).await?;
            return worker.slot_reports(&reports).map_err(ReadError::Broken);
        }
        if header.flags & SHARED != 0 && self.inbound.is_none() {
            self.inbound = worker.inbound();
        }
        let (header, body) = self.content(header).await?;
        if let Some(offset) = self.inbound.as_mut().and_then(Inbound::take_copied_slot) {
            worker.give_back_slot(offset);
        }
        match header.kind {
            Kind::Print => worker.sink.print(header.id, body).await,
            Kind::Log => worker.sink.log(body).await,
            _ => worker.sink.frame(header, body).map_err(ReadError::Broken)?,
        }
        Ok(())
    }

    async fn handshake<B, S>(&mut self, worker: &Worker<B, S>, version: &str) -> Result<(), ReadError>
    where
        B: AsRef<[u8]> + Send + 'static,
        S: Sink,
    {
        let header = self.header().await?;
        if header.length > handshake::LONGEST {
            return Err(ReadError::Broken(format!("Python's first frame has {} bytes", header.length)));
        }
        let body: Vec<u8> = self.body(header.length as usize).await?;
        let ready = match header.kind {
            Kind::Ready => handshake::read_ready(&body, version),
            Kind::Refused => Err(handshake::read_refused(&body, version)),
            other => {
                return Err(ReadError::Broken(format!(
                    "Python's first frame should be READY, got {other:?}"
                )));
            }
        };
        let ready = ready.map_err(|error| ReadError::Broken(error.to_string()))?;
        if ready.shared && worker.shared.is_some() {
            worker.outbox().share();
        }
        worker.sink.ready(ready);
        Ok(())
    }
}
