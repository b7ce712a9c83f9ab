//! Workers with a real warden and real programs: what is reported, and what is left behind (nothing).
//!
//! The programs are shell scripts that speak as much of the protocol as a test needs. Where a test waits, it waits for an
//! event, under one generous limit for all of it, which only a failure reaches.

#![cfg(unix)]
#![allow(clippy::unwrap_used, missing_docs)]

use snex_core::control::{Exit, Limits, Spec};
use snex_core::frame::{Frame, Header, Kind};
use snex_core::handshake::{Blob, Hello, Ready};
use snex_core::outbox::Submitted;
use snex_core::worker::{Cause, End, Settings, Sink, Stream, Transport, Worker};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

const LIMIT: Duration = Duration::from_secs(60);

#[derive(Debug)]
enum News {
    Started(i32),
    Ready(Ready),
    Frame(Header, Vec<u8>),
    Print(u64, Vec<u8>),
    Writable,
    Output(Stream, Vec<u8>),
    Ended(End),
}

/// Passes on what it is told, but for one thing: there it panics, as a bug of ours would make it.
struct Listener(Sender<News>, Option<Bug>);

#[derive(PartialEq)]
enum Bug {
    Start,
    Frame,
    Print,
    Output,
    Writable,
    /// No panic: output is never taken.
    Stall,
}

impl Listener {
    fn panic_at(&self, place: Bug) {
        assert!(self.1 != Some(place), "a bug of ours");
    }
}

impl Sink for Listener {
    type Body = Vec<u8>;

    fn started(&self, pid: i32) {
        self.panic_at(Bug::Start);
        let _ = self.0.send(News::Started(pid));
    }

    fn ready(&self, ready: Ready) {
        let _ = self.0.send(News::Ready(ready));
    }

    fn frame(&self, header: Header, body: Vec<u8>) -> Result<(), String> {
        self.panic_at(Bug::Frame);
        if header.id == u64::MAX {
            return Err("a frame that nobody asked for".into());
        }
        let _ = self.0.send(News::Frame(header, body));
        Ok(())
    }

    async fn print(&self, request: u64, body: Vec<u8>) {
        self.panic_at(Bug::Print);
        let _ = self.0.send(News::Print(request, body));
    }

    fn writable(&self) {
        self.panic_at(Bug::Writable);
        let _ = self.0.send(News::Writable);
    }

    async fn log(&self, _event: Vec<u8>) {}

    async fn output(&self, stream: Stream, chunk: &[u8]) {
        self.panic_at(Bug::Output);
        if self.1 == Some(Bug::Stall) {
            std::future::pending::<()>().await;
        }
        let _ = self.0.send(News::Output(stream, chunk.to_vec()));
    }

    fn ended(&self, end: End) {
        let _ = self.0.send(News::Ended(end));
    }
}

/// A worker that runs a shell script, and what it tells.
struct Running {
    worker: Arc<Worker<Vec<u8>, Listener>>,
    news: Receiver<News>,
    started: Instant,
    _runtime: Runtime,
}

impl Running {
    fn script(script: &str) -> Self {
        Self::program("/bin/sh", &["-c", script], Transport::Pipes)
    }

    fn program(program: &str, args: &[&str], transport: Transport) -> Self {
        Self::limited(program, args, transport, Limits::default())
    }

    fn limited(program: &str, args: &[&str], transport: Transport, limits: Limits) -> Self {
        Self::told(program, args, transport, limits, None)
    }

