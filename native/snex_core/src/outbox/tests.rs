use super::*;
use crate::frame::{Header, Kind, Part};
use proptest::prelude::*;
use std::io::Read;

fn pipe() -> (std::fs::File, Arc<OwnedFd>) {
    let (reader, writer) = nix::unistd::pipe().unwrap();
    nix::fcntl::fcntl(&writer, nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK)).unwrap();
    (reader.into(), Arc::new(writer))
}

fn frame(bodies: &[Vec<u8>]) -> Frame<Vec<u8>> {
    let mut frame = Frame::new(Header::new(Kind::Eval, 1), b"head");
    frame.segments.extend(bodies.iter().cloned().map(Segment::Shared));
    frame
}

fn bytes(frame: &Frame<Vec<u8>>) -> Vec<u8> {
    frame.segments.iter().flat_map(|segment| segment.as_ref().to_vec()).collect()
}

#[test]
fn a_small_frame_is_written_by_the_one_who_submits_it() {
    let (mut reader, writer) = pipe();
    let mut outbox = Outbox::new(writer, 10, 20);
    assert_eq!(outbox.submit(frame(&[vec![1, 2]])), Submitted::Written);
    drop(outbox);
    let mut read = Vec::new();
    reader.read_to_end(&mut read).unwrap();
    assert_eq!(read, bytes(&frame(&[vec![1, 2]])));
}

#[test]
fn a_full_outbox_says_once_when_it_is_below_the_low_mark() {
    let (mut reader, writer) = pipe();
    let mut outbox = Outbox::new(writer, 1000, 100_000);
    assert_eq!(outbox.submit(frame(&[vec![0; 500_000]])), Submitted::Queued);
    assert!(outbox.wait_if_full());
    loop {
        assert!(!outbox.is_empty());
        reader.read_exact(&mut [0; 4096]).unwrap();
        if outbox.flush().unwrap() {
            break;
        }
    }
    assert!(outbox.queued() <= 1000);
    assert!(!outbox.wait_if_full());
    assert!(!outbox.flush().unwrap());
}

#[test]
fn large_pieces_are_not_freed_until_somebody_asks_for_them() {
    let large = || frame(&[vec![0; LARGE], vec![0; 10], vec![0; LARGE + 1]]);
    let lengths = |outbox: &mut Outbox<Vec<u8>>| -> Vec<usize> {
        outbox.take_spent().iter().map(|piece| piece.as_ref().len()).collect()
    };
    let (mut reader, writer) = pipe();
    let mut outbox = Outbox::new(writer, 10, 20);
    outbox.submit(large());
    while !outbox.is_empty() {
        reader.read_exact(&mut [0; 4096]).unwrap();
        outbox.flush().unwrap();
    }
    assert_eq!(lengths(&mut outbox), [LARGE, LARGE + 1]);
    outbox.submit(large());
    outbox.close();
    assert!(lengths(&mut outbox).ends_with(&[10, LARGE + 1]));
    assert!(outbox.take_spent().is_empty());
}

#[test]
fn a_reader_that_is_gone_closes_the_outbox() {
    let (reader, writer) = pipe();
    drop(reader);
    let mut outbox = Outbox::new(writer, 10, 20);
    assert_eq!(outbox.submit(frame(&[])), Submitted::Closed);
    assert_eq!(outbox.submit(frame(&[])), Submitted::Closed);
}

#[test]
fn a_full_outbox_that_is_closed_has_room_for_nobody_to_wait_for() {
    let (_reader, writer) = pipe();
    let mut outbox = Outbox::new(writer, 1000, 100_000);
    outbox.submit(frame(&[vec![0; 500_000]]));
    assert!(outbox.wait_if_full());
    assert!(outbox.close());
    assert!(!outbox.wait_if_full());
    assert!(!outbox.close());
    assert_eq!(outbox.submit(frame(&[])), Submitted::Closed);
}

fn large(byte: u8) -> Frame<Vec<u8>> {
    let mut pickle = crate::pickle::Pickle::new();
    pickle.buffer(vec![byte; WORTH], crate::pickle::BinaryAs::Memoryview);
    pickle.buffer(vec![byte; 10], crate::pickle::BinaryAs::Bytes);
    pickle.into_frame(Header::new(Kind::Eval, u64::from(byte)))
}

