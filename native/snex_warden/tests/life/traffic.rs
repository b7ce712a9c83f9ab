//! What passes between a worker and its program.

use crate::support::{Event, LIMIT, Running, alive, frame_command, frame_to, ready_command};
use snex_core::control::{Exit, Limits};
use snex_core::frame::{Frame, Header, Kind};
use snex_core::outbox::Submitted;
use snex_core::worker::{Cause, Stream, Transport};
use std::time::Duration;

#[test]
fn the_program_gets_its_environment_folder_and_session_and_no_descriptor_but_its_own() {
    let running =
        Running::script("echo $GREETING $PWD $$; ps -o sid= -p $$; ls /proc/self/fd; cat; echo done");
    let pid = running.pid();
    let text = running.printed("done");
    // `ls` itself opens one more; `cat` finds standard input at its end.
    let expected = format!("hello / {pid}\n{pid}\n0\n1\n2\n3\n4\n5\n6\n7\n9\ndone\n");
    assert_eq!(text.replace(' ', ""), expected.replace(' ', ""));
    assert_eq!(running.end().exit, Some(Exit::Status(0)));
}

#[test]
fn signals_are_neither_ignored_nor_blocked_in_the_program() {
    let running = Running::script("grep -E 'Sig(Ign|Blk)' /proc/self/status; echo done");
    let text = running.printed("done");
    for line in text.lines().filter(|line| line.starts_with("Sig")) {
        assert!(line.ends_with("0000000000000000"), "{line}");
    }
}

#[test]
fn frames_arrive_between_ready_and_the_end() {
    let large = vec![b'x'; 3000];
    let script =
        ready_command() + &frame_command(0x83, 7, b"value") + &frame_command(0x84, 8, &large) + "exit 3";
    let running = Running::script(&script);
    running.pid();
    assert!(matches!(running.next(), Event::Ready(ready) if ready.python == "python"));
    let Event::Frame(header, body) = running.next() else { panic!() };
    assert_eq!((header.kind, header.id, body), (Kind::Result, 7, b"value".to_vec()));
    let Event::Frame(header, body) = running.next() else { panic!() };
    assert_eq!((header.kind, header.id, body), (Kind::Error, 8, large));
    let end = running.end();
    assert_eq!((end.cause, end.exit), (Cause::Exited, Some(Exit::Status(3))));
}

#[test]
fn a_frame_that_the_sink_refuses_ends_the_worker() {
    let script = ready_command() + &frame_command(0x83, u64::MAX, b"value") + "sleep 1000";
    let running = Running::script(&script);
    running.pid();
    assert!(matches!(running.next(), Event::Ready(_)));
    let end = running.end();
    assert_eq!(end.cause, Cause::Broken("a frame that nobody asked for".into()));
}

#[test]
fn prints_arrive_over_a_pipe_of_their_own_with_what_follows_them() {
    let script = ready_command() + &frame_to(5, 0x88, 9, b"\x01hello") + &frame_to(5, 0x83, 9, b"value");
    let running = Running::script(&(script + "exec 4>&-; sleep 0.1; exit 0"));
    running.pid();
    let mut seen = Vec::new();
    loop {
        match running.next() {
            Event::Print(request, body) => seen.push((request, body)),
            Event::Frame(header, body) => seen.push((header.id, body)),
            Event::Ended(end) => {
                break assert_eq!((end.cause, end.exit), (Cause::Exited, Some(Exit::Status(0))));
            }
            _ => {}
        }
    }
    assert_eq!(seen, [(9, b"\x01hello".to_vec()), (9, b"value".to_vec())]);
}

#[test]
fn an_interrupt_brings_its_number_and_a_signal() {
    let script =
        "trap 'head -c 8 <&6 | od -An -tu8; echo interrupted' URG; echo ready; while :; do sleep 0.1; done";
    let running = Running::script(script);
    running.printed("ready");
    running.worker.interrupt(4711);
    let text = running.printed("interrupted");
    assert!(text.contains(" 4711\n"), "{text}");
    running.worker.stop(Duration::ZERO);
    running.end();
}

#[test]
fn limits_hold_in_the_program() {
    let limits = Limits { memory: Some(1 << 30), cpu: Some(100), open_files: Some(50), nice: Some(5) };
    let script = "ulimit -v; ulimit -t; ulimit -n; nice; echo done";
    let running = Running::limited("/bin/sh", &["-c", script], Transport::Pipes, limits);
    assert_eq!(running.printed("done"), "1048576\n100\n50\n5\ndone\n");
}

#[test]
fn garbage_ends_the_worker_and_is_quoted() {
    let running = Running::script("echo 'Hello, world' >&4; exec sleep 1000");
    let pid = running.pid();
    let Cause::Broken(reason) = running.end().cause else { panic!() };
    assert_eq!(reason, r#"expected a frame, got "Hello, world\n""#);
    assert!(!alive(pid));
}

#[test]
fn a_length_of_half_the_address_space_takes_no_memory() {
    let lie =
        format!("printf 'SX\\203\\000{}\\377\\377\\377\\377\\377\\377\\377\\177' >&4;", "\\000".repeat(8));
    let running = Running::script(&(ready_command() + &lie + "exec sleep 1000"));
    let Cause::Broken(reason) = running.end().cause else { panic!() };
    assert!(reason.contains("more than memory can hold"), "{reason}");
}

#[test]
fn a_queue_that_is_full_tells_those_who_wait_when_there_is_room() {
    let running = Running::script("trap 'cat <&3 >/dev/null' USR1; echo ready; while :; do sleep 0.1; done");
    let pid = running.pid();
    running.printed("ready");
    assert_eq!(
        running.worker.submit(Frame::new(Header::new(Kind::Eval, 1), &[0; 1_000_000])),
        Submitted::Queued
    );
    assert!(running.worker.wait_if_full());
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGUSR1).unwrap();
    loop {
        if matches!(running.next(), Event::Writable) {
            break;
        }
    }
    assert!(!running.worker.is_full());
    running.worker.stop(Duration::ZERO);
    running.end();
}

#[test]
fn frames_travel_over_standard_streams_too() {
    let script = ready_command().replace(">&4", "") + "echo words >&2; exec 5>&1; exec cat >/dev/null";
    let running = Running::program("/bin/sh", &["-c", &script], Transport::Stdio);
    let mut ready = false;
    let mut words = false;
    while !(ready && words) {
        match running.next() {
            Event::Ready(_) => ready = true,
            Event::Output(Stream::Stderr, chunk) => words = chunk == b"words\n",
            _ => {}
        }
    }
    running.worker.stop(LIMIT);
    assert_eq!(running.end().cause, Cause::Stopped);
}
