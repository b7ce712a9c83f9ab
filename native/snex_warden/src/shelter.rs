//! What the warden does to itself before anything else.

use nix::unistd;
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGPIPE, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};
use std::io;
use std::os::unix::net::UnixStream;

/// Makes this process a warden. The stream returned becomes readable when a child changes state.
pub fn enter() -> io::Result<UnixStream> {
    close_inherited();
    // A new session: a Ctrl-C in the VM's terminal is the VM's business. Fails only for a group leader: not for a process
    // fresh from posix_spawn, and what Erlang starts as a port leads a session already.
    match unistd::setsid() {
        Ok(_) | Err(nix::errno::Errno::EPERM) => {}
        Err(error) => return Err(error.into()),
    }
    // A machine that shuts down sends SIGTERM to every process at once, while the VM may want minutes to drain. The
    // end of the lifeline is the only reason to go.
    for signal in [SIGHUP, SIGINT, SIGPIPE, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2] {
        // SAFETY: SIG_IGN runs no code.
        unsafe { nix::sys::signal::signal(signal.try_into()?, nix::sys::signal::SigHandler::SigIgn)? };
    }
    // The VM ignores SIGCHLD, and ignored stays ignored across exec: exit statuses would be lost without this handler.
    let (reader, writer) = UnixStream::pair()?;
    reader.set_nonblocking(true)?;
    signal_hook::low_level::pipe::register(SIGCHLD, writer)?;
    #[cfg(target_os = "linux")]
    nix::sys::prctl::set_child_subreaper(true)?;
    Ok(reader)
}

/// Closes what the VM did not mean for us: descriptors that it, or a library in it, opened without close-on-exec.
fn close_inherited() {
    #[cfg(target_os = "linux")]
    // SAFETY: takes no pointers; nothing above 2 is in use yet.
    if unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, 0) } == 0 {
        return;
    }
    let directory = if cfg!(target_os = "linux") { "/proc/self/fd" } else { "/dev/fd" };
    let open: Vec<i32> = match std::fs::read_dir(directory) {
        Ok(entries) => {
            entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
        }
        // Without a list: as many as there usually may be.
        Err(_) => (0..1024).collect(),
    };
    for descriptor in open {
        if descriptor > 2 {
            // SAFETY: nothing here owns a descriptor above 2; that of the directory above is closed by now, and
            // closing it again fails harmlessly in a process of one thread.
            unsafe { libc::close(descriptor) };
        }
    }
}
