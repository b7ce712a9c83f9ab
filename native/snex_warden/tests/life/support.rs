//! A worker to look at, and ways to wait for what it does.

use snex_core::control::{Limits, Spec};
use snex_core::frame::{Header, Kind};
use snex_core::handshake::{Blob, Hello, Ready};
use snex_core::worker::{End, Settings, Sink, Stream, Transport, Worker};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

pub const LIMIT: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub enum Event {
    Started(i32),
    Ready(Ready),
    Frame(Header, Vec<u8>),
    Print(u64, Vec<u8>),
    Writable,
    Output(Stream, Vec<u8>),
    Ended(End),
}

/// Passes on what it is told, but for one thing: there it panics, as a bug of ours would make it.
pub struct Listener(Sender<Event>, Option<Bug>);

#[derive(PartialEq)]
pub enum Bug {
    Start,
    Frame,
    Print,
    Output,
    Writable,
    /// No panic: output is never taken.
    Stall,
}

impl Listener {
    fn panic_at(&self, place: Bug) {
        assert!(self.1 != Some(place), "a bug of ours");
    }
}

impl Sink for Listener {
    type Body = Vec<u8>;

    fn started(&self, pid: i32) {
        self.panic_at(Bug::Start);
        let _ = self.0.send(Event::Started(pid));
    }

    fn ready(&self, ready: Ready) {
        let _ = self.0.send(Event::Ready(ready));
    }

    fn frame(&self, header: Header, body: Vec<u8>) -> Result<(), String> {
        self.panic_at(Bug::Frame);
        if header.id == u64::MAX {
            return Err("a frame that nobody asked for".into());
        }
        let _ = self.0.send(Event::Frame(header, body));
        Ok(())
    }

    async fn print(&self, request: u64, body: Vec<u8>) {
        self.panic_at(Bug::Print);
        let _ = self.0.send(Event::Print(request, body));
    }

    fn waiting(&self) -> usize {
        0
    }
    fn writable(&self) {
        self.panic_at(Bug::Writable);
        let _ = self.0.send(Event::Writable);
    }

    async fn log(&self, _event: Vec<u8>) {}

    async fn output(&self, stream: Stream, chunk: &[u8]) {
        self.panic_at(Bug::Output);
        if self.1 == Some(Bug::Stall) {
            std::future::pending::<()>().await;
        }
        let _ = self.0.send(Event::Output(stream, chunk.to_vec()));
    }

    fn ended(&self, end: End) {
        let _ = self.0.send(Event::Ended(end));
    }
}

/// A worker that runs a shell script, and what it tells.
pub struct Running {
    pub worker: Arc<Worker<Vec<u8>, Listener>>,
    events: Receiver<Event>,
    started: Instant,
    _runtime: Runtime,
}

impl Running {
    pub fn script(script: &str) -> Self {
        Self::program("/bin/sh", &["-c", script], Transport::Pipes)
    }

    pub fn program(program: &str, args: &[&str], transport: Transport) -> Self {
        Self::limited(program, args, transport, Limits::default())
    }

    pub fn limited(program: &str, args: &[&str], transport: Transport, limits: Limits) -> Self {
        Self::told(program, args, transport, limits, None)
    }

