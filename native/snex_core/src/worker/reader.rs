//! Frames from Python.

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

/// Reads frames for the sink until the pipe ends or something comes that is no frame.
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
    let _alarm = worker.alarm();
    // Several processes need the processors for themselves, callers as much as those that make items for Python, and Python answers them
    // together. A single caller has been answered just now, and has not asked again.
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
    // The life task waits for this one: it is there to hear it.
    let _ = worker.commands.send(command);
}

/// Reads the frames of those who print. This pipe may end before the other.
pub(super) async fn read_prints<B, S>(
    worker: Arc<Worker<B, S>>,
    source: Source,
    phase: watch::Receiver<Phase>,
    limit: u64,
) where
    B: AsRef<[u8]> + Send + 'static,
    S: Sink,
{
    let _alarm = worker.alarm();
    let mut reader = FrameReader::new(Pipe { source, phase, spin: Spin::never() }, limit);
    if let ReadError::Broken(reason) = reader.frames(&worker).await {
        let _ = worker.commands.send(Command::Broken(reason));
    }
}

/// A pipe from Python, which is at its end also when the tree is gone.
struct Pipe<F> {
    source: Source,
    phase: watch::Receiver<Phase>,
    spin: Spin<F>,
}

impl<F: Fn() -> bool + Send> Bytes for Pipe<F> {
    async fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if *self.phase.borrow() == Phase::Running {
            // As a wait for the runtime would: a pipe that is never empty must not keep other tasks from this thread.
            tokio::task::consume_budget().await;
            if let Some(read) = self.spin.poll(|| self.source.look(buffer))? {
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
            if let Err(stop) = self.pass_on(worker).await {
                return stop;
            }
        }
    }

    /// Hands the next frame to whom it concerns.
    async fn pass_on<B, S>(&mut self, worker: &Worker<B, S>) -> Result<(), ReadError>
    where
        B: AsRef<[u8]> + Send + 'static,
        S: Sink,
    {
        let header = self.header().await?;
        if header.kind == Kind::Slots {
            let (_, reports): (_, Vec<u8>) = self.content(header).await?;
            return worker.slots(&reports).map_err(ReadError::Broken);
        }
        if header.flags & SHARED != 0 && self.inbound.is_none() {
            self.inbound = worker.inbound();
        }
        let (header, body) = self.content(header).await?;
        if let Some(offset) = self.inbound.as_mut().and_then(Inbound::take_read) {
            worker.give_back(offset);
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
