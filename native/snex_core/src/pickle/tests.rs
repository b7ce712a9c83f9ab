//! Every pickle written here is read back by `serde-pickle`, an implementation of its own; what `serde-pickle` cannot
//! read (buffers, our own classes) is read by Python's `pickle` in the Elixir and Python tests.

use super::*;
use crate::frame::Kind;
use proptest::prelude::*;
use serde_pickle::{DeOptions, HashableValue, Value};
use std::collections::{BTreeMap, BTreeSet};

type Writer = Pickle<Vec<u8>>;

fn read(write: impl FnOnce(&mut Writer)) -> Value {
    let mut pickle = Writer::new();
    write(&mut pickle);
    serde_pickle::value_from_slice(&pickle.into_bytes(), DeOptions::new()).unwrap()
}

/// Walks a value the way the NIF walks a term.
fn write(pickle: &mut Writer, value: &Value) {
    match value {
        Value::None => pickle.none(),
        Value::Bool(value) => pickle.bool(*value),
        Value::I64(value) => pickle.int(*value),
        Value::F64(value) => pickle.float(*value),
        Value::Bytes(value) => pickle.binary(value, BinaryAs::Bytes),
        Value::String(value) => pickle.binary(value.as_bytes(), BinaryAs::Str),
        Value::List(items) => {
            pickle.list_begin();
            for (index, item) in items.iter().enumerate() {
                pickle.list_item(index);
                write(pickle, item);
            }
            pickle.list_end();
        }
        Value::Tuple(items) => {
            pickle.tuple_begin(items.len());
            items.iter().for_each(|item| write(pickle, item));
            pickle.tuple_end(items.len());
        }
        Value::Dict(pairs) => {
            pickle.dict_begin();
            for (index, (key, value)) in pairs.iter().enumerate() {
                pickle.dict_item(index);
                match key {
                    HashableValue::String(key) => pickle.key(key),
                    key => write(pickle, &key.clone().into_value()),
                }
                write(pickle, value);
            }
            pickle.dict_end();
        }
        Value::Set(members) => {
            pickle.set_begin();
            for (index, member) in members.iter().enumerate() {
                pickle.set_item(index);
                write(pickle, &member.clone().into_value());
            }
            pickle.set_end();
        }
        Value::FrozenSet(members) => {
            pickle.frozenset_begin();
            members.iter().for_each(|member| write(pickle, &member.clone().into_value()));
            pickle.frozenset_end();
        }
        Value::Int(_) => unreachable!("big integers have a test of their own"),
    }
}

fn any_key() -> impl Strategy<Value = HashableValue> {
    let leaf = prop_oneof![
        Just(HashableValue::None),
        any::<i64>().prop_map(HashableValue::I64),
        ".{0,300}".prop_map(HashableValue::String),
        any::<Vec<u8>>().prop_map(HashableValue::Bytes),
    ];
    leaf.prop_recursive(2, 8, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(HashableValue::Tuple),
            prop::collection::btree_set(inner, 0..6).prop_map(HashableValue::FrozenSet),
        ]
    })
}

fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::None),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::I64),
        any::<i32>().prop_map(|n| Value::I64(n.into())),
        any::<u8>().prop_map(|n| Value::I64(n.into())),
        any::<f64>().prop_map(Value::F64),
        ".{0,300}".prop_map(Value::String),
        any::<Vec<u8>>().prop_map(Value::Bytes),
        prop::collection::btree_set(any_key(), 0..20).prop_map(Value::Set),
        prop::collection::btree_set(any_key(), 0..20).prop_map(Value::FrozenSet),
    ];
    leaf.prop_recursive(4, 64, 8, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..8).prop_map(Value::List),
            prop::collection::vec(inner.clone(), 0..8).prop_map(Value::Tuple),
            prop::collection::btree_map(any_key(), inner, 0..8).prop_map(Value::Dict),
        ]
    })
}

#[test]
fn a_key_that_a_longer_one_begins_with_is_its_own() {
    // More than there are places: some fall on that of a longer one.
    let dict = |length| {
        let key = HashableValue::String("x".repeat(length));
        Value::Dict(BTreeMap::from([(key, Value::None)]))
    };
    let padding = std::iter::once(Value::String("p".repeat(1200)));
    let list = Value::List(padding.chain((0..=64).rev().map(dict)).collect());
    assert_eq!(read(|pickle| write(pickle, &list)), list);
}