    pub fn told(
        program: &str,
        args: &[&str],
        transport: Transport,
        limits: Limits,
        bug: Option<Bug>,
    ) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let (sender, events) = channel();
        let settings = Settings {
            warden: env!("CARGO_BIN_EXE_snex_warden").into(),
            spec: Spec {
                program: program.into(),
                args: args.iter().map(|arg| arg.as_bytes().to_vec()).collect(),
                env: vec![("PATH".into(), "/usr/bin:/bin".into()), ("GREETING".into(), "hello".into())],
                cwd: Some("/".into()),
                descriptors: Vec::new(),
                limits,
                forks: None,
            },
            transport,
            hello: Hello {
                protocol: 2,
                version: "test".into(),
                eager: true,
                buffer_limits: (1, 2),
                cleanup_timeout: 3,
                end_on_memory_error: false,
                reply_limit: 1 << 20,
                shared: None,
                forks: None,
                limits: None,
                handover: None,
                map_set: (Blob(Vec::new()), Blob(Vec::new())),
                object: (Blob(Vec::new()), Blob(Vec::new()), Blob(Vec::new())),
                structs: std::collections::BTreeMap::new(),
            },
            marks: (1000, 100_000),
            shared_memory: None,
            handover: None,
        };
        let worker = Worker::start(runtime.handle(), settings, Listener(sender, bug)).unwrap();
        Running { worker, events, started: Instant::now(), _runtime: runtime }
    }

    pub fn next(&self) -> Event {
        self.events.recv_timeout(LIMIT.saturating_sub(self.started.elapsed())).unwrap()
    }

    pub fn pid(&self) -> i32 {
        match self.next() {
            Event::Started(pid) => pid,
            other => panic!("expected the start, got {other:?}"),
        }
    }

    /// Everything printed until the text contains `wanted`.
    pub fn printed(&self, wanted: &str) -> String {
        let mut text = String::new();
        while !text.contains(wanted) {
            if let Event::Output(_, chunk) = self.next() {
                text.push_str(&String::from_utf8_lossy(&chunk));
            }
        }
        text
    }

    pub fn end(&self) -> End {
        loop {
            if let Event::Ended(end) = self.next() {
                return end;
            }
        }
    }
}

pub fn alive(pid: i32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

/// A `READY` frame as `printf` writes it to descriptor 4: octal escapes, since this is `sh`.
pub fn ready_command() -> String {
    let fields = ["python", "implementation", "executable", "version", "encoder"];
    let mut body = vec![131, 116, 0, 0, 0, 6];
    for (key, value) in fields.map(|name| (name, name)) {
        for text in [key, value] {
            body.extend([109, 0, 0, 0, text.len() as u8]);
            body.extend(text.as_bytes());
        }
    }
    body.extend([109, 0, 0, 0, 8]);
    body.extend(b"protocol");
    body.extend([97, snex_core::frame::PROTOCOL as u8]);
    frame_command(0x81, 0, &body)
}

pub fn frame_command(kind: u8, id: u64, body: &[u8]) -> String {
    frame_to(4, kind, id, body)
}

pub fn frame_to(descriptor: u8, kind: u8, id: u64, body: &[u8]) -> String {
    let mut bytes = b"SX".to_vec();
    bytes.extend([kind, 0]);
    bytes.extend(id.to_le_bytes());
    bytes.extend((body.len() as u64).to_le_bytes());
    if ![Kind::Ready as u8, Kind::Refused as u8].contains(&kind) {
        // Nothing has caused it. The first frame has no place to say so.
        bytes.extend([0; 8]);
    }
    bytes.extend(body);
    let octal: String = bytes.iter().map(|byte| format!("\\{byte:03o}")).collect();
    format!("printf '{octal}' >&{descriptor}; ")
}

/// Waits for a process that nobody here can reap: the kernel tells through a pidfd.
pub fn wait_until_gone(pid: i32) {
    // SAFETY: takes plain numbers.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    if fd < 0 {
        return;
    }
    // SAFETY: the kernel has just made this descriptor for us.
    let fd = unsafe { <OwnedFd as std::os::fd::FromRawFd>::from_raw_fd(fd as i32) };
    assert!(is_ready(&fd), "process {pid} lives on");
}

/// Waits until the parent of a process has taken notice of its end.
pub fn wait_until_reaped(pid: i32) {
    let begun = Instant::now();
    while alive(pid) {
        assert!(begun.elapsed() < LIMIT, "process {pid} is not reaped");
        std::thread::yield_now();
    }
}

/// Waits until a descriptor is readable, or at its end.
pub fn is_ready(fd: &impl AsRawFd) -> bool {
    let mut poll = libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one valid entry.
    let ready = unsafe { libc::poll(&mut poll, 1, LIMIT.as_millis() as i32) };
    ready == 1
}
