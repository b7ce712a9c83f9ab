//! The warden's main loop: waits for a reason to end the trees, and ends them.

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

/// The state of a warden, from the start of its program.
pub struct Watch<'a> {
    lifeline: Lifeline<'a>,
    children: UnixStream,
    program: Pid,
    /// Where the program is asked to fork, if it is a template.
    template: Option<Template>,
    forest: Forest,
    /// How the program ended, once it has been reaped.
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

    /// Runs until nothing of any tree is left. Returns how the program ended.
    pub fn run(mut self) -> io::Result<Option<Exit>> {
        loop {
            let children = self.forest.look();
            // The program has announced all copies whose leaders are in this list.
            self.read_answers();
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

    /// Reports leaders that have ended, and stops the rest of their trees.
    fn ended(&mut self, ended: Vec<(control::Tree, Exit)>) {
        for (tree, exit) in ended {
            self.lifeline.report(&FromWarden::Exited { tree, exit });
            // During a stop, the rest of the tree has what is left of the grace.
            let left = self.forest.get(tree).and_then(|tree| tree.grace_left());
            self.forest.stop(tree, left.unwrap_or(ORPHAN_GRACE));
            if tree == PROGRAM {
                self.exit = Some(exit);
                self.read_answers();
                for tree in self.forest.expected() {
                    self.refuse(tree, "the template has ended before it has forked".into());
                }
            }
        }
    }

    /// Reads the program's answers about the copies that it was asked for.
    fn read_answers(&mut self) {
        while let Some((number, answer)) = self.template.as_ref().and_then(Template::answer) {
            match (answer, self.forest.get(number).map(|tree| tree.leader)) {
                (Answer::Refused(reason), Some(None)) => self.refuse(number, reason),
                (Answer::Forked(pid), asked) if self.is_ours(pid) => {
                    if let (Some(None), Some(tree)) = (asked, self.forest.get(number)) {
                        tree.leader = Some(Pid::from_raw(pid));
                        self.lifeline.report(&FromWarden::Started { tree: number, pid });
                    } else {
                        // The VM does not want this copy any more.
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

    /// Whether a process is a child of the warden, or will be one as soon as its parent ends: the child of the
    /// program that has forked it.
    fn is_ours(&self, pid: i32) -> bool {
        let (own, program) = (getpid().as_raw(), self.program.as_raw());
        let parent = process_tree::parent(pid);
        let before = parent.and_then(process_tree::parent);
        pid != program
            && (parent == Some(own)
                || before == Some(own)
                || before == Some(program)
                // That parent has ended between the two look-ups above.
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
            // If the program still forks it, `read_answers` ends the copy.
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
        // If the VM or the program is gone, its end stays readable for ever, and must not be polled.
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
        let order = self.vm_is_there && descriptors.get(1).is_some_and(readable);
        if children {
            // The bytes are only a wake-up call. `waitpid` tells what has happened.
            while (&self.children).read(&mut [0; 64]).is_ok_and(|read| read > 0) {}
        }
        if order {
            self.carry_out_order();
        }
        Ok(())
    }

    fn carry_out_order(&mut self) {
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
        // Rounded up: a poll that returned just before the deadline would be repeated without a pause.
        PollTimeout::try_from(pause + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX)
    }
}
