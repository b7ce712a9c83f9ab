//! Starting Python.

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::{self, Pid};
use snex_core::control::{Limits, Spec};
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

/// Starts the program of `spec` as the leader of a new session. `descriptors` get the numbers that `spec` lists;
/// apart from the standard ones, the program gets no others. They are closed here.
pub fn spawn(spec: &Spec, descriptors: Vec<OwnedFd>) -> io::Result<Pid> {
    if descriptors.len() != spec.descriptors.len() {
        return Err(io::Error::other("descriptors and their numbers differ in count"));
    }
    // `dup2` closes whatever has the number it assigns. So no descriptor that is still needed may have one of these
    // numbers: neither the copies made here, nor what the standard library opens to start a program.
    let lowest_spare = spec.descriptors.iter().max().map_or(0, |highest| highest + 1);
    let moves = descriptors
        .iter()
        .zip(&spec.descriptors)
        .map(|(fd, target)| Ok((duplicate(fd, lowest_spare)?, *target)))
        .collect::<io::Result<Vec<_>>>()?;
    drop(descriptors);
    let _taken = take_below(lowest_spare, &moves)?;

    let mut command = Command::new(OsStr::from_bytes(&spec.program));
    command
        .args(spec.args.iter().map(|arg| OsStr::from_bytes(arg)))
        .env_clear()
        .envs(spec.env.iter().map(|(key, value)| (OsStr::from_bytes(key), OsStr::from_bytes(value))))
        .stdin(Stdio::null());
    if let Some(cwd) = &spec.cwd {
        command.current_dir(OsStr::from_bytes(cwd));
    }
    let warden = unistd::getpid();
    let limits = spec.limits;
    // SAFETY: the closure only makes system calls, and touches memory that was allocated before the fork.
    unsafe { command.pre_exec(move || prepare(warden, &moves, &limits)) };
    let child = command.spawn().map_err(|error| {
        io::Error::new(error.kind(), format!("cannot start {}: {error}", command.get_program().display()))
    })?;
    // The handle is dropped: `Forest` reaps the child with waitpid.
    Ok(Pid::from_raw(child.id() as i32))
}

/// A duplicate with the first free number that is at least `lowest`. Closed when the program starts.
fn duplicate(fd: &OwnedFd, lowest: RawFd) -> io::Result<OwnedFd> {
    let copy = nix::fcntl::fcntl(fd, nix::fcntl::FcntlArg::F_DUPFD_CLOEXEC(lowest))?;
    // SAFETY: fcntl has just made this descriptor, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(copy) })
}

/// Occupies all free numbers below `lowest`, for as long as the result lives.
fn take_below(lowest: RawFd, copies: &[(OwnedFd, RawFd)]) -> io::Result<Vec<OwnedFd>> {
    let mut taken = Vec::new();
    if let Some((any, _)) = copies.first() {
        loop {
            let copy = duplicate(any, 0)?;
            if copy.as_raw_fd() >= lowest {
                break;
            }
            taken.push(copy);
        }
    }
    Ok(taken)
}

/// Runs in the child between fork and exec.
fn prepare(warden: Pid, moves: &[(OwnedFd, RawFd)], limits: &Limits) -> io::Result<()> {
    unistd::setsid()?;
    limit(limits)?;
    for signal in 1..=last_signal() {
        // SAFETY: SIG_DFL runs no code. For signals that cannot be set (SIGKILL, SIGSTOP, the C library's own) the
        // call fails, which is harmless.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    nix::sys::signal::SigSet::empty().thread_set_mask()?;
    for (fd, target) in moves {
        // SAFETY: dup2 takes plain numbers. From here on the target belongs to Python, without close-on-exec.
        if unsafe { libc::dup2(fd.as_raw_fd(), *target) } < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    #[cfg(target_os = "linux")]
    {
        // Python dies with the warden. The signal is sent when the thread that forked ends; the warden has only one.
        nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)?;
        if unistd::getppid() != warden {
            return Err(io::Error::other("the warden died"));
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = warden;
    Ok(())
}

#[cfg(target_os = "linux")]
fn last_signal() -> i32 {
    libc::SIGRTMAX()
}

/// Other systems have no real-time signals.
#[cfg(not(target_os = "linux"))]
fn last_signal() -> i32 {
    31
}

fn limit(limits: &Limits) -> io::Result<()> {
    let lower = |resource, limit: Option<u64>, hard_room: u64| -> io::Result<()> {
        let Some(limit) = limit else { return Ok(()) };
        let (_, most) = getrlimit(resource)?;
        Ok(setrlimit(resource, limit.min(most), limit.saturating_add(hard_room).min(most))?)
    };
    lower(Resource::RLIMIT_AS, limits.memory, 0)?;
    // SIGXCPU at the limit, SIGKILL a second later.
    lower(Resource::RLIMIT_CPU, limits.cpu, 1)?;
    lower(Resource::RLIMIT_NOFILE, limits.open_files, 0)?;
    if let Some(nice) = limits.nice {
        nix::errno::Errno::clear();
        // SAFETY: takes a plain number. -1 may be a valid result, so the error number tells.
        if unsafe { libc::nice(nice) } == -1 && nix::errno::Errno::last_raw() != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}
