//! Properties that have to hold for any bytes from outside. The targets in `fuzz/` search for bytes that violate them. The tests
//! here check the bytes that were found or written earlier (`fuzz/corpus`), and variations of them.

use crate::allow::{Allow, Rule};
use crate::control::{self, FromWarden, ToWarden};
use crate::frame::{self, FrameError, Header, SHARED};
use crate::handles::{Alive, Drops, Key, Kind};
use crate::handshake;
use crate::project;
use crate::shared_memory::{self, SlotReport, Slots};
#[cfg(target_os = "linux")]
use crate::shared_memory::{Arena, PLACE_LEN};
use crate::worker::frame_reader::{Bytes, FrameReader, ReadError};
#[cfg(target_os = "linux")]
use crate::worker::inbound::Inbound;
use std::collections::{BTreeMap, HashSet};
use std::future::Future;
use std::io;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

/// The number of bytes at the start of an input that decide how the rest is cut into pieces.
const CUTS: usize = 8;

/// The most bytes of a value. Inputs claim lengths on both sides of it.
const LIMIT: u64 = 1 << 32;

/// A stream that is read in pieces.
struct Pieces<'a> {
    cuts: [u8; CUTS],
    next: usize,
    rest: &'a [u8],
}

impl Bytes for Pieces<'_> {
    async fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let cut = usize::from(self.cuts[self.next % CUTS]);
        self.next += 1;
        // Some pieces fill the reader's buffer.
        let length = if cut < 250 { 1 + cut } else { usize::MAX };
        let length = length.min(buffer.len()).min(self.rest.len());
        let (piece, rest) = self.rest.split_at(length);
        buffer[..length].copy_from_slice(piece);
        self.rest = rest;
        Ok(length)
    }
}

/// The value of a future that never waits.
fn now<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("nothing here waits"),
    }
}

/// The reader finds the same frames however the bytes are cut into pieces, and the same first error.
///
/// # Panics
/// If that does not hold.
pub fn frames(data: &[u8]) {
    let Some((cuts, stream)) = data.split_first_chunk::<CUTS>() else { return };
    let mut reader = FrameReader::new(Pieces { cuts: *cuts, next: 0, rest: stream }, LIMIT);
    let mut rest = stream;
    loop {
        let read = now(reader.frame::<Vec<u8>>());
        let header = match frame::read_header(rest) {
            Ok(Some(header)) => header,
            Ok(None) if rest.is_empty() => return assert_eq!(read, Err(ReadError::EndOfFile)),
            Ok(None) => return assert!(matches!(read, Err(ReadError::CutShort(_))), "{read:?}"),
            Err(error) => return assert_same_fault(&error, read.map(|_| ())),
        };
        if header.length > LIMIT + frame::SPARE {
            let Header { kind, length, .. } = header;
            let error = FrameError::TooLarge { kind: kind as u8, length, limit: LIMIT };
            return assert_same_fault(&error, read.map(|_| ()));
        }
        if header.flags & SHARED != 0 {
            let Header { kind, flags, .. } = header;
            let error = FrameError::UnknownFlags { kind: kind as u8, flags };
            return assert_same_fault(&error, read.map(|_| ()));
        }
        let start = header.kind.header_len();
        let body = &rest[start..];
        let Some(body) = usize::try_from(header.length).ok().and_then(|length| body.get(..length)) else {
            let cut = FrameError::CutShort { got: body.len() as u64, expected: header.length };
            return assert_eq!(read, Err(ReadError::CutShort(cut.to_string())));
        };
        assert_eq!(read, Ok((header, body.to_vec())));
        rest = &rest[start + body.len()..];
    }
}

/// Each byte of the shared memory that [`places`] reads from.
#[cfg(target_os = "linux")]
fn shared_byte(at: usize) -> u8 {
    (at % 251) as u8
}

