//! The socket between the VM and a warden.
//!
//! It is a Unix stream socket, which the warden gets as its standard input. A message is a `u32` length (little-endian) and a
//! [postcard](https://docs.rs/postcard) value. Messages that ask for a new Python carry descriptors for its ends of the
//! pipes (`SCM_RIGHTS`). The socket is also the lifeline: end of file, whatever its cause, tells the warden that the VM is
//! gone, and the VM that the warden is gone.
//!
//! A warden may supervise several trees: that of the program that it started, and those of the program's copies. Every message
//! except the first names its tree.

use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// The grace between SIGTERM and SIGKILL when nobody has asked for another one, for example because the VM is gone.
pub const ORPHAN_GRACE: Duration = Duration::from_millis(500);

/// The longest message, with room for any environment that `exec` accepts.
const MAX_MESSAGE: usize = 64 * 1024 * 1024;

/// The most descriptors that one message carries.
const MAX_DESCRIPTORS: usize = 9;

/// What to run, and how. Strings are bytes, because paths and variables need not be UTF-8.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    /// The program, an absolute path.
    pub program: Vec<u8>,
    /// Its arguments, without the program.
    pub args: Vec<Vec<u8>>,
    /// The whole environment. No variable is inherited.
    pub env: Vec<(Vec<u8>, Vec<u8>)>,
    /// The working directory; `None` for the VM's.
    pub cwd: Option<Vec<u8>>,
    /// The program's number for each descriptor that the message carries.
    pub descriptors: Vec<RawFd>,
    /// The resource limits of the program.
    pub limits: Limits,
    /// The program's descriptor of a socket over which the warden asks it to fork; `None` if it needs no such socket.
    pub forks: Option<RawFd>,
}

/// The number of a tree. A warden never has two trees with the same number.
pub type Tree = u64;

/// The tree of the program that the warden starts. The VM numbers the trees of its copies.
pub const PROGRAM: Tree = 0;

/// The resource limits of each process of a tree; `None` leaves the VM's own limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Address space, in bytes (`RLIMIT_AS`, setrlimit(2)).
    pub memory: Option<u64>,
    /// Processor time, in seconds (`RLIMIT_CPU`): SIGXCPU, and SIGKILL a second later.
    pub cpu: Option<u64>,
    /// Open files (`RLIMIT_NOFILE`).
    pub open_files: Option<u64>,
    /// Niceness to add, from -20 to 19 (nice(2)).
    pub nice: Option<i32>,
}

/// From the VM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToWarden {
    /// Start the program. This is the first message, and is sent only once.
    Start(Spec),
    /// Have the program fork a copy of itself, which gets the descriptors that the message carries.
    Fork {
        /// The new tree.
        tree: Tree,
        /// Whether to fork even if the program has threads, which the copy will lack.
        ignore_threads: bool,
    },
    /// End a tree: SIGTERM to every process, and SIGKILL after the grace. Another one with a shorter grace speeds it up.
    Stop {
        /// The tree.
        tree: Tree,
        /// The grace in milliseconds.
        grace_ms: u64,
    },
    /// Send SIGURG to the leader of a tree, if it still runs. Programs without a handler ignore it.
    Interrupt {
        /// The tree.
        tree: Tree,
    },
}

/// From the warden, for each tree in this order: `Started`, `Exited`, `Gone`. `Failed` is the last report about its tree. End
/// of file follows when all trees are gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromWarden {
    /// The leader of a tree runs.
    Started {
        /// The tree.
        tree: Tree,
        /// The leader's process id, which is also the id of its session and process group.
        pid: i32,
    },
    /// There is no such tree, because the program could not be started (then the warden ends), or did not fork.
    Failed {
        /// The tree.
        tree: Tree,
        /// What failed, as a text for people.
        reason: String,
    },
    /// The leader has exited. The warden is ending the rest of the tree.
    Exited {
        /// The tree.
        tree: Tree,
        /// How the leader exited.
        exit: Exit,
    },
    /// No process of the tree is left, and all have been reaped. The warden ends after its last tree.
    Gone {
        /// The tree.
        tree: Tree,
    },
}

