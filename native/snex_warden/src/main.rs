//! The warden: a small process that stands between the VM and one process tree.
//!
//! Code inside the VM dies with the VM, and code inside Python may be blocked by a C call that holds the GIL. The
//! warden outlives both, and ends what they leave behind. It has one thread, one [`lifeline`] to the VM (its standard
//! input) and one child, the program. Its life:
//!
//! 1. [`shelter`]: it leaves the VM's session, ignores signals, and adopts orphans.
//! 2. [`child::spawn`]: it starts Python, with the descriptors that came over the socket (see [`snex_core::control`]). With
//!    arguments, it runs as an Erlang port: it starts the program that they name, which shares its output.
//! 3. [`watch::Watch`]: it waits for the end of the program, a stop request, or the end of the VM, and then ends the whole
//!    tree. Meanwhile, it may have the program fork copies of itself ([`template`]). Each copy leads a tree of its own
//!    ([`forest`]).

mod child;
mod forest;
mod lifeline;
mod shelter;
mod template;
mod tree;
mod watch;

use lifeline::Lifeline;
use snex_core::control::{self, Exit, FromWarden, Limits, PROGRAM, Spec, ToWarden};
use std::ffi::OsString;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use template::Template;
use watch::Watch;

/// The status with which a shell says that a program cannot be started.
const CANNOT_START: u8 = 127;

fn main() -> ExitCode {
    // SAFETY: the process owns descriptor 0 from its start, and nothing else here uses it.
    let input = unsafe { OwnedFd::from_raw_fd(0) };
    let mut args = std::env::args_os().skip(1);
    match args.next() {
        None => serve(&UnixStream::from(input)),
        Some(program) => run(input, program, args),
    }
}

/// Serves a worker.
fn serve(socket: &UnixStream) -> ExitCode {
    let watch = start(socket);
    match watch.and_then(Watch::run) {
        Ok(_exit) => ExitCode::SUCCESS,
        Err(error) => {
            let reason = error.to_string();
            Lifeline::Worker(socket).report(&FromWarden::Failed { tree: PROGRAM, reason });
            ExitCode::FAILURE
        }
    }
}

fn start(socket: &UnixStream) -> io::Result<Watch<'_>> {
    let children = shelter::enter()?;
    let Some((ToWarden::Start(mut spec), mut descriptors)) = control::receive(socket)? else {
        return Err(io::Error::other("the first message has to be a start"));
    };
    let template = match spec.forks {
        None => None,
        Some(number) => {
            let (ours, theirs) = Template::new()?;
            spec.descriptors.push(number);
            descriptors.push(theirs);
            Some(ours)
        }
    };
    let pid = child::spawn(&spec, descriptors)?;
    // Fails if the VM is gone. The watch notices that, and ends the tree.
    let _ = control::send(socket, &FromWarden::Started { tree: PROGRAM, pid: pid.as_raw() });
    Ok(Watch::new(Lifeline::Worker(socket), children, pid, template))
}

/// Runs a program for an Erlang port, and exits with its status.
fn run(input: OwnedFd, program: OsString, args: impl Iterator<Item = OsString>) -> ExitCode {
    let spec = Spec {
        program: program.into_vec(),
        args: args.map(OsString::into_vec).collect(),
        env: std::env::vars_os().map(|(key, value)| (key.into_vec(), value.into_vec())).collect(),
        cwd: None,
        descriptors: Vec::new(),
        limits: Limits::default(),
        forks: None,
    };
    let ended = shelter::enter().and_then(|children| {
        let pid = child::spawn(&spec, Vec::new())?;
        Watch::new(Lifeline::Port(input), children, pid, None).run()
    });
    match ended {
        Ok(exit) => ExitCode::from(exit.map_or(0, Exit::shell_status) as u8),
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(CANNOT_START)
        }
    }
}