/// The reader copies a body from its place in shared memory, and gives its slot back once. It refuses a place outside the arena.
///
/// # Panics
/// If that does not hold.
#[cfg(target_os = "linux")]
pub fn places(stream: &[u8]) {
    use std::sync::{Arc, LazyLock};
    // Less than a piece, so that the reader never yields.
    const SIZE: usize = 256 * 1024;
    static ARENA: LazyLock<Arc<Arena>> = LazyLock::new(|| {
        let arena = Arena::new(SIZE as u64).unwrap_or_else(|error| panic!("{error}"));
        let bytes: Vec<u8> = (0..SIZE).map(shared_byte).collect();
        arena.write(&bytes, 0).unwrap_or_else(|error| panic!("{error}"));
        Arc::new(arena)
    });
    let mut reader = FrameReader::new(Pieces { cuts: [u8::MAX; CUTS], next: 0, rest: stream }, LIMIT);
    reader.inbound = Some(Inbound::new(Arc::clone(&ARENA)));
    let mut rest = stream;
    while let Ok(Some(header)) = frame::read_header(rest) {
        let read = now(reader.frame::<Vec<u8>>());
        let body = &rest[header.kind.header_len()..];
        let Some(body) = usize::try_from(header.length).ok().and_then(|length| body.get(..length)) else {
            return assert!(read.is_err(), "{read:?}");
        };
        rest = &rest[header.kind.header_len() + body.len()..];
        if header.flags & SHARED == 0 {
            assert_eq!(read, Ok((header, body.to_vec())));
            continue;
        }
        let place = <[u8; PLACE_LEN]>::try_from(body).ok();
        let place = place.and_then(|place| shared_memory::read_place(place, SIZE as u64).ok());
        let Some(place) = place else {
            return assert!(matches!(read, Err(ReadError::Broken(_))), "{read:?}");
        };
        let start = place.offset as usize;
        let content: Vec<u8> = (start..start + place.length as usize).map(shared_byte).collect();
        let header = Header { flags: header.flags & !SHARED, length: place.length, ..header };
        assert_eq!(read, Ok((header, content)));
        let given_back =
            reader.inbound.as_mut().map(|inbound| (inbound.take_copied_slot(), inbound.take_copied_slot()));
        assert_eq!(given_back, Some((Some(place.offset), None)));
    }
}

/// Nothing to check: this system has no shared memory.
#[cfg(not(target_os = "linux"))]
pub fn places(_stream: &[u8]) {}

/// Compares the error of a reader with the expected one. How much garbage is quoted depends on how much had arrived.
fn assert_same_fault(error: &FrameError, read: Result<(), ReadError>) {
    let Err(ReadError::Broken(seen)) = read else { panic!("{error}, but {read:?}") };
    match error {
        FrameError::Garbage(_) => assert!(seen.starts_with("expected a frame, got "), "{error}, but {seen}"),
        _ => assert_eq!(error.to_string(), seen),
    }
}

/// A first frame is read, or refused with an error message whose length is limited by the body's.
///
/// # Panics
/// If that does not hold.
pub fn greeting(body: &[u8]) {
    if let Err(error) = handshake::read_ready(body, "0") {
        assert!(error.to_string().len() <= 4 * body.len() + 200);
    }
    let error = handshake::read_refused(body, "0");
    assert!(error.to_string().len() <= 4 * body.len() + 200);
}

/// Every mistake in a project is reported with a place in its text, and moving paths keeps the lines.
///
/// # Panics
/// If that does not hold.
pub fn project(text: &[u8]) {
    let lines: Vec<&[u8]> = text.split(|byte| *byte == b'\n').collect();
    if let Ok(text) = std::str::from_utf8(text) {
        let moved = project::rebase(text, "../x");
        assert_eq!(moved.matches('\n').count(), text.matches('\n').count());
        assert!(project::locals(text).iter().all(|local| local.folder != "."));
        let moved = project::rebase_lock(text, "/a/b", "/c");
        assert_eq!(moved.matches('\n').count(), text.matches('\n').count());
        let _ = project::has_member(text.as_bytes(), "a/b");
    }
    for problem in project::read(text).problems {
        assert!(!problem.value.is_empty());
        let line = problem.line.checked_sub(1).and_then(|index| lines.get(index));
        assert!(
            line.is_some_and(|line| (1..=line.len() + 1).contains(&problem.column)),
            "{problem:?}, but {} lines",
            lines.len()
        );
    }
}

/// A call is allowed only if it names what a rule allows.
///
/// # Panics
/// If that does not hold.
pub fn allow(body: &[u8]) {
    let module = b"Elixir.Enum".to_vec();
    assert!(Allow::Only(HashSet::new()).check(body).is_err());
    for rule in [
        Rule::Module(module.clone()),
        Rule::Function(module.clone(), b"map".to_vec()),
        Rule::Arity(module, b"map".to_vec(), 2),
    ] {
        if Allow::Only(HashSet::from([rule])).check(body).is_ok() {
            assert!(body.windows(11).any(|window| window == b"Elixir.Enum"));
        }
    }
}

/// Reports about slots are read, or refused, and no slot is reserved twice.
///
/// # Panics
/// If that does not hold.
pub fn slots(body: &[u8]) {
    const SIZE: u64 = 1 << 20;
    if let Some((place, _)) = body.split_first_chunk()
        && let Ok(place) = shared_memory::read_place(*place, SIZE)
    {
        assert!(place.offset <= SIZE && place.length <= SIZE - place.offset);
    }
    let Some(reports) = shared_memory::read_slot_reports(body) else { return };
    let mut slots = Slots::new(SIZE);
    let mut used = HashSet::new();
    for report in reports {
        if let Some(slot) = slots.reserve(0, 1) {
            assert!(used.insert(slot.offset));
        }
        match report {
            SlotReport::Taken(offset) => assert_eq!(slots.taken(offset).is_ok(), used.contains(&offset)),
            SlotReport::Free(offset) => assert_eq!(slots.free(offset).is_ok(), used.remove(&offset)),
        }
        assert_eq!(slots.bytes(), used.len() as u64 * shared_memory::ALIGN);
    }
}

