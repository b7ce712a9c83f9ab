//! The warden's connection to the VM. When its other end is closed, the VM is gone.

use snex_core::control::{self, FromWarden, ToWarden};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

/// The warden's standard input.
pub enum Lifeline<'a> {
    /// The socket of a worker, with messages both ways.
    Worker(&'a UnixStream),
    /// The pipe of an Erlang port. Any input is a request to end, and so is the end of input.
    Port(OwnedFd),
}

impl Lifeline<'_> {
    /// Sends a message to a worker. Fails silently if the VM is gone. A port only gets the exit status, at the end.
    pub fn report(&self, message: &FromWarden) {
        if let Lifeline::Worker(socket) = self {
            let _ = control::send(socket, message);
        }
    }

    /// Reads the next message of the VM, with its descriptors, once the lifeline is readable; `None` is a request to
    /// end.
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
