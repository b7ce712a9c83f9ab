//! Stopping a worker.

use crate::support::{LIMIT, Running, alive};
use snex_core::control::Exit;
use snex_core::frame::{Frame, Header, Kind};
use snex_core::outbox::Submitted;
use snex_core::worker::Cause;
use std::time::Duration;

#[test]
fn a_stop_takes_the_whole_tree_also_what_left_the_session_and_ignores_sigterm() {
    let script = "trap '' TERM; (trap '' TERM; setsid sh -c 'trap \"\" TERM; echo $$ >&2; sleep 1000 & echo $! >&2; wait') & sleep 1000 & echo $! >&2; wait";
    let running = Running::script(script);
    let pid = running.pid();
    let mut text = String::new();
    while text.lines().count() < 3 {
        text += &running.printed("\n");
    }
    let children: Vec<i32> = text.lines().map(|line| line.trim().parse().unwrap()).collect();
    assert!(children.iter().all(|pid| alive(*pid)), "{children:?}");
    running.worker.stop(Duration::from_millis(100));
    let end = running.end();
    assert_eq!((end.cause, end.exit), (Cause::Stopped, Some(Exit::Signal(9))));
    assert!(children.iter().chain([&pid]).all(|pid| !alive(*pid)), "{children:?}");
    assert_eq!(running.worker.submit(Frame::new(Header::new(Kind::Eval, 1), b"")), Submitted::Closed);
}

#[test]
fn a_stop_is_graceful_where_the_program_lets_it() {
    let running =
        Running::script("trap 'echo cleaned up; exit 7' TERM; echo ready; while :; do sleep 0.1; done");
    running.printed("ready");
    running.worker.stop(LIMIT);
    running.printed("cleaned up");
    assert_eq!(running.end().exit, Some(Exit::Status(7)));
}

#[test]
fn in_a_stop_what_the_program_leaves_behind_has_the_whole_grace_and_one_sigterm() {
    let child = "terms=0; trap 'terms=$((terms + 1))' TERM; echo ready; while [ $terms = 0 ]; do sleep 0.1; done; \
                 for _ in 1 2 3 4 5 6 7 8 9 10; do sleep 0.1; done; echo cleaned up after $terms";
    let running = Running::script(&format!("trap 'exit 7' TERM; ({child}) & wait"));
    running.printed("ready");
    running.worker.stop(LIMIT);
    running.printed("cleaned up after 1\n");
    assert_eq!(running.end().exit, Some(Exit::Status(7)));
}

#[test]
fn end_of_file_reaches_the_program_before_sigterm() {
    // The handler asks whether descriptor 3 is at its end: `read` fails there, and would wait if it were open.
    let script =
        "trap 'cat <&3 >/dev/null; echo at the end; exit 0' TERM; echo ready; while :; do sleep 0.1; done";
    for _ in 0..20 {
        let running = Running::script(script);
        running.printed("ready");
        running.worker.stop(LIMIT);
        running.printed("at the end");
        assert_eq!(running.end().exit, Some(Exit::Status(0)));
    }
}