proptest! {
    #[test]
    fn every_value_is_read_back(value in any_value()) {
        prop_assert_eq!(read(|pickle| write(pickle, &value)), value);
    }

    #[test]
    fn every_integer_is_read_back_from_sign_and_magnitude(value: i64, padding in 0usize..300) {
        let mut magnitude = value.unsigned_abs().to_le_bytes().to_vec();
        magnitude.resize(8 + padding, 0);
        let read = read(|pickle| pickle.long(value < 0, &magnitude));
        prop_assert_eq!(read, Value::I64(value));
    }

    #[test]
    fn keys_that_were_written_before_are_the_same_whatever_is_rewound(
        keys in prop::collection::vec(prop::collection::btree_set("[a-e]{0,3}|x{200}|.{60,70}", 0..6), 0..20),
        padding in 0usize..1200,
        rewound in 0usize..20,
    ) {
        let dict = |keys: &BTreeSet<String>| {
            let pair = |(at, key): (usize, &String)| (HashableValue::String(key.clone()), Value::I64(at as i64));
            Value::Dict(keys.iter().enumerate().map(pair).collect())
        };
        let padding = Value::String("p".repeat(padding));
        let read = read(|pickle| {
            pickle.list_begin();
            write(pickle, &padding);
            for (index, keys) in keys.iter().enumerate() {
                if index == rewound {
                    let checkpoint = pickle.checkpoint();
                    write(pickle, &Value::List(vec![Value::List(vec![]), dict(keys), dict(keys)]));
                    pickle.rewind(checkpoint);
                }
                write(pickle, &dict(keys));
            }
            pickle.list_end();
        });
        let expected = [padding].into_iter().chain(keys.iter().map(dict)).collect();
        prop_assert_eq!(read, Value::List(expected));
    }

    #[test]
    fn what_is_rewound_leaves_no_trace(kept in any_value(), dropped in any_value()) {
        let mut plain = Writer::new();
        write(&mut plain, &kept);
        let mut rewound = Writer::new();
        let checkpoint = rewound.checkpoint();
        rewound.global(Global::Atom);
        write(&mut rewound, &dropped);
        rewound.buffer(vec![0; 10], BinaryAs::Bytes);
        rewound.rewind(checkpoint);
        write(&mut rewound, &kept);
        prop_assert_eq!(rewound.into_bytes(), plain.into_bytes());
    }
}

#[test]
fn integers_beyond_64_bits_are_twos_complement() {
    // 2^64 and its negative, as Python's own pickle.dumps(..., 5) writes them.
    let magnitude = [0, 0, 0, 0, 0, 0, 0, 0, 1];
    let mut pickle = Writer::new();
    pickle.long(false, &magnitude);
    assert_eq!(pickle.into_bytes(), b"\x80\x05\x8a\x0a\0\0\0\0\0\0\0\0\x01\0.");
    let mut pickle = Writer::new();
    pickle.long(true, &magnitude);
    assert_eq!(pickle.into_bytes(), b"\x80\x05\x8a\x0a\0\0\0\0\0\0\0\0\xff\xff.");
}

#[test]
fn long_containers_are_added_in_batches() {
    let list: Vec<Value> = (0..2500).map(Value::I64).collect();
    let dict: BTreeMap<_, _> = (0..2500).map(|n| (HashableValue::I64(n), Value::I64(-n))).collect();
    let set: BTreeSet<_> = (0..2500).map(HashableValue::I64).collect();
    for value in [Value::List(list), Value::Dict(dict), Value::Set(set)] {
        assert_eq!(read(|pickle| write(pickle, &value)), value);
    }
}

#[test]
fn strings_of_every_length_class_are_read_back() {
    for length in [0, 255, 256, 70_000] {
        let text = Value::String("ä".repeat(length));
        let bytes = Value::Bytes(vec![0xff; length]);
        assert_eq!(read(|pickle| write(pickle, &text)), text);
        assert_eq!(read(|pickle| write(pickle, &bytes)), bytes);
    }
}

#[test]
fn a_memoised_object_is_recalled_by_either_opcode() {
    let value = read(|pickle| {
        pickle.list_begin();
        for index in 0..300 {
            pickle.str(&index.to_string());
            assert_eq!(pickle.memoize(), index);
        }
        pickle.recall(5);
        pickle.recall(299);
        pickle.list_end();
    });
    let Value::List(items) = value else { panic!("{value:?}") };
    assert_eq!(items[300], Value::String("5".into()));
    assert_eq!(items[301], Value::String("299".into()));
}

#[test]
fn a_key_is_written_twice_and_recalled_from_then_on() {
    let mut pickle = Writer::new();
    pickle.str(&"p".repeat(1024));
    let mut sizes = Vec::new();
    for _ in 0..4 {
        let before = pickle.len();
        pickle.key("the key");
        sizes.push(pickle.len() - before);
    }
    assert_eq!(sizes, [9, 10, 2, 2]);
}

#[test]
fn a_frame_with_buffers_carries_its_table_and_leaves_them_uncopied() {
    let mut pickle = Pickle::<&[u8]>::new();
    let large = vec![7u8; BUFFER_THRESHOLD];
    pickle.buffer(&large, BinaryAs::Bytearray);
    let frame = pickle.into_frame(Header::new(Kind::Eval, 9));
    let head = frame.segments[0].as_ref();
    assert_eq!(&head[..4], b"SX\x02\x01");
    assert_eq!(&head[HEADER_LEN..], [1, 0, 0, 0, 2, 0, 0, 1, 0, 0, 0, 0, 0]);
    assert_eq!(frame.segments[1].as_ref(), b"\x80\x05\x97.");
    assert_eq!(frame.segments[2].as_ref().as_ptr(), large.as_ptr());
    let length = u64::from_le_bytes(head[12..20].try_into().unwrap());
    assert_eq!(length as usize, frame.len() - HEADER_LEN);
}

#[test]
fn text_that_is_not_utf8_is_left_to_python_to_refuse() {
    let mut pickle = Writer::new();
    pickle.binary(b"\xff", BinaryAs::Str);
    let bytes = pickle.into_bytes();
    assert!(bytes.windows(11).any(|window| window == b"decode_text"));
}
