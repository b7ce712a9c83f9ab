//! What connects the warden to the VM: when its other end is closed, the VM is gone.

use snex_core::control::{self, FromWarden, ToWarden};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

/// The descriptor that the warden has as its standard input.
pub enum Lifeline<'a> {
    /// The socket of a worker, with messages both ways.
    Worker(&'a UnixStream),
    /// The pipe of an Erlang port. Whatever comes over it is a request to end, as is its end.
    Port(OwnedFd),
}

impl Lifeline<'_> {
    /// Tells the VM. One that is gone needs no telling, and one with a port hears of the end only.
    pub fn report(&self, message: &FromWarden) {
        if let Lifeline::Worker(socket) = self {
            let _ = control::send(socket, message);
        }
    }

    /// What the VM wants, and the descriptors for that, when the lifeline is readable: `None` for the end.
    ///
    /// # Errors
    /// Those of the socket.
    pub fn order(&self) -> io::Result<Option<(ToWarden, Vec<OwnedFd>)>> {
        match self {
            Lifeline::Worker(socket) => control::receive(socket),
            Lifeline::Port(_) => Ok(None),
        }
    }
}

impl AsFd for Lifeline<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Lifeline::Worker(socket) => socket.as_fd(),
            Lifeline::Port(pipe) => pipe.as_fd(),
        }
    }
}
