//! Wardens that are killed, or stopped by a signal; and what becomes of them at the end.

use crate::support::{Running, alive, wait_until_gone, wait_until_reaped};
use snex_core::worker::Cause;
use std::time::Duration;

#[test]
fn the_warden_is_waited_for_by_who_started_it_and_no_other_child_is() {
    // Here SIGCHLD is not ignored, as an application of the VM may have it.
    let mut other = std::process::Command::new("true").spawn().unwrap();
    wait_until_gone(other.id() as i32);
    let kill = |pid| {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).unwrap();
    };
    let stops: &dyn Fn(&Running, i32, i32) = &|running, _, _| running.worker.stop(Duration::ZERO);
    for end in [stops, &|_, warden, _| kill(warden), &|_, _, program| kill(program)] {
        let running = Running::script("echo $PPID; exec sleep 1000");
        let program = running.pid();
        let warden = running.printed("\n").trim().parse().unwrap();
        end(&running, warden, program);
        running.end();
        wait_until_reaped(warden);
    }
    assert!(other.wait().unwrap().success());
}

#[test]
fn a_stop_has_an_end_though_the_warden_is_stopped_itself() {
    let running =
        Running::script("trap '' TERM; setsid sleep 1000 & echo $PPID; echo $!; sleep 1000 & echo $!; wait");
    let program = running.pid();
    let mut text = String::new();
    while text.lines().count() < 3 {
        text += &running.printed("\n");
    }
    let mut pids = text.lines().map(|line| line.trim().parse::<i32>().unwrap());
    let warden = pids.next().unwrap();
    suspend(warden);
    // More than the socket takes.
    for request in 0..10_000 {
        running.worker.interrupt(request);
    }
    running.worker.stop(Duration::ZERO);
    let end = running.end();
    assert_eq!((end.cause, end.exit), (Cause::Stopped, None));
    for pid in pids.chain([program]) {
        wait_until_gone(pid);
    }
    wait_until_reaped(warden);
}

#[test]
fn the_end_of_a_program_is_noticed_by_its_pipes_though_the_warden_is_stopped() {
    let running = Running::script("echo $PPID; exec sleep 1000");
    let program = running.pid();
    let warden = running.printed("\n").trim().parse().unwrap();
    suspend(warden);
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(program), nix::sys::signal::Signal::SIGKILL).unwrap();
    assert_eq!(running.end().cause, Cause::Broken("Python closed its end of the pipe".into()));
    wait_until_reaped(warden);
}

fn suspend(pid: i32) {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGSTOP).unwrap();
}

#[test]
fn a_killed_warden_takes_the_program_along_and_is_reported() {
    let running = Running::script("echo $PPID; sleep 1000 & wait");
    let pid = running.pid();
    let warden: i32 = running.printed("\n").trim().parse().unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(warden), nix::sys::signal::Signal::SIGKILL).unwrap();
    assert_eq!(running.end().cause, Cause::WardenLost);
    wait_until_gone(pid);
}

#[test]
fn a_killed_warden_takes_along_what_left_the_session_and_the_process_group_too() {
    let script = "echo $PPID; setsid sleep 1000 & echo $!; \
                  (setsid sh -c 'sleep 1000 & echo $!'); echo done; wait";
    let running = Running::script(script);
    let pid = running.pid();
    let text = running.printed("done");
    let mut pids = text.lines().filter_map(|line| line.parse::<i32>().ok());
    let warden = pids.next().unwrap();
    let children: Vec<i32> = pids.collect();
    assert!(children.len() == 2 && children.iter().all(|pid| alive(*pid)), "{text}");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(warden), nix::sys::signal::Signal::SIGKILL).unwrap();
    assert_eq!(running.end().cause, Cause::WardenLost);
    for pid in children.into_iter().chain([pid]) {
        wait_until_gone(pid);
    }
}
