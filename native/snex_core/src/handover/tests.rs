use super::*;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use proptest::prelude::*;
use proptest::sample::Index;
use std::collections::VecDeque;
use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::IoSlice;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

const SEALS: [SealFlag; 3] = [SealFlag::F_SEAL_SHRINK, SealFlag::F_SEAL_GROW, SealFlag::F_SEAL_WRITE];

fn file(content: &[u8], seals: &[SealFlag]) -> File {
    named(c"test", content, seals)
}

fn named(name: &CStr, content: &[u8], seals: &[SealFlag]) -> File {
    // SAFETY: the name ends with a NUL; the rest are plain numbers.
    let fd = unsafe { libc::memfd_create(name.as_ptr(), libc::MFD_ALLOW_SEALING) };
    assert!(fd >= 0);
    // SAFETY: the kernel has just made this descriptor.
    let file = unsafe { File::from_raw_fd(fd) };
    file.write_all_at(content, 0).unwrap();
    for seal in seals {
        fcntl(&file, FcntlArg::F_ADD_SEALS(*seal)).unwrap();
    }
    file
}

fn send(socket: &OwnedFd, bytes: &[u8], files: &[&File]) {
    let raw: Vec<RawFd> = files.iter().map(|file| file.as_raw_fd()).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let rights = if raw.is_empty() { &[][..] } else { &rights[..] };
    sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(bytes)], rights, MsgFlags::empty(), None).unwrap();
}

#[test]
fn memory_is_found_by_its_number_whatever_has_come_before() {
    let (handover, theirs) = Handover::new(1000).unwrap();
    for number in 1..=3u64 {
        send(&theirs, &number.to_le_bytes(), &[&file(&[number as u8; 10], &SEALS)]);
    }
    drop(theirs);
    for number in [2, 3, 1] {
        assert_eq!(handover.take_memory(number).unwrap().as_ref(), [number as u8; 10]);
    }
    assert_eq!(handover.take_memory(1 | MEMORY).unwrap_err(), "memory 1 that has not been handed over");
}

#[test]
fn memory_that_can_be_changed_is_refused() {
    let (handover, theirs) = Handover::new(1000).unwrap();
    for missing in SEALS {
        let seals: Vec<_> = SEALS.into_iter().filter(|seal| *seal != missing).collect();
        send(&theirs, &1u64.to_le_bytes(), &[&file(b"content", &seals)]);
        assert_eq!(handover.take_memory(1).unwrap_err(), "memory that can still be changed");
    }
}

#[test]
fn what_is_no_memory_or_has_no_size_that_a_value_may_have_is_refused() {
    let (handover, theirs) = Handover::new(1000).unwrap();
    let send = |file: &File| send(&theirs, &1u64.to_le_bytes(), &[file]);
    send(&File::open("/dev/zero").unwrap());
    assert_eq!(handover.take_memory(1).unwrap_err(), "a file that is no memory");
    send(&file(b"", &SEALS));
    assert!(handover.take_memory(1).unwrap_err().starts_with("memory of 0 bytes"));
    send(&file(&[7; 1001], &SEALS));
    assert!(handover.take_memory(1).unwrap_err().starts_with("memory of 1001 bytes, and the limit is 1000"));
}

#[test]
fn holes_are_filled_before_it_is_mapped() {
    let (handover, theirs) = Handover::new(1 << 20).unwrap();
    for content in [&[][..], &[0; 4096], &[0; 1 << 19]] {
        let sparse = file(content, &[]);
        sparse.set_len(1 << 20).unwrap();
        for seal in SEALS {
            fcntl(&sparse, FcntlArg::F_ADD_SEALS(seal)).unwrap();
        }
        send(&theirs, &1u64.to_le_bytes(), &[&sparse]);
        assert!(handover.take_memory(1).unwrap().as_ref().iter().all(|byte| *byte == 0));
        assert_eq!(nix::sys::stat::fstat(sparse.as_fd()).unwrap().st_blocks, 2048);
    }
}

#[test]
fn a_number_that_is_handed_over_twice_is_refused() {
    let (handover, theirs) = Handover::new(1000).unwrap();
    for number in [1, 1, 2] {
        send(&theirs, &(number | MEMORY).to_le_bytes(), &[&file(b"content", &SEALS)]);
    }
    assert_eq!(handover.take_memory(2 | MEMORY).unwrap_err(), "memory 1 that has been handed over twice");
}

#[test]
fn messages_of_another_form_are_refused() {
    for (bytes, count) in [(&[1; 8][..], 0), (&[1; 8], 2), (&[1; 3], 1), (&[1; 3], 0)] {
        let (handover, theirs) = Handover::new(1000).unwrap();
        let file = file(b"content", &SEALS);
        send(&theirs, bytes, &vec![&file; count]);
        drop(theirs);
        assert!(handover.take_memory(1).unwrap_err().ends_with("instead of a number and a memory file"));
    }
}

/// A handover and files of a name that no other test uses, so that they can be counted.
struct Traffic {
    name: CString,
    handover: Handover,
    theirs: OwnedFd,
    sent: u64,
}

