//! How the warden sets itself up before it starts anything.

use nix::unistd;
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGPIPE, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};
use std::io;
use std::os::unix::net::UnixStream;

/// Makes this process a warden. The stream returned becomes readable when a child changes state.
pub fn enter() -> io::Result<UnixStream> {
    close_inherited();
    // A new session, so that Ctrl-C in the VM's terminal does not reach the warden. This fails for the leader of a
    // process group: a port program, which Erlang has given its own session already.
    match unistd::setsid() {
        Ok(_) | Err(nix::errno::Errno::EPERM) => {}
        Err(error) => return Err(error.into()),
    }
    // When a machine shuts down, every process gets SIGTERM at once, but the VM may take minutes to drain. The warden
    // only ends with its lifeline.
    for signal in [SIGHUP, SIGINT, SIGPIPE, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2] {
        // SAFETY: SIG_IGN runs no code.
        unsafe { nix::sys::signal::signal(signal.try_into()?, nix::sys::signal::SigHandler::SigIgn)? };
    }
    // The VM ignores SIGCHLD, and exec preserves that. Without a handler, exit statuses would be lost.
    let (reader, writer) = UnixStream::pair()?;
    reader.set_nonblocking(true)?;
    signal_hook::low_level::pipe::register(SIGCHLD, writer)?;
    #[cfg(target_os = "linux")]
    nix::sys::prctl::set_child_subreaper(true)?;
    Ok(reader)
}

/// Closes inherited descriptors, which the VM, or a library in it, opened without close-on-exec.
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
        // Without a list: up to the usual limit.
        Err(_) => (0..1024).collect(),
    };
    for descriptor in open {
        if descriptor > 2 {
            // SAFETY: nothing here owns a descriptor above 2. That of the directory listing is closed already;
            // closing it again fails, and is harmless in a process with one thread.
            unsafe { libc::close(descriptor) };
        }
    }
}
