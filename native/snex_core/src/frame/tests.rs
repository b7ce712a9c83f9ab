use super::*;
use proptest::prelude::*;

fn header_bytes(kind: u8, flags: u8, id: u64, length: u64) -> Vec<u8> {
    let mut bytes = vec![0; HEADER_LEN];
    Header { flags, length, ..Header::new(Kind::Result, id) }.write(&mut bytes);
    bytes[2] = kind;
    bytes
}

#[test]
fn garbage_is_recognised_by_its_first_byte_and_quoted() {
    let error = read_header(b"Traceback (most\n").unwrap_err();
    assert_eq!(error.to_string(), r#"expected a frame, got "Traceback (most\n""#);
    assert!(read_header(b"T").is_err());
    assert_eq!(read_header(b"S"), Ok(None));
}

#[test]
fn an_unknown_kind_is_refused_by_name() {
    let error = read_header(&header_bytes(0x7f, 0, 1, 0)).unwrap_err();
    assert_eq!(error.to_string(), "frame of unknown kind 0x7f");
}

#[test]
fn a_kind_that_only_the_vm_sends_is_refused() {
    assert_eq!(read_header(&header_bytes(Kind::Eval as u8, 0, 1, 0)), Err(FrameError::UnknownKind(2)));
}

#[test]
fn an_unknown_flag_is_refused() {
    let error = read_header(&header_bytes(0x83, 0x40, 1, 0)).unwrap_err();
    assert_eq!(error.to_string(), "frame of kind 0x83 with unknown flags 0x40");
    assert!(read_header(&header_bytes(Kind::Print as u8, SHARED, 1, 0)).is_err());
}

#[test]
fn a_length_beyond_all_memory_is_refused() {
    let error = read_header(&header_bytes(0x83, 0, 1, 1 << 63)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "frame of kind 0x83 with 9223372036854775808 bytes, more than memory can hold"
    );
}

#[test]
fn of_a_pickle_in_a_slot_only_the_offset_travels() {
    for buffers in [0, 2] {
        let mut pickle = crate::pickle::Pickle::<Vec<u8>>::new();
        pickle.binary(&[b'x'; 60_000], BinaryAs::Bytes);
        for _ in 0..buffers {
            pickle.buffer(vec![7; 300], BinaryAs::Memoryview);
        }
        while pickle.len() < LARGE {
            assert_eq!(pickle.checkpoint().memo(), 0);
            pickle.binary(&[b'x'; 60_000], BinaryAs::Bytes);
        }
        let header = Header { flags: THREAD, cause: 5, ..Header::new(Kind::Eval, 1) };
        let mut frame = pickle.into_frame(header);
        let content = frame.part(Part::Pickle).unwrap().to_vec();
        assert!(content.starts_with(b"\x80\x05") && content.ends_with(b"."));
        let parts: Vec<_> = frame.parts_for_slots(301).collect();
        assert_eq!(parts, [Part::Pickle]);
        frame.replace_by_slot(Part::Pickle, 0x1_0020);
        // It is there once only.
        assert_eq!(frame.part(Part::Pickle), None);
        frame.replace_by_slot(Part::Pickle, 0);

        let head = frame.segments[0].as_ref();
        let rest: Vec<u8> = frame.segments[1..].iter().flat_map(|part| part.as_ref().to_vec()).collect();
        let length = (head.len() + rest.len() - HEADER_LEN) as u64;
        let mut expected = vec![0; HEADER_LEN];
        Header { flags: THREAD | BUFFERS, length, ..header }.write(&mut expected);
        expected.extend_from_slice(&(buffers + 1u32).to_le_bytes());
        expected.push(PICKLE | IN_SLOT);
        expected.extend_from_slice(&(content.len() as u64).to_le_bytes());
        for _ in 0..buffers {
            expected.push(BinaryAs::Memoryview as u8);
            expected.extend_from_slice(&300u64.to_le_bytes());
        }
        assert_eq!(head, expected);
        let mut expected = 0x1_0020_u64.to_le_bytes().to_vec();
        expected.extend(std::iter::repeat_n(7, 300 * buffers as usize));
        assert_eq!(rest, expected);
    }
}

#[test]
fn what_python_copies_takes_a_slot_only_up_to_a_size() {
    let in_slots = |length, kind| {
        let mut pickle = crate::pickle::Pickle::<Vec<u8>>::new();
        pickle.buffer(vec![7; length], kind);
        pickle.into_frame(Header::new(Kind::Eval, 1)).parts_for_slots(300).count()
    };
    let kinds = [BinaryAs::Bytes, BinaryAs::Memoryview];
    let counts = |length| kinds.map(|kind| in_slots(length, kind));
    assert_eq!(counts(LARGE - 1), [0, 1]);
    assert_eq!(counts(LARGE), [1, 1]);
    assert_eq!(counts(MOST), [1, 1]);
    assert_eq!(counts(MOST + 1), [0, 1]);
}

#[test]
fn of_a_buffer_in_a_slot_only_the_offset_travels() {
    let mut pickle = crate::pickle::Pickle::<Vec<u8>>::new();
    for length in [5, 300] {
        pickle.buffer(vec![7; length], crate::pickle::BinaryAs::Memoryview);
    }
    let mut frame = pickle.into_frame(Header::new(Kind::Eval, 1));
    assert_eq!(frame.parts_for_slots(300).collect::<Vec<_>>(), [Part::Buffer(1)]);
    assert_eq!(frame.parts_for_slots(301).next(), None);
    frame.replace_by_slot(Part::Buffer(1), 0x10000);
    // It is there once only, and nothing else is a buffer.
    frame.replace_by_slot(Part::Buffer(1), 0);
    frame.replace_by_slot(Part::Buffer(2), 0);
    let [head, pickle, small, large] = &frame.segments[..] else { panic!() };
    assert_eq!(head.as_ref()[HEADER_LEN..], *b"\x02\0\0\0\x03\x05\0\0\0\0\0\0\0\x83\x2c\x01\0\0\0\0\0\0");
    let length = u64::from_le_bytes(*head.as_ref()[12..].first_chunk().unwrap());
    assert_eq!(length as usize, frame.len() - HEADER_LEN);
    assert_eq!((small.as_ref(), large.as_ref()), (&[7; 5][..], &0x10000u64.to_le_bytes()[..]));
    assert!(!pickle.as_ref().is_empty());
}

#[test]
fn what_python_copies_anyway_suits_no_slot() {
    for kind in [BinaryAs::Bytes, BinaryAs::Str, BinaryAs::Bytearray] {
        let mut pickle = crate::pickle::Pickle::<Vec<u8>>::new();
        pickle.buffer(vec![7; 300], kind);
        assert_eq!(pickle.into_frame(Header::new(Kind::Eval, 1)).parts_for_slots(300).next(), None);
    }
}

#[test]
fn long_garbage_is_cut() {
    let error = read_header(&[b'x'; 1000]).unwrap_err();
    assert_eq!(error.to_string().len(), r#"expected a frame, got """#.len() + 64 + 3);
}

proptest! {
    #[test]
    fn a_header_survives_the_trip(id: u64, cause: u64, length in 0..=MAX_LENGTH) {
        let header = Header { flags: HANDLES, cause, length, ..Header::new(Kind::Call, id) };
        let mut bytes = [0; HEADER_LEN];
        header.write(&mut bytes);
        prop_assert_eq!(read_header(&bytes), Ok(Some(header)));
    }

    #[test]
    fn no_table_of_handles_makes_it_panic(body: Vec<u8>) {
        if let Some((ids, start)) = split_handles(&body) {
            prop_assert_eq!(start, 4 + 8 * ids.len());
            prop_assert!(start <= body.len());
        }
    }

    #[test]
    fn no_bytes_make_it_panic(bytes: Vec<u8>) {
        let _ = read_header(&bytes);
    }
}
