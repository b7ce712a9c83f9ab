//! The socket over which the warden asks the program to fork copies of itself.
//!
//! A socket pair that preserves message boundaries (`SOCK_SEQPACKET`); the program has the other end. Numbers are
//! little-endian.
//!
//! To the program: the number of the new tree (`u64`), the pid of the warden (`i32`), and a byte, which is 1 if the
//! program may fork although it has threads. The message carries the descriptors of the copy, which then belong to
//! the program.
//!
//! From the program: the number of the tree, and the pid of the copy (`i32`); or 0 in place of the pid, and a
//! sentence that says why the program has not forked. An intermediate process forks the copy, sends the answer, and
//! only then ends. So a copy is announced before it becomes a child of the warden.

use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, recv, sendmsg, socketpair,
};
use snex_core::control::Tree;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

/// The longest answer. A longer sentence is truncated.
const LONGEST: usize = 4096;

/// The answer of the program.
pub enum Answer {
    /// The pid of the copy.
    Forked(i32),
    /// The program has not forked; a sentence says why.
    Refused(String),
}

/// The warden's end of the socket.
pub struct Template(OwnedFd);

impl Template {
    /// Makes the socket pair. The second end is for the program.
    pub fn new() -> io::Result<(Self, OwnedFd)> {
        let (ours, theirs) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
        Ok((Template(ours), theirs))
    }

    /// Asks for a copy, without waiting for it. `descriptors` are those of the copy.
    ///
    /// # Errors
    /// A sentence that says why the program cannot be asked.
    pub fn ask(&self, tree: Tree, ignore_threads: bool, descriptors: &[OwnedFd]) -> Result<(), &'static str> {
        let mut message = tree.to_le_bytes().to_vec();
        message.extend(std::process::id().to_le_bytes());
        message.push(ignore_threads.into());
        let raw: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        let rights = [ControlMessage::ScmRights(&raw)];
        match sendmsg::<()>(self.0.as_raw_fd(), &[IoSlice::new(&message)], &rights, flags, None) {
            Ok(_) => Ok(()),
            Err(nix::errno::Errno::EAGAIN) => {
                Err("the template does not fork those copies that it has been asked for before")
            }
            Err(_) => Err("the template has ended"),
        }
    }

    /// The next answer, if one has arrived. Invalid messages are skipped.
    pub fn answer(&self) -> Option<(Tree, Answer)> {
        loop {
            let mut buffer = [0; LONGEST];
            let read = recv(self.0.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT).ok()?;
            if read == 0 {
                // All processes that had the other end are gone.
                return None;
            }
            if let Some(answer) = parse(buffer.get(..read)?) {
                return Some(answer);
            }
        }
    }
}

fn parse(message: &[u8]) -> Option<(Tree, Answer)> {
    let (tree, rest) = message.split_first_chunk()?;
    let (pid, reason) = rest.split_first_chunk()?;
    let answer = match i32::from_le_bytes(*pid) {
        0 => Answer::Refused(String::from_utf8_lossy(reason).into_owned()),
        pid => Answer::Forked(pid),
    };
    Some((Tree::from_le_bytes(*tree), answer))
}

impl AsFd for Template {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
