//! The vectors that all three languages share, see `test/vectors/README.md`: values, and the pickles to be written for
//! them.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use serde_json::Value;
use snex_core::frame::{HEADER_LEN, Header, Kind, Segment};
use snex_core::pickle::{BUFFER_THRESHOLD, BinaryAs, Global, MemoIndex, Pickle};
use std::collections::HashMap;

/// Bytes from their text.
fn bytes(text: &Value) -> Vec<u8> {
    let hex = |text: &str| -> Vec<u8> {
        (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
    };
    let piece = |piece: &str| match piece.split_once('*') {
        Some((unit, count)) => hex(unit).repeat(count.parse().unwrap()),
        None => hex(piece),
    };
    text.as_str().unwrap().split(' ').flat_map(piece).collect()
}

/// The magnitude of a decimal number, least significant byte first.
fn magnitude(digits: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for digit in digits.bytes() {
        let mut carry = u32::from(digit - b'0');
        for byte in &mut bytes {
            carry += u32::from(*byte) * 10;
            *byte = carry as u8;
            carry >>= 8;
        }
        if carry > 0 {
            bytes.push(carry as u8);
        }
    }
    bytes
}

/// Walks a value as the NIF walks a term.
struct Walk {
    pickle: Pickle<Vec<u8>>,
    atoms: HashMap<String, MemoIndex>,
}

impl Walk {
    fn items(&mut self, items: &[Value]) {
        items.iter().for_each(|item| self.value(item));
    }

    fn int(&mut self, digits: &str) {
        match digits.parse::<i64>() {
            Ok(value) => self.pickle.int(value),
            Err(_) => {
                let positive = digits.trim_start_matches('-');
                self.pickle.long(positive != digits, &magnitude(positive));
            }
        }
    }

    fn binary(&mut self, data: Vec<u8>, binary_as: BinaryAs) {
        if data.len() >= BUFFER_THRESHOLD {
            self.pickle.buffer(data, binary_as);
        } else {
            self.pickle.binary(&data, binary_as);
        }
    }

    fn atom(&mut self, name: &str, global: Global) {
        if let Some(index) = self.atoms.get(name) {
            self.pickle.recall(*index);
        } else {
            self.pickle.call(global, |pickle| pickle.str(name));
            self.atoms.insert(name.to_string(), self.pickle.memoize());
        }
    }

    fn list<'a>(&mut self, items: impl Iterator<Item = &'a Value>) {
        self.pickle.list_begin();
        for (index, item) in items.enumerate() {
            self.pickle.list_item(index);
            self.value(item);
        }
        self.pickle.list_end();
    }

    /// As `object`, by a name of the pickle's own, which is written once.
    fn made(&mut self, parts: &[Value]) {
        let global = match (parts[0].as_str().unwrap(), parts[1].as_str().unwrap()) {
            ("datetime", "date") => Global::Date,
            ("datetime", "datetime") => Global::DateTime,
            ("datetime", "timedelta") => Global::Timedelta,
            ("decimal", "Decimal") => Global::Decimal,
            ("snex._etf.loading", "zoned") => Global::Zoned,
            ("snex._etf.loading", "number") => Global::Number,
            ("snex._etf.loading", "inclusive") => Global::Inclusive,
            ("snex._etf.loading", "array") => Global::Array,
            name => panic!("a function that is not known: {name:?}"),
        };
        let arguments = parts[2].as_array().unwrap();
        if global == Global::Decimal {
            return self.pickle.call(global, |pickle| {
                pickle.binary(&bytes(&arguments[0]["str"]), BinaryAs::Str);
            });
        }
        self.pickle.global(global);
        self.pickle.arguments_begin();
        self.items(arguments);
        self.pickle.arguments_end();
    }

    fn object(&mut self, parts: &[Value]) {
        self.pickle.global_named(parts[0].as_str().unwrap(), parts[1].as_str().unwrap());
        self.pickle.arguments_begin();
        self.items(parts[2].as_array().unwrap());
        self.pickle.arguments_end();
    }

    fn value(&mut self, value: &Value) {
        let Some((kind, inner)) = value.as_object().and_then(|object| object.iter().next()) else {
            match value.as_bool() {
                Some(value) => self.pickle.bool(value),
                None => self.pickle.none(),
            }
            return;
        };
        let items = || inner.as_array().unwrap().as_slice();
        match kind.as_str() {
            "int" => self.int(inner.as_str().unwrap()),
            "float" => {
                let bits = u64::from_str_radix(inner.as_str().unwrap(), 16).unwrap();
                self.pickle.float(f64::from_bits(bits));
            }
            "special" => self.pickle.float(match inner.as_str().unwrap() {
                "inf" => f64::INFINITY,
                "-inf" => f64::NEG_INFINITY,
                _ => f64::NAN,
            }),
            "str" => self.binary(bytes(inner), BinaryAs::Str),
            "bytes" => self.binary(bytes(inner), BinaryAs::Bytes),
            "bytearray" => self.binary(bytes(inner), BinaryAs::Bytearray),
            "memory" => self.binary(bytes(inner), BinaryAs::Memory),
            "memoryview" => self.binary(bytes(inner), BinaryAs::Memoryview),
            "atom" => self.atom(inner.as_str().unwrap(), Global::Atom),
            "distinct_atom" => self.atom(inner.as_str().unwrap(), Global::DistinctAtom),
            "list" => self.list(items().iter()),
            "repeat" => {
                let count = inner[1].as_u64().unwrap() as usize;
                self.list(std::iter::repeat_n(&inner[0], count));
            }
            "tuple" => {
                self.pickle.tuple_begin(items().len());
                self.items(items());
                self.pickle.tuple_end(items().len());
            }
            "map" => {
                self.pickle.dict_begin();
                for (index, pair) in items().iter().enumerate() {
                    self.pickle.dict_item(index);
                    self.items(pair.as_array().unwrap());
                }
                self.pickle.dict_end();
            }
            "set" => {
                self.pickle.set_begin();
                for (index, member) in items().iter().enumerate() {
                    self.pickle.set_item(index);
                    self.value(member);
                }
                self.pickle.set_end();
            }
            "frozenset" => {
                self.pickle.frozenset_begin();
                self.items(items());
                self.pickle.frozenset_end();
            }
            "opaque" | "term" => {
                self.pickle.call(Global::Term, |pickle| pickle.binary(&bytes(inner), BinaryAs::Bytes));
            }
            "function" | "callback" => {
                self.pickle.global(if kind == "function" { Global::Function } else { Global::Callback });
                self.pickle.arguments_begin();
                self.pickle.binary(&bytes(inner), BinaryAs::Bytes);
                self.pickle.arguments_end();
            }
            "object" => self.object(items()),
            "struct" => self.made(&items()[1..]),
            _ => panic!("a value of a kind that is not known: {kind}"),
        }
    }
}