#[test]
fn without_shared_memory_a_large_frame_is_written_like_any_other() {
    let (_reader, writer) = pipe();
    let mut outbox = Outbox::new(writer, 10, 20);
    assert_eq!(outbox.submit(large(1)), Submitted::Queued);
    assert!(outbox.next_unplaced().is_none());
    assert!(outbox.queued() > 0);
}

#[test]
fn a_frame_for_shared_memory_waits_and_so_does_all_that_follows_it_in_order() {
    let (mut reader, writer) = pipe();
    let mut outbox = Outbox::new(writer, WORTH / 2, WORTH);
    outbox.share();
    let small = |byte| frame(&[vec![byte]]);
    assert_eq!(outbox.submit(small(0)), Submitted::Written);
    for frame in [large(1), small(2), large(3), small(4)] {
        assert_eq!(outbox.submit(frame), Submitted::Queued);
    }
    assert_eq!(outbox.queued(), 0);
    assert!(outbox.is_full() && !outbox.is_empty() && outbox.wait_if_full());

    let mut expected = bytes(&small(0));
    let mut freed = 0;
    for after in [2, 4] {
        let mut placed = outbox.next_unplaced().unwrap();
        // Nothing may pass it meanwhile.
        assert_eq!(outbox.submit(small(10 + after)), Submitted::Queued);
        let length = placed.len();
        placed.replace_by_slot(Part::Buffer(0), 7);
        assert_eq!(placed.len(), length - WORTH + 8);
        expected.extend(bytes(&placed));
        outbox.placed(placed, length, WORTH);
        assert!(!outbox.flush().unwrap());
        freed += WORTH;
        if after == 2 {
            expected.extend(bytes(&small(2)));
        }
    }
    for byte in [4, 12, 14] {
        expected.extend(bytes(&small(byte)));
    }
    assert!(outbox.is_empty());
    // What lies in slots counts until Python has taken it.
    assert_eq!(outbox.waiting(), freed);
    assert!(!outbox.mark_read(WORTH));
    assert!(outbox.mark_read(WORTH));
    assert_eq!(outbox.waiting(), 0);
    drop(outbox);
    let mut read = Vec::new();
    reader.read_to_end(&mut read).unwrap();
    assert!(read == expected);
}

#[test]
fn a_frame_that_is_being_placed_when_the_outbox_is_closed_is_dropped() {
    let (_reader, writer) = pipe();
    let mut outbox = Outbox::new(writer, 10, 20);
    outbox.share();
    outbox.submit(large(1));
    outbox.submit(large(2));
    let placing = outbox.next_unplaced().unwrap();
    outbox.close();
    let length = placing.len();
    outbox.placed(placing, length, 0);
    assert!(outbox.is_closed() && outbox.is_empty());
    assert_eq!(outbox.take_spent().iter().filter(|piece| piece.as_ref().len() == WORTH).count(), 2);
    assert_eq!(outbox.submit(large(3)), Submitted::Closed);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn every_byte_arrives_once_and_in_order(
        frames in prop::collection::vec(prop::collection::vec(0usize..200_000, 0..20), 1..6)
    ) {
        let (mut reader, writer) = pipe();
        let mut outbox = Outbox::new(writer, 10, 20);
        let frames: Vec<_> = frames
            .iter()
            .map(|sizes| sizes.iter().map(|size| vec![*size as u8; *size]).collect::<Vec<_>>())
            .collect();
        let expected: Vec<u8> = frames.iter().flat_map(|bodies| bytes(&frame(bodies))).collect();
        for bodies in &frames {
            outbox.submit(frame(bodies));
        }
        let collector = std::thread::spawn(move || {
            let mut read = Vec::new();
            reader.read_to_end(&mut read).unwrap();
            read
        });
        while !outbox.is_empty() {
            outbox.flush().unwrap();
        }
        drop(outbox);
        prop_assert!(collector.join().unwrap() == expected);
    }
}
