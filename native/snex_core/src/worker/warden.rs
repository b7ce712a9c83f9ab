//! The warden as a process of the operating system: a child of this one.

use super::launch;
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;
use tokio::runtime::Handle;

/// The longest pause between two looks whether the warden has ended.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// How long a new warden may take to read what it is to start.
const LISTENING_TIME: Duration = Duration::from_secs(30);

/// A warden that has been started. When this is dropped, as is our end of the socket, the warden ends; it is then waited for.
///
/// The VM ignores SIGCHLD, so that the kernel waits for children by itself; but an application may have changed that, and
/// then nobody else waits for this one. No other child of the VM is touched.
pub(super) struct Warden {
    pid: Pid,
    runtime: Handle,
}

impl Warden {
    /// Starts a warden, with our socket to it as its standard input. The standard library uses `posix_spawn` as long as
    /// nothing has to run between fork and exec, so the cost does not grow with the memory of this process. Whether the
    /// calling thread lives on does not matter: the warden watches the socket, not its parent.
    pub(super) fn spawn(runtime: &Handle, program: &Path) -> io::Result<(Self, UnixStream)> {
        // For anything else the standard library forks, and waits for a child that cannot run it: which fails in the VM,
        // where children are not waited for.
        if !program.is_absolute() {
            let reason = format!("the warden's path should be absolute, got {program:?}");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, reason));
        }
        let (ours, theirs) = UnixStream::pair()?;
        ours.set_write_timeout(Some(LISTENING_TIME))?;
        let mut command = Command::new(program);
        // Without the VM's variables: they are none of its business, and one may be the mark of a tree that the VM is part of.
        command.env_clear().stdin(Stdio::from(OwnedFd::from(theirs))).stdout(Stdio::null());
        let child = command.spawn().map_err(|error| {
            let reason = launch::explain(error);
            io::Error::new(reason.kind(), format!("cannot start the warden {}: {reason}", program.display()))
        })?;
        Ok((Warden { pid: Pid::from_raw(child.id() as i32), runtime: runtime.clone() }, ours))
    }

    /// Kills a warden whose end of the socket is still open: until it is closed, its number is nobody else's. Also ends one
    /// that has been stopped by a signal.
    pub(super) fn kill(&self) {
        // An error means that it has just ended.
        let _ = kill(self.pid, Signal::SIGKILL);
    }
}

impl Drop for Warden {
    fn drop(&mut self) {
        self.runtime.spawn(wait_for(self.pid));
    }
}

/// Waits without blocking a thread. An error means that the kernel has waited for it already.
async fn wait_for(pid: Pid) {
    let mut pause = Duration::from_millis(1);
    while matches!(waitpid(pid, Some(WaitPidFlag::WNOHANG)), Ok(WaitStatus::StillAlive) | Err(Errno::EINTR)) {
        tokio::time::sleep(pause).await;
        pause = LONGEST_PAUSE.min(pause * 2);
    }
}
