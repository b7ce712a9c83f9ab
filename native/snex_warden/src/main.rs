//! The warden: a small process that stands between the VM and one Python process tree.
//!
//! Nothing inside the VM survives the VM, and nothing inside Python runs while a C call holds the GIL. The warden outlives
//! both just long enough to see that neither leaves anything behind. It has one thread, one socket to the VM (standard
//! input, see [`snex_core::control`]) and one child. Its life:
//!
//! 1. [`shelter`]: leave the VM's session, ignore what is not meant for it, adopt orphans.
//! 2. [`child::spawn`]: start Python with the descriptors that came over the socket.
//! 3. [`watch::Watch`]: wait for Python's end, a stop request, or the end of the VM, and then end the whole tree.

mod child;
mod shelter;
mod tree;
mod watch;

use snex_core::control::{self, FromWarden, ToWarden};
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;

fn main() -> ExitCode {
    // SAFETY: descriptor 0 is ours from the start of the process, and nothing else here uses it.
    let socket = UnixStream::from(unsafe { OwnedFd::from_raw_fd(0) });
    match run(&socket) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The VM may be gone, and then nobody is left to tell.
            let _ = control::send(&socket, &FromWarden::Failed { reason: error.to_string() });
            ExitCode::FAILURE
        }
    }
}

fn run(socket: &UnixStream) -> io::Result<()> {
    let children = shelter::enter()?;
    let (message, descriptors) = control::receive_with(socket)?;
    let ToWarden::Start(spec) = message else {
        return Err(io::Error::other("the first message has to be a start"));
    };
    let pid = child::spawn(&spec, descriptors)?;
    // An error here means that the VM is gone: the watch notices that by itself, and ends the tree.
    let _ = control::send(socket, &FromWarden::Started { pid: pid.as_raw() });
    watch::Watch::new(socket, children, pid).run()
}