    fn told(program: &str, args: &[&str], transport: Transport, limits: Limits, bug: Option<Bug>) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let (sender, news) = channel();
        let settings = Settings {
            warden: env!("CARGO_BIN_EXE_snex_warden").into(),
            spec: Spec {
                program: program.into(),
                args: args.iter().map(|arg| arg.as_bytes().to_vec()).collect(),
                env: vec![("PATH".into(), "/usr/bin:/bin".into()), ("GREETING".into(), "hello".into())],
                cwd: Some("/".into()),
                descriptors: Vec::new(),
                limits,
            },
            transport,
            hello: Hello {
                protocol: 2,
                version: "test".into(),
                eager: true,
                buffer_limits: (1, 2),
                cleanup_timeout: 3,
                end_on_memory_error: false,
                reply_limit: 1 << 20,
                map_set: (Blob(Vec::new()), Blob(Vec::new())),
            },
            marks: (1000, 100_000),
        };
        let worker = Worker::start(runtime.handle(), settings, Listener(sender, bug)).unwrap();
        Running { worker, news, started: Instant::now(), _runtime: runtime }
    }

    fn next(&self) -> News {
        self.news.recv_timeout(LIMIT.saturating_sub(self.started.elapsed())).unwrap()
    }

    fn pid(&self) -> i32 {
        match self.next() {
            News::Started(pid) => pid,
            other => panic!("expected the start, got {other:?}"),
        }
    }

    /// Everything printed until the text contains `wanted`.
    fn printed(&self, wanted: &str) -> String {
        let mut text = String::new();
        while !text.contains(wanted) {
            if let News::Output(_, chunk) = self.next() {
                text.push_str(&String::from_utf8_lossy(&chunk));
            }
        }
        text
    }

    fn end(&self) -> End {
        loop {
            if let News::Ended(end) = self.next() {
                return end;
            }
        }
    }
}

fn alive(pid: i32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

/// A `READY` frame as `printf` writes it to descriptor 4: octal escapes, since this is `sh`.
fn ready_command() -> String {
    let fields = ["python", "implementation", "executable", "version", "encoder"];
    let mut body = vec![131, 116, 0, 0, 0, 6];
    for (key, value) in fields.map(|name| (name, name)) {
        for text in [key, value] {
            body.extend([109, 0, 0, 0, text.len() as u8]);
            body.extend(text.as_bytes());
        }
    }
    body.extend([109, 0, 0, 0, 8]);
    body.extend(b"protocol");
    body.extend([97, snex_core::frame::PROTOCOL as u8]);
    frame_command(0x81, 0, &body)
}

fn frame_command(kind: u8, id: u64, body: &[u8]) -> String {
    frame_to(4, kind, id, body)
}

fn frame_to(descriptor: u8, kind: u8, id: u64, body: &[u8]) -> String {
    let mut bytes = b"SX".to_vec();
    bytes.extend([kind, 0]);
    bytes.extend(id.to_le_bytes());
    bytes.extend((body.len() as u64).to_le_bytes());
    bytes.extend(body);
    let octal: String = bytes.iter().map(|byte| format!("\\{byte:03o}")).collect();
    format!("printf '{octal}' >&{descriptor}; ")
}

#[test]
fn the_program_gets_its_environment_folder_and_session_and_no_descriptor_but_its_own() {
    let running =
        Running::script("echo $GREETING $PWD $$; ps -o sid= -p $$; ls /proc/self/fd; cat; echo done");
    let pid = running.pid();
    let text = running.printed("done");
    // `ls` itself opens one more; `cat` finds standard input at its end.
    let expected = format!("hello / {pid}\n{pid}\n0\n1\n2\n3\n4\n5\n6\n7\ndone\n");
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
    assert!(matches!(running.next(), News::Ready(ready) if ready.python == "python"));
    let News::Frame(header, body) = running.next() else { panic!() };
    assert_eq!((header.kind, header.id, body), (Kind::Result, 7, b"value".to_vec()));
    let News::Frame(header, body) = running.next() else { panic!() };
    assert_eq!((header.kind, header.id, body), (Kind::Error, 8, large));
    let end = running.end();
    assert_eq!((end.cause, end.exit), (Cause::Exited, Some(Exit::Status(3))));
}

#[test]
fn a_frame_that_the_sink_refuses_ends_the_worker() {
    let script = ready_command() + &frame_command(0x83, u64::MAX, b"value") + "sleep 1000";
    let running = Running::script(&script);
    running.pid();
    assert!(matches!(running.next(), News::Ready(_)));
    let end = running.end();
    assert_eq!(end.cause, Cause::Broken("a frame that nobody asked for".into()));
}

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
        running.worker.submit(Frame::new(Kind::Eval, 1, &vec![0; 1_000_000]));
        running.worker.wait_if_full();
        let end = running.end();
        assert_eq!(end.cause, Cause::Broken("a task of Snex's own has panicked".into()));
        assert!(running.worker.is_closed());
    }
}