#[test]
fn every_value_is_written_as_its_pickle() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../test/vectors/vectors.json");
    let vectors: Vec<Value> = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    assert!(vectors.len() > 100);
    for vector in &vectors {
        let mut walk = Walk { pickle: Pickle::new(), atoms: HashMap::new() };
        walk.value(&vector["value"]);
        let expected = bytes(&vector["pickle"]);
        let name = &vector["name"];
        match vector["buffers"].as_array() {
            None => assert!(walk.pickle.into_bytes() == expected, "{name}"),
            // Behind the header and the table comes the pickle, then the buffers.
            Some(buffers) => {
                let segments = walk.pickle.into_frame(Header::new(Kind::Eval, 1)).segments;
                let contents: Vec<&[u8]> = segments
                    .iter()
                    .map(|segment| match segment {
                        Segment::Owned(data) => data.as_slice(),
                        Segment::Shared(data) => data.as_slice(),
                    })
                    .collect();
                let wanted: Vec<Vec<u8>> = buffers.iter().map(|buffer| bytes(&buffer[1])).collect();
                assert!(contents[1] == expected, "{name}");
                assert!(contents[2..] == wanted, "{name}");
                let kinds: Vec<u8> = contents[0][HEADER_LEN + 4..].chunks(9).map(|row| row[0]).collect();
                let wanted: Vec<u64> = buffers.iter().map(|buffer| buffer[0].as_u64().unwrap()).collect();
                assert!(kinds.into_iter().map(u64::from).eq(wanted), "{name}");
            }
        }
    }
}