impl FromWarden {
    /// The tree that this is about.
    pub fn tree(&self) -> Tree {
        match self {
            FromWarden::Started { tree, .. }
            | FromWarden::Failed { tree, .. }
            | FromWarden::Exited { tree, .. }
            | FromWarden::Gone { tree } => *tree,
        }
    }
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Exit {
    /// It exited with this status.
    Status(i32),
    /// This signal ended it.
    Signal(i32),
}

impl Exit {
    /// The exit status as a shell reports it: 128 and the signal's number for a signal.
    ///
    /// ```
    /// use snex_core::control::Exit;
    /// assert_eq!(Exit::Signal(9).shell_status(), 137);
    /// ```
    pub fn shell_status(self) -> i32 {
        match self {
            Exit::Status(status) => status,
            Exit::Signal(signal) => 128 + signal,
        }
    }

    /// The name of the signal that ended the process, such as `"SIGKILL"`; `None` if it exited. Real-time signals are numbered
    /// from the first one that programs may use, as `kill -l` does.
    ///
    /// ```
    /// use snex_core::control::Exit;
    /// assert_eq!(Exit::Signal(9).signal_name().as_deref(), Some("SIGKILL"));
    /// ```
    pub fn signal_name(self) -> Option<String> {
        let Exit::Signal(number) = self else { return None };
        Some(match nix::sys::signal::Signal::try_from(number) {
            Ok(signal) => signal.as_str().into(),
            Err(_) => other_signal_name(number),
        })
    }
}

#[cfg(target_os = "linux")]
fn other_signal_name(number: i32) -> String {
    match number - libc::SIGRTMIN() {
        0 => format!("signal {number} (SIGRTMIN)"),
        offset if offset > 0 => format!("signal {number} (SIGRTMIN+{offset})"),
        // The C library reserves the first real-time signals for itself.
        _ => format!("signal {number}"),
    }
}

#[cfg(not(target_os = "linux"))]
fn other_signal_name(number: i32) -> String {
    format!("signal {number}")
}

/// Encodes a message, with its length in front.
///
/// # Errors
/// If postcard cannot write it. That does not happen with the messages of this module.
pub fn encode(message: &impl Serialize) -> io::Result<Vec<u8>> {
    let body = postcard::to_stdvec(message).map_err(io::Error::other)?;
    let mut bytes = (body.len() as u32).to_le_bytes().to_vec();
    bytes.extend_from_slice(&body);
    Ok(bytes)
}

/// Sends a message. Blocks while the socket is full.
///
/// # Errors
/// Those of the socket.
pub fn send(socket: &UnixStream, message: &impl Serialize) -> io::Result<()> {
    let mut writer = socket;
    writer.write_all(&encode(message)?)
}

/// Sends a message that carries descriptors. Blocks while the socket is full. The receiver gets copies; the caller keeps its own.
///
/// # Errors
/// Those of the socket.
pub fn send_with(
    socket: &UnixStream,
    message: &impl Serialize,
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let bytes = encode(message)?;
    let raw: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let sent = sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(&bytes)], &rights, MsgFlags::empty(), None)?;
    let mut writer = socket;
    writer.write_all(bytes.get(sent..).unwrap_or_default())
}

/// Sends a small message, with or without descriptors. Never blocks, and sends the message in one piece, so that several
/// threads may use the socket.
///
/// # Errors
/// Those of the socket. `WouldBlock` means that the socket is full and nothing has been sent.
pub fn send_now(
    socket: BorrowedFd<'_>,
    message: &impl Serialize,
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let bytes = encode(message)?;
    let raw: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let rights = if raw.is_empty() { &[] } else { &rights[..] };
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
    // The kernel accepts a message this small completely or not at all.
    sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(&bytes)], rights, flags, None)?;
    Ok(())
}

