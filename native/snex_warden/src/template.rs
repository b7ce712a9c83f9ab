//! The socket over which the program is asked to fork copies of itself.
//!
//! A pair of sockets that keep messages apart (`SOCK_SEQPACKET`); the program has the other end. Numbers are little-endian.
//!
//! To the program: the number of the new tree (`u64`), this process (`i32`), and a byte that is 1 where threads are no reason
//! to refuse. The descriptors of the copy come with it, and belong to the program from then on.
//!
//! Back: the number of the tree, and the process id of the copy (`i32`). Or 0, and a sentence that says why there is none. The
//! process that forked the copy sends it, and ends only then: so a copy is announced before it becomes a child of the warden.

use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, recv, sendmsg, socketpair,
};
use snex_core::control::Tree;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

/// The longest answer that is read; of a longer sentence, the beginning.
const LONGEST: usize = 4096;

/// What the program answers.
pub enum Answer {
    /// It has forked, and the copy is this process.
    Forked(i32),
    /// It has not.
    Refused(String),
}

/// Our end of the socket.
pub struct Template(OwnedFd);

impl Template {
    /// Makes the socket. The other end is the program's.
    pub fn new() -> io::Result<(Self, OwnedFd)> {
        let (ours, theirs) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
        Ok((Template(ours), theirs))
    }

    /// Asks for a copy, without waiting. `descriptors` are closed here.
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

    /// The next answer that has come; `None` while there is none. What is no answer is passed over.
    pub fn answer(&self) -> Option<(Tree, Answer)> {
        loop {
            let mut buffer = [0; LONGEST];
            let read = recv(self.0.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT).ok()?;
            if read == 0 {
                // The program and all who have its end are gone.
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
