//! The warden: a small process that stands between the VM and one process tree.
//!
//! Nothing inside the VM survives the VM, and nothing inside Python runs while a C call holds the GIL. The warden outlives
//! both just long enough to see that neither leaves anything behind. It has one thread, one [`lifeline`] to the VM (its standard
//! input) and one child. Its life:
//!
//! 1. [`shelter`]: leave the VM's session, ignore what is not meant for it, adopt orphans.
//! 2. [`child::spawn`]: start Python with the descriptors that came over the socket (see [`snex_core::control`]); or, with
//!    arguments, the program that they name, with the output of the warden itself, as an Erlang port.
//! 3. [`watch::Watch`]: wait for the program's end, a stop request, or the end of the VM, and then end the whole tree.
//!    Meanwhile it may have the program fork copies of itself ([`template`]), each of which leads a tree of its own
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
    // SAFETY: descriptor 0 is ours from the start of the process, and nothing else here uses it.
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
    // An error here means that the VM is gone: the watch notices that by itself, and ends the tree.
    let _ = control::send(socket, &FromWarden::Started { tree: PROGRAM, pid: pid.as_raw() });
    Ok(Watch::new(Lifeline::Worker(socket), children, pid, template))
}

/// Runs a program for a port, and exits as it does.
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
