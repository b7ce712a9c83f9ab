//! Waiting for the end, and bringing it about.

use crate::forest::Forest;
use crate::lifeline::Lifeline;
use crate::template::{Answer, Template};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getpid};
use snex_core::control::{self, Exit, FromWarden, ORPHAN_GRACE, PROGRAM, ToWarden};
use snex_core::process_tree;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// The state of a warden whose program runs.
pub struct Watch<'a> {
    lifeline: Lifeline<'a>,
    children: UnixStream,
    program: Pid,
    /// Where the program is asked to fork, if it can be.
    template: Option<Template>,
    forest: Forest,
    /// How the program ended, once it has.
    exit: Option<Exit>,
    vm_is_there: bool,
}

impl<'a> Watch<'a> {
    /// Watches over `program`. `children` becomes readable when a child changes state.
    pub fn new(
        lifeline: Lifeline<'a>,
        children: UnixStream,
        program: Pid,
        template: Option<Template>,
    ) -> Self {
        Watch {
            lifeline,
            children,
            program,
            template,
            forest: Forest::new(program),
            exit: None,
            vm_is_there: true,
        }
    }

    /// Returns when nothing of any tree is left: how the program ended.
    pub fn run(mut self) -> io::Result<Option<Exit>> {
        loop {
            let children = self.forest.look();
            // What is among these and leads a copy has been announced by now.
            self.hear();
            let ended = self.forest.reap_leaders();
            self.ended(ended);
            self.forest.adopt(&children);
            self.forest.kill_due();
            let (ended, none_left) = self.forest.reap_all();
            self.ended(ended);
            for tree in self.forest.gone(none_left) {
                self.forest.remove(tree);
                self.lifeline.report(&FromWarden::Gone { tree });
            }
            if self.forest.is_empty() {
                return Ok(self.exit);
            }
            self.wait()?;
        }
    }

    /// Takes notice of leaders that have ended.
    fn ended(&mut self, ended: Vec<(control::Tree, Exit)>) {
        for (tree, exit) in ended {
            self.lifeline.report(&FromWarden::Exited { tree, exit });
            // What Python leaves behind has no reason to stay. In a stop it has the grace that the stop was given.
            let left = self.forest.get(tree).and_then(|tree| tree.grace_left());
            self.forest.stop(tree, left.unwrap_or(ORPHAN_GRACE));
            if tree == PROGRAM {
                self.exit = Some(exit);
                self.hear();
                for tree in self.forest.expected() {
                    self.refuse(tree, "the template has ended before it has forked".into());
                }
            }
        }
    }

    /// Hears what the program says of copies that it was asked for.
    fn hear(&mut self) {
        while let Some((number, answer)) = self.template.as_ref().and_then(Template::answer) {
            match (answer, self.forest.get(number).map(|tree| tree.leader)) {
                (Answer::Refused(reason), Some(None)) => self.refuse(number, reason),
                (Answer::Forked(pid), asked) if self.is_ours(pid) => {
                    if let (Some(None), Some(tree)) = (asked, self.forest.get(number)) {
                        tree.leader = Some(Pid::from_raw(pid));
                        self.lifeline.report(&FromWarden::Started { tree: number, pid });
                    } else {
                        // Nobody wants it any more.
                        process_tree::kill_sparing_group(pid, self.program.as_raw());
                    }
                }
                (Answer::Forked(pid), Some(None)) => {
                    self.refuse(number, format!("process {pid} is no copy of the template"));
                }
                _ => {}
            }
        }
    }

    /// Whether a process is a child of ours, or about to become one, because the child of the program that has forked it ends.
    fn is_ours(&self, pid: i32) -> bool {
        let (own, program) = (getpid().as_raw(), self.program.as_raw());
        let parent = process_tree::parent(pid);
        let before = parent.and_then(process_tree::parent);
        pid != program
            && (parent == Some(own)
                || before == Some(own)
                || before == Some(program)
                // It has ended between the two looks.
                || process_tree::parent(pid) == Some(own))
    }

    fn refuse(&mut self, tree: control::Tree, reason: String) {
        self.forest.remove(tree);
        self.lifeline.report(&FromWarden::Failed { tree, reason });
    }

    fn fork(&mut self, tree: control::Tree, ignore_threads: bool, descriptors: &[OwnedFd]) {
        let program = self.forest.get(PROGRAM).filter(|program| program.grace_left().is_none());
        let asked = match (&self.template, program.and_then(|program| program.living())) {
            (Some(template), Some(_)) if self.forest.is_listed() => {
                template.ask(tree, ignore_threads, descriptors)
            }
            (_, None) => Err("the template has ended"),
            _ => Err("without /proc, copies cannot be told apart"),
        };
        match asked {
            Ok(()) => self.forest.expect(tree),
            Err(reason) => self.refuse(tree, reason.into()),
        }
    }

    fn stop(&mut self, number: control::Tree, grace: Duration) {
        if self.forest.get(number).is_some_and(|tree| tree.leader.is_none()) {
            // If it is forked all the same, nobody wants it.
            self.forest.remove(number);
            self.lifeline.report(&FromWarden::Gone { tree: number });
        } else {
            self.forest.stop(number, grace);
        }
    }

    fn stop_all(&mut self) {
        for tree in self.forest.numbers() {
            self.stop(tree, ORPHAN_GRACE);
        }
    }

    fn wait(&mut self) -> io::Result<()> {
        let watched = |fd| PollFd::new(fd, PollFlags::POLLIN);
        let mut descriptors = vec![watched(self.children.as_fd())];
        // The lifeline of a VM that is gone stays readable for ever, and so does the socket of a program that is gone.
        if self.vm_is_there {
            descriptors.push(watched(self.lifeline.as_fd()));
        }
        if let Some(template) = self.template.as_ref().filter(|_| self.exit.is_none()) {
            descriptors.push(watched(template.as_fd()));
        }
        match poll(&mut descriptors, self.timeout()) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        let readable = |fd: &PollFd<'_>| fd.any() == Some(true);
        let children = readable(&descriptors[0]);
        let news = self.vm_is_there && descriptors.get(1).is_some_and(readable);
        if children {
            // Only a wake-up; what happened, waitpid tells.
            while (&self.children).read(&mut [0; 64]).is_ok_and(|read| read > 0) {}
        }
        if news {
            self.obey();
        }
        Ok(())
    }

    fn obey(&mut self) {
        match self.lifeline.order() {
            Ok(Some((ToWarden::Stop { tree, grace_ms }, _))) => {
                self.stop(tree, Duration::from_millis(grace_ms));
            }
            Ok(Some((ToWarden::Interrupt { tree }, _))) => {
                if let Some(leader) = self.forest.get(tree).and_then(|tree| tree.living()) {
                    let _ = kill(leader, Signal::SIGURG);
                }
            }
            Ok(Some((ToWarden::Fork { tree, ignore_threads }, descriptors))) => {
                self.fork(tree, ignore_threads, &descriptors);
            }
            Ok(Some((ToWarden::Start(_), _)) | None) | Err(_) => {
                self.vm_is_there = false;
                self.stop_all();
            }
        }
    }

    fn timeout(&self) -> PollTimeout {
        let Some(pause) = self.forest.pause() else { return PollTimeout::NONE };
        if pause.is_zero() {
            return PollTimeout::ZERO;
        }
        // Rounded up: a poll that returned just before the deadline would spin until it.
        PollTimeout::try_from(pause + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX)
    }
}
