//! Programs that run from being killed.

use crate::support::{Running, is_ready};
use snex_core::worker::Cause;
use std::os::fd::AsRawFd;
use std::time::Duration;

/// Programs that run from being killed: each ignores SIGTERM and the end of its output, and forks without end.
const FORKERS: [&str; 4] = [
    // Each generation forks the next one and exits.
    "trap '' TERM PIPE; f() { echo go; f & }; f",
    // Several that start each other again.
    "trap '' TERM PIPE; f() { while :; do (echo go; exec sleep 0.01); done; }; g() { while :; do f & f & wait $!; done; }; g & g & wait",
    // Each generation in a session of its own.
    "trap '' TERM PIPE; export F='echo go; setsid sh -c \"$F\" & exit'; sh -c \"$F\"",
    // The same without a pause: no generation lives as long as a look at all processes of the machine takes.
    "exec perl -MPOSIX -e '
        $SIG{TERM} = $SIG{PIPE} = q(IGNORE);
        $| = 1;
        for ($n = 0; ; $n++) { print qq(go\\n) if $n < 3; fork and POSIX::_exit(0); setsid; }
    '",
];

/// A program of which each process holds the writing end of a pipe. The other end, which is not blocking, is at its end when
/// none of them is left.
fn forking(forker: &str) -> (Running, std::io::PipeReader, i32) {
    let (left, held) = std::io::pipe().unwrap();
    nix::fcntl::fcntl(&left, nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK)).unwrap();
    let path = format!("/proc/{}/fd/{}", std::process::id(), held.as_raw_fd());
    let running = Running::script(&format!("echo $PPID; exec 9>{path}; {forker}"));
    let text = running.printed("go\ngo\ngo\n");
    (running, left, text.lines().next().unwrap().parse().unwrap())
}

#[test]
fn a_stop_takes_programs_that_fork_without_end() {
    for forker in FORKERS {
        let (running, left, _warden) = forking(forker);
        running.worker.stop(Duration::from_millis(100));
        running.end();
        let at_end = std::io::Read::read(&mut &left, &mut [0]);
        assert!(matches!(at_end, Ok(0)), "{at_end:?} after {forker}");
    }
}

#[test]
fn a_killed_warden_takes_along_what_forks_without_end() {
    // Not the last: what leaves its session faster than it can be looked for may get away without a warden.
    for forker in &FORKERS[..3] {
        let (running, left, warden) = forking(&format!("({forker}) & sleep 1000"));
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(warden), nix::sys::signal::Signal::SIGKILL)
            .unwrap();
        assert_eq!(running.end().cause, Cause::WardenLost);
        assert!(is_ready(&left), "{forker}");
    }
}