#[test]
fn prints_arrive_over_a_pipe_of_their_own_with_what_follows_them() {
    let script = ready_command() + &frame_to(5, 0x88, 9, b"\x01hello") + &frame_to(5, 0x83, 9, b"value");
    let running = Running::script(&(script + "exec 4>&-; sleep 0.1; exit 0"));
    running.pid();
    let mut seen = Vec::new();
    loop {
        match running.next() {
            News::Print(request, body) => seen.push((request, body)),
            News::Frame(header, body) => seen.push((header.id, body)),
            News::Ended(end) => {
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
fn a_program_that_closes_its_pipe_and_stays_is_ended() {
    let running = Running::script("exec 3<&- 4>&-; exec sleep 1000");
    let pid = running.pid();
    assert_eq!(running.end().cause, Cause::Broken("Python closed its end of the pipe".into()));
    assert!(!alive(pid));
}

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
    assert_eq!(running.worker.submit(Frame::new(Kind::Eval, 1, b"")), Submitted::Closed);
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

#[test]
fn what_a_program_leaves_behind_goes_with_it() {
    let running = Running::script("setsid sleep 1000 & echo $!; exit 5");
    let orphan: i32 = running.printed("\n").trim().parse().unwrap();
    let end = running.end();
    assert_eq!(end.exit, Some(Exit::Status(5)));
    assert!(!alive(orphan));
}

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

#[test]
fn a_queue_that_is_full_tells_those_who_wait_when_there_is_room() {
    let running = Running::script("trap 'cat <&3 >/dev/null' USR1; echo ready; while :; do sleep 0.1; done");
    let pid = running.pid();
    running.printed("ready");
    assert_eq!(running.worker.submit(Frame::new(Kind::Eval, 1, &[0; 1_000_000])), Submitted::Queued);
    assert!(running.worker.wait_if_full());
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGUSR1).unwrap();
    loop {
        if matches!(running.next(), News::Writable) {
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
            News::Ready(_) => ready = true,
            News::Output(Stream::Stderr, chunk) => words = chunk == b"words\n",
            _ => {}
        }
    }
    running.worker.stop(LIMIT);
    assert_eq!(running.end().cause, Cause::Stopped);
}

/// Waits for a process that nobody here can reap: the kernel tells through a pidfd.
fn wait_until_gone(pid: i32) {
    // SAFETY: takes plain numbers.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    if fd < 0 {
        return;
    }
    // SAFETY: the kernel has just made this descriptor for us.
    let fd = unsafe { <OwnedFd as std::os::fd::FromRawFd>::from_raw_fd(fd as i32) };
    assert!(is_ready(&fd), "process {pid} lives on");
}

/// Waits until the parent of a process has taken notice of its end.
fn wait_until_reaped(pid: i32) {
    let begun = Instant::now();
    while alive(pid) {
        assert!(begun.elapsed() < LIMIT, "process {pid} is not reaped");
        std::thread::yield_now();
    }
}

/// Waits until a descriptor is readable, or at its end.
fn is_ready(fd: &impl AsRawFd) -> bool {
    let mut poll = libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one valid entry.
    let ready = unsafe { libc::poll(&mut poll, 1, LIMIT.as_millis() as i32) };
    ready == 1
}