impl Traffic {
    fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let name = CString::new(format!("traffic-{}-", NEXT.fetch_add(1, Relaxed))).unwrap();
        let (handover, theirs) = Handover::new(1000).unwrap();
        Traffic { name, handover, theirs, sent: 0 }
    }

    /// Sends a new file `count` times in one message. Its content is how many were sent before it.
    fn send(&mut self, number: u64, count: usize) -> u64 {
        let content = self.sent;
        let file = named(&self.name, &content.to_le_bytes(), &SEALS);
        send(&self.theirs, &number.to_le_bytes(), &vec![&file; count]);
        self.sent += 1;
        content
    }

    /// How many descriptors this process has of its files.
    fn open(name: &CStr) -> usize {
        let name = format!("/memfd:{}", name.to_str().unwrap());
        let files = std::fs::read_dir("/proc/self/fd").unwrap();
        // Another thread may close one meanwhile.
        let paths = files.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
        paths.filter(|path| path.to_string_lossy().starts_with(&name)).count()
    }

    /// How many of its files are mapped.
    fn mapped(name: &CStr) -> usize {
        let name = format!("/memfd:{}", name.to_str().unwrap());
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        maps.lines().filter(|line| line.contains(&name)).count()
    }
}

#[test]
fn no_descriptor_of_a_message_with_too_many_stays_open() {
    for count in [2, ROOM, ROOM + 1, 253] {
        let mut traffic = Traffic::new();
        traffic.send(1, count);
        assert!(
            traffic.handover.take_memory(1).unwrap_err().ends_with("instead of a number and a memory file")
        );
        assert_eq!(Traffic::open(&traffic.name), 0, "of {count}");
    }
}

#[derive(Debug, Clone)]
enum Step {
    Send(u64),
    Take(u64),
    Drop(Index),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => (0..8u64).prop_map(Step::Send),
        4 => (0..8u64).prop_map(Step::Take),
        1 => any::<Index>().prop_map(Step::Drop),
    ]
}

/// What is expected: messages in the order in which they were sent, and the files of those that had to be read before another.
#[derive(Default)]
struct Model {
    sent: VecDeque<(u64, u64)>,
    waiting: BTreeMap<u64, u64>,
}

/// What may be wrong with a number.
#[derive(Debug, PartialEq)]
enum Wrong {
    Unknown,
    Twice,
    TooMany,
}

impl Model {
    fn take_memory(&mut self, number: u64) -> Result<u64, Wrong> {
        if let Some(content) = self.waiting.remove(&number) {
            return Ok(content);
        }
        while let Some((other, content)) = self.sent.pop_front() {
            if other == number {
                return Ok(content);
            }
            if self.waiting.len() == MOST_WAITING {
                return Err(Wrong::TooMany);
            }
            if self.waiting.contains_key(&other) {
                return Err(Wrong::Twice);
            }
            self.waiting.insert(other, content);
        }
        Err(Wrong::Unknown)
    }
}

fn wrong(message: &str) -> Wrong {
    if message.ends_with("has not been handed over") {
        Wrong::Unknown
    } else if message.ends_with("has been handed over twice") {
        Wrong::Twice
    } else {
        assert!(message.starts_with("more than 4 memory files"), "{message}");
        Wrong::TooMany
    }
}

fn content(memory: &Memory) -> u64 {
    u64::from_le_bytes(memory.as_ref().try_into().unwrap())
}

proptest! {
    #[test]
    fn a_number_stands_for_the_file_that_was_sent_with_it(steps in prop::collection::vec(step(), 0..60)) {
        let (mut traffic, mut model) = (Traffic::new(), Model::default());
        let mut taken: Vec<(Memory, u64)> = Vec::new();
        for step in steps {
            match step {
                Step::Send(number) => {
                    let content = traffic.send(number, 1);
                    model.sent.push_back((number, content));
                }
                Step::Take(number) => match (traffic.handover.take_memory(number), model.take_memory(number)) {
                    (Ok(memory), Ok(expected)) => {
                        prop_assert_eq!(content(&memory), expected);
                        taken.push((memory, expected));
                    }
                    (Err(message), Err(expected)) => {
                        prop_assert_eq!(&wrong(&message), &expected);
                        // The interpreter ends. A number that is not there ends it as well, but spoils nothing here.
                        if expected != Wrong::Unknown {
                            break;
                        }
                    }
                    (had, expected) => prop_assert!(false, "{had:?} instead of {expected:?}"),
                },
                Step::Drop(index) => {
                    if !taken.is_empty() {
                        taken.swap_remove(index.index(taken.len()));
                    }
                }
            }
            prop_assert_eq!(Traffic::open(&traffic.name), model.waiting.len());
        }
        // What has been taken stays as it was, whatever becomes of the rest.
        let Traffic { name, handover, theirs, .. } = traffic;
        drop((handover, theirs));
        prop_assert_eq!((Traffic::open(&name), Traffic::mapped(&name)), (0, taken.len()));
        for (memory, expected) in &taken {
            prop_assert_eq!(content(memory), *expected);
        }
        drop(taken);
        prop_assert_eq!(Traffic::mapped(&name), 0);
    }
}
