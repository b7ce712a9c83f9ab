//! The warden as an operating system process, a child of the VM.

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

/// The longest pause between two calls of `waitpid`.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// How long a new warden may take to read its first message.
const LISTENING_TIME: Duration = Duration::from_secs(30);

/// A warden that has been started. It ends when our end of the socket is closed. Dropping this reaps it.
///
/// The VM usually ignores SIGCHLD, so that the kernel reaps children by itself. If an application has changed that, nobody
/// else reaps the warden. No other child of the VM is waited for.
pub(super) struct Warden {
    pid: Pid,
    runtime: Handle,
}

impl Warden {
    /// Starts a warden, and returns our end of the socket; the warden gets the other end as its standard input.
    ///
    /// The standard library uses `posix_spawn`, because nothing has to run between fork and exec. So the cost does not depend
    /// on the memory of this process. The calling thread may end: the warden watches the socket, not its parent.
    pub(super) fn spawn(runtime: &Handle, program: &Path) -> io::Result<(Self, UnixStream)> {
        // For a relative path the standard library forks, and reaps the child itself if exec fails. In the VM that fails,
        // because the kernel has reaped the child already.
        if !program.is_absolute() {
            let reason = format!("the warden's path should be absolute, got {program:?}");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, reason));
        }
        let (ours, theirs) = UnixStream::pair()?;
        ours.set_write_timeout(Some(LISTENING_TIME))?;
        let mut command = Command::new(program);
        // The warden needs none of the VM's variables, and one may be the mark of a tree that the VM belongs to.
        command.env_clear().stdin(Stdio::from(OwnedFd::from(theirs))).stdout(Stdio::null());
        let child = command.spawn().map_err(|error| {
            let reason = launch::explain(error);
            io::Error::new(reason.kind(), format!("cannot start the warden {}: {reason}", program.display()))
        })?;
        Ok((Warden { pid: Pid::from_raw(child.id() as i32), runtime: runtime.clone() }, ours))
    }

    /// Kills the warden, even if a signal has stopped it. Only while its end of the socket is open: until then, its process id
    /// cannot belong to another process.
    pub(super) fn kill(&self) {
        // Fails if the warden has just ended.
        let _ = kill(self.pid, Signal::SIGKILL);
    }
}

impl Drop for Warden {
    fn drop(&mut self) {
        self.runtime.spawn(wait_for(self.pid));
    }
}

/// Reaps a process without blocking a thread. An error means that the kernel has reaped it.
async fn wait_for(pid: Pid) {
    let mut pause = Duration::from_millis(1);
    while matches!(waitpid(pid, Some(WaitPidFlag::WNOHANG)), Ok(WaitStatus::StillAlive) | Err(Errno::EINTR)) {
        tokio::time::sleep(pause).await;
        pause = LONGEST_PAUSE.min(pause * 2);
    }
}