/// Receives a message and its descriptors, which the caller owns from here on. Blocks until the message is complete. Returns
/// `None` at end of file.
///
/// # Errors
/// Those of the socket, `UnexpectedEof` for end of file inside a message, and `InvalidData` for a message that is not a `T`.
pub fn receive<T: DeserializeOwned>(socket: &UnixStream) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    let mut length = [0; 4];
    let mut space = nix::cmsg_space!([RawFd; MAX_DESCRIPTORS]);
    let mut slices = [IoSliceMut::new(&mut length)];
    let message = recvmsg::<()>(socket.as_raw_fd(), &mut slices, Some(&mut space), MsgFlags::MSG_WAITALL)?;
    let read = message.bytes;
    let mut descriptors = Vec::new();
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(raw) = control {
            // SAFETY: the kernel has just installed these descriptors for this message; nobody else knows them.
            descriptors.extend(raw.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
        }
    }
    if read == 0 {
        return Ok(None);
    }
    if read < length.len() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(Some((receive_body(socket, length)?, descriptors)))
}

fn receive_body<T: DeserializeOwned>(mut socket: &UnixStream, length: [u8; 4]) -> io::Result<T> {
    let mut body = vec![0; body_length(length)?];
    socket.read_exact(&mut body)?;
    decode(&body)
}

/// Reads the length of a message's body from the four bytes before it.
///
/// # Errors
/// `InvalidData` if it is longer than any message.
pub fn body_length(bytes: [u8; 4]) -> io::Result<usize> {
    let length = u32::from_le_bytes(bytes) as usize;
    if length > MAX_MESSAGE {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "message too long"));
    }
    Ok(length)
}

/// Decodes the body of a message.
///
/// # Errors
/// `InvalidData` if it is not a `T`.
pub fn decode<T: DeserializeOwned>(body: &[u8]) -> io::Result<T> {
    postcard::from_bytes(body).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    fn spec() -> Spec {
        Spec {
            program: b"/bin/\xff".to_vec(),
            args: vec![b"-m".to_vec(), b"snex".to_vec()],
            env: vec![(b"KEY".to_vec(), vec![b'v'; 500_000])],
            cwd: None,
            descriptors: vec![3],
            limits: Limits::default(),
            forks: Some(9),
        }
    }

    #[test]
    fn a_message_carries_descriptors_and_a_large_environment() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (mut reader, writer) = io::pipe().unwrap();
        let sender = std::thread::spawn(move || {
            send_with(&ours, &ToWarden::Start(spec()), &[writer.as_fd()]).unwrap();
        });
        let (message, descriptors) = receive::<ToWarden>(&theirs).unwrap().unwrap();
        sender.join().unwrap();
        assert_eq!(message, ToWarden::Start(spec()));
        let [writer] = <[OwnedFd; 1]>::try_from(descriptors).unwrap();
        std::fs::File::from(writer).write_all(b"through").unwrap();
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "through");
    }

    #[test]
    fn messages_arrive_in_order_until_end_of_file() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let messages = [
            FromWarden::Started { tree: 3, pid: 7 },
            FromWarden::Exited { tree: 3, exit: Exit::Signal(15) },
            FromWarden::Gone { tree: 3 },
        ];
        for message in &messages {
            send(&ours, message).unwrap();
        }
        drop(ours);
        for message in messages {
            assert_eq!(receive::<FromWarden>(&theirs).unwrap().unwrap().0, message);
        }
        assert!(receive::<FromWarden>(&theirs).unwrap().is_none());
    }

    #[test]
    fn a_lying_length_is_refused_without_taking_memory() {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        ours.write_all(&u32::MAX.to_le_bytes()).unwrap();
        assert_eq!(receive::<ToWarden>(&theirs).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn a_signal_is_reported_by_name_and_as_a_shell_would() {
        assert_eq!(Exit::Signal(11).signal_name().as_deref(), Some("SIGSEGV"));
        assert_eq!(Exit::Signal(11).shell_status(), 139);
        assert_eq!(Exit::Status(3).signal_name(), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_real_time_signal_has_its_number_and_its_place_among_them() {
        let first = libc::SIGRTMIN();
        let name = |number| Exit::Signal(number).signal_name();
        assert_eq!(name(first), Some(format!("signal {first} (SIGRTMIN)")));
        assert_eq!(name(first + 6), Some(format!("signal {} (SIGRTMIN+6)", first + 6)));
        assert_eq!(name(32).as_deref(), Some("signal 32"));
        assert_eq!(Exit::Signal(40).shell_status(), 168);
    }
}
