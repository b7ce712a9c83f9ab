//! The pickle writer and the frame parser alone: `cargo bench -p snex_core`.
//!
//! What `bin/bench` measures includes the pipe and two processes; here nothing but the code is, so that a change to it shows.
#![allow(missing_docs)]

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use snex_core::frame::{self, HEADER_LEN, Header, Kind};
use snex_core::pickle::{BinaryAs, Pickle};
use std::hint::black_box;

/// The request that `pyeval(env, "return 1")` sends.
fn small_request() -> Pickle<Vec<u8>> {
    let mut pickle = Pickle::new();
    pickle.tuple_begin(5);
    pickle.int(1);
    pickle.binary(b"return 1", BinaryAs::Str);
    pickle.none();
    pickle.int(1);
    pickle.dict_begin();
    pickle.dict_end();
    pickle.tuple_end(5);
    pickle
}

fn ints(count: usize) -> Pickle<Vec<u8>> {
    let mut pickle = Pickle::new();
    pickle.list_begin();
    for index in 0..count {
        pickle.list_item(index);
        pickle.int(index as i64);
    }
    pickle.list_end();
    pickle
}

/// Maps as in the rows `maps_to_python` and `maps_to_elixir`; the keys are written once and recalled.
fn maps(count: usize) -> Pickle<Vec<u8>> {
    let mut pickle = Pickle::new();
    let mut keys = Vec::new();
    pickle.list_begin();
    for index in 0..count {
        pickle.list_item(index);
        pickle.dict_begin();
        for (place, name) in ["id", "name", "score", "tags"].into_iter().enumerate() {
            pickle.dict_item(place);
            match keys.get(place) {
                Some(key) => pickle.recall(*key),
                None => {
                    pickle.str(name);
                    keys.push(pickle.memoize());
                }
            }
            match place {
                0 => pickle.int(index as i64),
                1 => pickle.binary(b"name 12345", BinaryAs::Str),
                2 => pickle.float(index as f64 / 7.0),
                _ => {
                    pickle.list_begin();
                    for (at, tag) in [b"red".as_slice(), b"round"].into_iter().enumerate() {
                        pickle.list_item(at);
                        pickle.binary(tag, BinaryAs::Str);
                    }
                    pickle.list_end();
                }
            }
        }
        pickle.dict_end();
    }
    pickle.list_end();
    pickle
}

fn pickles(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("pickle");
    group.bench_function("request", |bench| {
        bench.iter(|| black_box(small_request()).into_frame(Header::new(Kind::Eval, 1)));
    });
    group.throughput(Throughput::Elements(100_000));
    group.bench_function("ints", |bench| bench.iter(|| ints(black_box(100_000))));
    group.throughput(Throughput::Elements(10_000));
    group.bench_function("maps", |bench| bench.iter(|| maps(black_box(10_000))));
    let large = vec![0u8; 1 << 20];
    group.throughput(Throughput::Bytes(1 << 20));
    group.bench_function("buffer", |bench| {
        bench.iter_batched(
            || large.clone(),
            |large| {
                let mut pickle = Pickle::new();
                pickle.buffer(large, BinaryAs::Bytes);
                pickle.into_frame(Header::new(Kind::Eval, 1))
            },
            BatchSize::LargeInput,
        );
    });
    group.finish();
}

fn frames(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("frame");
    // Answers as Python sends them, one behind the other.
    let count = 1000;
    let mut bytes = Vec::new();
    for id in 0..count {
        let mut header = [0; HEADER_LEN];
        Header { length: 3, ..Header::new(Kind::Result, id) }.write(&mut header);
        bytes.extend_from_slice(&header);
        bytes.extend_from_slice(&[131, 97, 1]);
    }
    group.throughput(Throughput::Elements(count));
    group.bench_function("headers", |bench| {
        bench.iter(|| {
            let mut rest = black_box(bytes.as_slice());
            let mut seen = 0;
            while let Ok(Some(header)) = frame::read_header(rest) {
                let length = HEADER_LEN + usize::try_from(header.length).unwrap_or_default();
                rest = rest.get(length..).unwrap_or_default();
                seen += header.id;
            }
            seen
        });
    });
    group.finish();
}

criterion_group!(benches, pickles, frames);
criterion_main!(benches);
