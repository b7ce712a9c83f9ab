//! How a program ends by itself, and what is told of it.

use crate::support::{Bug, Running, alive, frame_command, frame_to, ready_command, wait_until_reaped};
use snex_core::control::{Exit, Limits};
use snex_core::frame::{Frame, Header, Kind};
use snex_core::worker::{Cause, Transport};
use std::time::Duration;

#[test]
fn a_bug_that_panics_ends_the_worker_and_leaves_nobody_waiting() {
    let chatter = ready_command()
        + "echo out; "
        + &frame_to(5, 0x88, 9, b"\x01hello")
        + &frame_command(0x83, 1, b"value")
        + "sleep 0.2; cat <&3 >/dev/null; sleep 1000";
    for bug in [Bug::Start, Bug::Frame, Bug::Print, Bug::Output, Bug::Writable] {
        let running =
            Running::told("/bin/sh", &["-c", &chatter], Transport::Pipes, Limits::default(), Some(bug));
        running.worker.submit(Frame::new(Header::new(Kind::Eval, 1), &vec![0; 1_000_000]));
        running.worker.wait_if_full();
        let end = running.end();
        assert_eq!(end.cause, Cause::Broken("a task of Snex's own has panicked".into()));
        assert!(running.worker.is_closed());
    }
}

#[test]
fn a_signal_and_the_last_of_stderr_are_reported() {
    let running =
        Running::script("head -c 100000 /dev/zero | tr '\\0' x >&2; echo last words >&2; kill -SEGV $$");
    let end = running.end();
    assert_eq!(end.exit, Some(Exit::Signal(11)));
    assert_eq!(end.stderr.len(), 4096);
    assert!(end.stderr.ends_with(b"xxlast words\n"));
}

#[test]
fn a_program_that_a_real_time_signal_ends_takes_its_tree_along_and_the_number_is_reported() {
    let running = Running::script("setsid sleep 1000 & echo $!; kill -40 $$; sleep 1000");
    let orphan: i32 = running.printed("\n").trim().parse().unwrap();
    let end = running.end();
    assert_eq!((end.cause, end.exit), (Cause::Exited, Some(Exit::Signal(40))));
    assert!(!alive(orphan));
}

#[test]
fn an_orphan_that_a_real_time_signal_ends_changes_nothing_for_the_rest_of_the_tree() {
    let script =
        "trap 'echo goes on' USR1; (sh -c 'echo orphan $$; exec sleep 1000' &); while :; do sleep 0.1; done";
    let running = Running::script(script);
    let pid = running.pid();
    let orphan: i32 = running.printed("\n").trim().trim_start_matches("orphan ").parse().unwrap();
    // SAFETY: takes plain numbers. `nix` does not know this signal.
    assert_eq!(unsafe { libc::kill(orphan, 40) }, 0);
    wait_until_reaped(orphan);
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGUSR1).unwrap();
    running.printed("goes on");
    running.worker.stop(Duration::ZERO);
    assert_eq!(running.end().cause, Cause::Stopped);
}

#[test]
fn a_program_that_does_not_exist_is_named() {
    let running = Running::program("/no/such/python", &[], Transport::Pipes);
    let Cause::NotStarted(reason) = running.end().cause else { panic!() };
    assert!(reason.contains("/no/such/python") && reason.contains("No such file"), "{reason}");
}

#[test]
fn a_program_that_closes_its_pipe_and_stays_is_ended() {
    let running = Running::script("exec 3<&- 4>&-; exec sleep 1000");
    let pid = running.pid();
    assert_eq!(running.end().cause, Cause::Broken("Python closed its end of the pipe".into()));
    assert!(!alive(pid));
}

#[test]
fn what_a_program_leaves_behind_goes_with_it() {
    let running = Running::script("setsid sleep 1000 & echo $!; exit 5");
    let orphan: i32 = running.printed("\n").trim().parse().unwrap();
    let end = running.end();
    assert_eq!(end.exit, Some(Exit::Status(5)));
    assert!(!alive(orphan));
}

#[test]
fn the_end_is_told_though_nobody_takes_the_output() {
    let running = Running::told(
        "/bin/sh",
        &["-c", "echo words; echo words >&2; exec sleep 1000"],
        Transport::Pipes,
        Limits::default(),
        Some(Bug::Stall),
    );
    running.pid();
    running.worker.stop(Duration::ZERO);
    assert_eq!(running.end().cause, Cause::Stopped);
}