/// A table of handles has the length that it claims, or is refused. Each of its handles is given back once.
///
/// # Panics
/// If that does not hold.
pub fn handles(body: &[u8]) {
    let said = body.first_chunk().map(|count| 8 * u64::from(u32::from_le_bytes(*count)));
    let Some((ids, start)) = frame::split_handles(body) else {
        return assert!(said.is_none_or(|said| said > body.len() as u64 - 4), "{said:?}");
    };
    assert_eq!(Some(start as u64), said.map(|said| 4 + said));
    let alive = Alive::default();
    let mut given = BTreeMap::new();
    let mut drops = Drops::default();
    let mut table = Vec::new();
    for id in ids {
        table.extend_from_slice(&id.to_le_bytes());
        *given.entry(id).or_insert(0) += 1;
        alive.receive(Key { kind: Kind::Object, id });
    }
    assert_eq!(body[4..start], table);
    for (id, count) in &given {
        let key = Key { kind: Kind::Object, id: *id };
        for _ in 0..*count {
            drops.add(key, alive.dropped(key));
        }
        assert_eq!(alive.dropped(key), 0);
    }
    assert_eq!(alive.len_of(Kind::Object), 0);
    let records = drops.take_body().unwrap_or_default();
    let (records, rest) = records.as_chunks::<13>();
    let record = |[kind, rest @ ..]: &[u8; 13]| {
        let (id, count) = rest.split_at(8);
        (
            *kind,
            id.first_chunk().map(|id| u64::from_le_bytes(*id)),
            count.first_chunk().map(|n| u32::from_le_bytes(*n)),
        )
    };
    let expected: Vec<_> = given.into_iter().map(|(id, count)| (1, Some(id), Some(count))).collect();
    assert_eq!((records.iter().map(record).collect(), rest), (expected, &[][..]));
}

/// A message between the VM and a warden is read, or refused. Encoding what was read gives an equal message.
///
/// # Panics
/// If that does not hold.
pub fn control(body: &[u8]) {
    if let Ok(message) = control::decode::<ToWarden>(body) {
        let again = control::encode(&message).map(|bytes| control::decode::<ToWarden>(&bytes[4..]).ok());
        assert_eq!(again.ok().flatten(), Some(message));
    }
    if let Ok(message) = control::decode::<FromWarden>(body) {
        let again = control::encode(&message).map(|bytes| control::decode::<FromWarden>(&bytes[4..]).ok());
        assert_eq!(again.ok().flatten(), Some(message));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::path::Path;
    use std::sync::LazyLock;

    type Target = (&'static str, fn(&[u8]));

    const TARGETS: [Target; 8] = [
        ("frames", frames),
        ("places", places),
        ("greeting", greeting),
        ("project", project),
        ("allow", allow),
        ("control", control),
        ("slots", slots),
        ("handles", handles),
    ];

    static CORPORA: LazyLock<Vec<Vec<Vec<u8>>>> =
        LazyLock::new(|| TARGETS.iter().map(|(name, _)| corpus(name)).collect());

    fn corpus(target: &str) -> Vec<Vec<u8>> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
        let files =
            std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        let mut paths: Vec<_> = files.map(|file| file.unwrap().path()).collect();
        paths.sort();
        paths.iter().map(|path| std::fs::read(path).unwrap()).collect()
    }

    #[test]
    fn what_was_found_before_does_no_harm() {
        for ((name, target), corpus) in TARGETS.iter().zip(&*CORPORA) {
            assert!(corpus.len() >= 5, "the corpus of {name} has {} files", corpus.len());
            for bytes in corpus {
                target(bytes);
            }
        }
    }

    proptest! {
        #[test]
        fn what_is_like_it_does_no_harm_either(
            pick: prop::sample::Index,
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
            cut: prop::sample::Index,
            target in 0..TARGETS.len(),
        ) {
            let corpus = &CORPORA[target];
            let (_, target) = TARGETS[target];
            let mut bytes = corpus[pick.index(corpus.len())].clone();
            for (place, byte) in changes {
                if !bytes.is_empty() {
                    let place = place.index(bytes.len());
                    bytes[place] = byte;
                }
            }
            target(&bytes);
            target(&bytes[..cut.index(bytes.len() + 1)]);
        }

        #[test]
        fn no_bytes_do_harm(bytes: Vec<u8>) {
            for (_, target) in TARGETS {
                target(&bytes);
            }
        }
    }
}
