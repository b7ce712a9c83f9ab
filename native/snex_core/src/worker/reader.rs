//! Frames from Python.

use super::streams::Source;
use super::{Body, Command, Phase, Sink, Worker};
use crate::frame::{self, FrameError, HEADER_LEN, Header, Kind};
use crate::handshake;
use std::io;
use std::sync::Arc;
use tokio::sync::watch;

/// Small frames are parsed out of a buffer of this size, many for one system call.
const BUFFER: usize = 64 * 1024;

/// Memory reserved for a body before any of it has arrived. A length is only the other side's word; what is reserved and not
/// written to costs addresses, and no memory.
const ADVANCE: usize = 64 * 1024 * 1024;

/// Why no more frames come.
enum Stop {
    /// The pipe is closed.
    EndOfFile,
    /// The pipe is closed; how far the last frame came.
    CutShort(String),
    /// What came was not the protocol, or the pipe failed.
    Broken(String),
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Stop::Broken(format!("reading from Python failed: {error}"))
    }
}

impl From<FrameError> for Stop {
    fn from(error: FrameError) -> Self {
        match error {
            FrameError::CutShort { .. } => Stop::CutShort(error.to_string()),
            _ => Stop::Broken(error.to_string()),
        }
    }
}

/// Reads frames for the sink until the pipe ends or something comes that is no frame.
pub(super) async fn read<B, S>(
    worker: Arc<Worker<B, S>>,
    source: Source,
    phase: watch::Receiver<Phase>,
    version: String,
) where
    B: AsRef<[u8]> + Send + 'static,
    S: Sink,
{
    let _alarm = worker.alarm();
    let mut reader = Reader::new(source, phase);
    let stop = match reader.handshake(&worker.sink, &version).await {
        Ok(()) => reader.frames(&worker.sink).await,
        Err(stop) => stop,
    };
    let command = match stop {
        Stop::EndOfFile => Command::EndOfFrames(None),
        Stop::CutShort(reason) => Command::EndOfFrames(Some(reason)),
        Stop::Broken(reason) => Command::Broken(reason),
    };
    // The life task waits for this one: it is there to hear it.
    let _ = worker.commands.send(command);
}

/// Reads the frames of those who print. This pipe may end before the other.
pub(super) async fn read_prints<B, S>(
    worker: Arc<Worker<B, S>>,
    source: Source,
    phase: watch::Receiver<Phase>,
) where
    B: AsRef<[u8]> + Send + 'static,
    S: Sink,
{
    let _alarm = worker.alarm();
    if let Stop::Broken(reason) = Reader::new(source, phase).frames(&worker.sink).await {
        let _ = worker.commands.send(Command::Broken(reason));
    }
}

struct Reader {
    source: Source,
    phase: watch::Receiver<Phase>,
    /// Bytes that have arrived and are not used: `buffer[start..end]`.
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl Reader {
    fn new(source: Source, phase: watch::Receiver<Phase>) -> Self {
        Reader { source, phase, buffer: vec![0; BUFFER], start: 0, end: 0 }
    }

    async fn frames<S: Sink>(&mut self, sink: &S) -> Stop {
        loop {
            match self.frame().await {
                Ok((header, body)) if header.kind == Kind::Print => sink.print(header.id, body).await,
                Ok((header, body)) if header.kind == Kind::Log => sink.log(body).await,
                Ok((header, body)) => {
                    if let Err(reason) = sink.frame(header, body) {
                        return Stop::Broken(reason);
                    }
                }
                Err(stop) => return stop,
            }
        }
    }

    async fn handshake<S: Sink>(&mut self, sink: &S, version: &str) -> Result<(), Stop> {
        let header = self.header().await?;
        if header.length > handshake::LONGEST {
            return Err(Stop::Broken(format!("Python's first frame has {} bytes", header.length)));
        }
        let body: Vec<u8> = self.body(header.length as usize).await?;
        let ready = match header.kind {
            Kind::Ready => handshake::read_ready(&body, version),
            Kind::Refused => Err(handshake::read_refused(&body, version)),
            other => {
                return Err(Stop::Broken(format!("Python's first frame should be READY, got {other:?}")));
            }
        };
        sink.ready(ready.map_err(|error| Stop::Broken(error.to_string()))?);
        Ok(())
    }

    /// The next frame.
    async fn frame<T: Body>(&mut self) -> Result<(Header, T), Stop> {
        let header = self.header().await?;
        let Ok(length) = usize::try_from(header.length) else {
            return Err(Stop::Broken(format!("a frame of {} bytes does not fit into memory", header.length)));
        };
        let body = self.body(length).await?;
        Ok((header, body))
    }

    async fn header(&mut self) -> Result<Header, Stop> {
        loop {
            let pending = self.buffer.get(self.start..self.end).unwrap_or_default();
            if let Some(header) = frame::read_header(pending)? {
                self.start += HEADER_LEN;
                return Ok(header);
            }
            let pending = pending.len();
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, pending);
            let free = self.buffer.get_mut(pending..).unwrap_or_default();
            match self.source.read(free, &mut self.phase).await? {
                0 if pending == 0 => return Err(Stop::EndOfFile),
                0 => {
                    return Err(
                        FrameError::CutShort { got: pending as u64, expected: HEADER_LEN as u64 }.into()
                    );
                }
                read => self.end += read,
            }
        }
    }

    /// A body: what has arrived is copied, the rest is read straight into its place.
    async fn body<T: Body>(&mut self, length: usize) -> Result<T, Stop> {
        let arrived = self.buffer.get(self.start..self.end).unwrap_or_default();
        let arrived = arrived.get(..length).unwrap_or(arrived);
        let mut filled = arrived.len();
        let mut size = length.min(ADVANCE.max(filled));
        let mut body = T::with_length(size);
        if let Some(room) = body.bytes_mut().get_mut(..filled) {
            room.copy_from_slice(arrived);
        }
        self.start += filled;
        self.source.expect(length - filled);
        while filled < length {
            if filled == size {
                size = length.min(size.saturating_mul(2));
                body.resize(size);
            }
            let room = body.bytes_mut().get_mut(filled..).unwrap_or_default();
            match self.source.read(room, &mut self.phase).await? {
                0 => return Err(FrameError::CutShort { got: filled as u64, expected: length as u64 }.into()),
                read => filled += read,
            }
        }
        self.source.expect_no_more();
        Ok(body)
    }
}
