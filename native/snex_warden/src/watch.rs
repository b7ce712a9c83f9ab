//! Waiting for the end, and bringing it about.

use crate::lifeline::Lifeline;
use crate::tree;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use snex_core::control::{Exit, FromWarden, ORPHAN_GRACE, ToWarden};
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// How often the tree is searched again once it is being killed: a process may fork in between.
const SEARCH_INTERVAL: Duration = Duration::from_millis(20);

/// The state of a warden whose program runs.
pub struct Watch<'a> {
    lifeline: Lifeline<'a>,
    children: UnixStream,
    leader: Pid,
    /// How the leader ended, once it has.
    exit: Option<Exit>,
    vm_is_there: bool,
    /// When SIGTERM turns into SIGKILL; `None` while nothing is being stopped.
    deadline: Option<Instant>,
    terminator: tree::Terminator,
    killer: tree::Killer,
    /// Whether the last round of killing asked for the next one at once.
    restless: bool,
}

impl<'a> Watch<'a> {
    /// Watches over `leader`. `children` becomes readable when a child changes state.
    pub fn new(lifeline: Lifeline<'a>, children: UnixStream, leader: Pid) -> Self {
        Watch {
            lifeline,
            children,
            leader,
            exit: None,
            vm_is_there: true,
            deadline: None,
            terminator: tree::Terminator::default(),
            killer: tree::Killer::default(),
            restless: false,
        }
    }

    /// Returns when nothing of the tree is left: how the leader ended.
    pub fn run(mut self) -> io::Result<Option<Exit>> {
        loop {
            let reaped = tree::reap(self.leader);
            if let Some(exit) = reaped.leader {
                self.exit = Some(exit);
                self.lifeline.tell(&FromWarden::Exited(exit));
                // What Python leaves behind has no reason to stay. In a stop it has the grace that the stop was given.
                let left = self.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
                self.stop(left.unwrap_or(ORPHAN_GRACE));
            }
            if reaped.none_left {
                self.lifeline.tell(&FromWarden::Gone);
                return Ok(self.exit);
            }
            if self.deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                self.restless = self.killer.round(self.leader);
            }
            self.wait()?;
        }
    }

    fn stop(&mut self, grace: Duration) {
        let deadline = Instant::now() + grace;
        self.deadline = Some(self.deadline.map_or(deadline, |earlier| earlier.min(deadline)));
        self.terminator.round(self.leader);
    }

    fn wait(&mut self) -> io::Result<()> {
        let children = PollFd::new(self.children.as_fd(), PollFlags::POLLIN);
        let lifeline = PollFd::new(self.lifeline.as_fd(), PollFlags::POLLIN);
        let mut descriptors = [children, lifeline];
        // The lifeline of a VM that is gone stays readable for ever.
        let watched = if self.vm_is_there { &mut descriptors[..] } else { &mut descriptors[..1] };
        match poll(watched, self.timeout()) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        let readable = |fd: &PollFd<'_>| fd.any() == Some(true);
        let (children, news) = (readable(&descriptors[0]), readable(&descriptors[1]));
        if children {
            // Only a wake-up; what happened, waitpid tells.
            while (&self.children).read(&mut [0; 64]).is_ok_and(|read| read > 0) {}
        }
        if news && self.vm_is_there {
            match self.lifeline.order() {
                Ok(Some(ToWarden::Stop { grace_ms })) => self.stop(Duration::from_millis(grace_ms)),
                // Reaped only above: until then its number is nobody else's.
                Ok(Some(ToWarden::Interrupt)) if self.exit.is_none() => {
                    let _ = kill(self.leader, Signal::SIGURG);
                }
                Ok(Some(ToWarden::Interrupt)) => {}
                Ok(Some(ToWarden::Start(_)) | None) | Err(_) => {
                    self.vm_is_there = false;
                    self.stop(ORPHAN_GRACE);
                }
            }
        }
        Ok(())
    }

    fn timeout(&self) -> PollTimeout {
        let Some(deadline) = self.deadline else { return PollTimeout::NONE };
        if self.restless {
            return PollTimeout::ZERO;
        }
        let left = deadline.saturating_duration_since(Instant::now());
        let wait = if left.is_zero() { SEARCH_INTERVAL } else { left };
        // Rounded up: a poll that returned just before the deadline would spin until it.
        PollTimeout::try_from(wait + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX)
    }
}
