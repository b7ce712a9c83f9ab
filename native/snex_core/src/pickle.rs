//! A writer for the part of Pickle protocol 5 that Snex needs.
//!
//! CPython's `Lib/pickletools.py` documents the opcodes and their arguments, and PEP 574 the out-of-band buffers. The methods
//! write opcodes and do little else. The code that walks a value calls them in the order that Python's stack machine needs:
//! for a container the *begin* method, the items, and the *end* method. Before each item of a list, dict or set it calls
//! [`Pickle::list_item`], [`Pickle::dict_item`] or [`Pickle::set_item`], which keep Python's stack short.
//!
//! ```
//! use snex_core::pickle::Pickle;
//! let mut pickle = Pickle::<Vec<u8>>::new();
//! pickle.tuple_begin(2);
//! pickle.int(1);
//! pickle.str("two");
//! pickle.tuple_end(2);
//! let bytes = pickle.into_bytes();
//! let value: (i64, String) = serde_pickle::from_slice(&bytes, Default::default()).unwrap();
//! assert_eq!(value, (1, "two".to_string()));
//! ```

mod keys;

use crate::frame::{self, Frame, HEADER_LEN, Header, Segment};

/// Binaries from this size on travel as buffers of their own, and are not copied into the pickle.
pub const BUFFER_THRESHOLD: usize = 64 * 1024;

/// How many items Python's stack may hold before they are added to their container. CPython's pickler has 1000; with a
/// power of two, no item costs a division.
const BATCH: usize = 1024;

/// The Python type that a binary becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum BinaryAs {
    /// `bytes`
    Bytes = 0,
    /// `str`
    Str = 1,
    /// `bytearray`
    Bytearray = 2,
    /// a read-only `memoryview`
    Memoryview = 3,
    /// writable memory for an array: a `bytearray`, or a `memoryview` of a slot
    Memory = 4,
}

/// A Python object that pickles refer to by module and name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum Global {
    /// `snex._etf.terms.Atom`
    Atom,
    /// `snex._etf.terms.DistinctAtom`
    DistinctAtom,
    /// `snex._etf.terms.Term`
    Term,
    /// `snex._etf.terms.decode_text`
    DecodeText,
    /// `builtins.memoryview`
    Memoryview,
    /// `snex._etf.functions.Function`
    Function,
    /// `snex._etf.functions.Callback`
    Callback,
    /// `snex._eval.objects.get`
    Object,
    /// `snex._etf.loading.distinct`
    Distinct,
    /// `snex._etf.loading.refuse`
    Refuse,
    /// `datetime.date`
    Date,
    /// `datetime.time`
    Time,
    /// `datetime.datetime`
    DateTime,
    /// `snex._etf.loading.zoned`
    Zoned,
    /// `datetime.timedelta`
    Timedelta,
    /// `decimal.Decimal`
    Decimal,
    /// `snex._etf.loading.number`
    Number,
    /// `snex._etf.loading.inclusive`
    Inclusive,
    /// `snex._elixir.streams.open`
    Stream,
    /// `snex._etf.loading.array`
    Array,
    /// `snex._etf.loading.frame`
    Frame,
}

const GLOBALS: [(&str, &str); 21] = [
    ("snex._etf.terms", "Atom"),
    ("snex._etf.terms", "DistinctAtom"),
    ("snex._etf.terms", "Term"),
    ("snex._etf.terms", "decode_text"),
    ("builtins", "memoryview"),
    ("snex._etf.functions", "Function"),
    ("snex._etf.functions", "Callback"),
    ("snex._eval.objects", "get"),
    ("snex._etf.loading", "distinct"),
    ("snex._etf.loading", "refuse"),
    ("datetime", "date"),
    ("datetime", "time"),
    ("datetime", "datetime"),
    ("snex._etf.loading", "zoned"),
    ("datetime", "timedelta"),
    ("decimal", "Decimal"),
    ("snex._etf.loading", "number"),
    ("snex._etf.loading", "inclusive"),
    ("snex._elixir.streams", "open"),
    ("snex._etf.loading", "array"),
    ("snex._etf.loading", "frame"),
];

/// The index of an object in Python's memo.
pub type MemoIndex = u32;

/// A state of the writer, for [`Pickle::rewind`].
#[derive(Debug, Clone, Copy)]
pub struct Checkpoint {
    len: usize,
    buffers: usize,
    memo: MemoIndex,
}

impl Checkpoint {
    /// The first memo index that a rewind to this checkpoint invalidates.
    pub fn memo(&self) -> MemoIndex {
        self.memo
    }
}

/// A pickle under construction, and the large binaries that travel outside it.
#[derive(Debug)]
pub struct Pickle<B> {
    /// Starts with room for a frame's header, so that a small frame is one piece of memory.
    out: Vec<u8>,
    buffers: Vec<(BinaryAs, B)>,
    memo: MemoIndex,
    globals: [Option<MemoIndex>; GLOBALS.len()],
    keys: keys::Keys,
}

impl<B: AsRef<[u8]>> Default for Pickle<B> {
    fn default() -> Self {
        Self::new()
    }
}

impl<B: AsRef<[u8]>> Pickle<B> {
    /// An empty pickle.
    pub fn new() -> Self {
        let mut out = Vec::with_capacity(256);
        out.resize(HEADER_LEN, 0);
        out.extend_from_slice(b"\x80\x05");
        Pickle {
            out,
            buffers: Vec::new(),
            memo: 0,
            globals: [None; GLOBALS.len()],
            keys: keys::Keys::default(),
        }
    }

    /// Bytes written so far, without the buffers.
    pub fn len(&self) -> usize {
        self.out.len() - HEADER_LEN
    }

    /// Always false: a pickle starts with its protocol version.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// The finished pickle as bytes, for a value without out-of-band buffers.
    pub fn into_bytes(mut self) -> Vec<u8> {
        self.out.push(b'.');
        self.out.split_off(HEADER_LEN)
    }

    /// The finished pickle and its buffers as a frame.
    pub fn into_frame(mut self, header: Header) -> Frame<B> {
        self.out.push(b'.');
        if self.buffers.is_empty() {
            return Frame::from_reserved(header, self.out);
        }
        let mut head = vec![0; HEADER_LEN];
        head.extend_from_slice(&(self.buffers.len() as u32).to_le_bytes());
        let mut length = self.out.len() - HEADER_LEN;
        for (binary_as, buffer) in &self.buffers {
            head.push(*binary_as as u8);
            head.extend_from_slice(&(buffer.as_ref().len() as u64).to_le_bytes());
            length += buffer.as_ref().len();
        }
        length += head.len() - HEADER_LEN;
        let flags = header.flags | frame::BUFFERS;
        Header { flags, length: length as u64, ..header }.write(&mut head);
        let pickle = self.out.split_off(HEADER_LEN);
        let mut segments = vec![Segment::Owned(head), Segment::Owned(pickle)];
        segments.extend(self.buffers.into_iter().map(|(_, buffer)| Segment::Shared(buffer)));
        Frame { segments }
    }

    /// The current state, for [`Pickle::rewind`].
    pub fn checkpoint(&self) -> Checkpoint {
        Checkpoint { len: self.out.len(), buffers: self.buffers.len(), memo: self.memo }
    }

    /// Removes everything written since `checkpoint`. The caller must not use memo indexes that it got since then.
    pub fn rewind(&mut self, checkpoint: Checkpoint) {
        self.out.truncate(checkpoint.len);
        self.buffers.truncate(checkpoint.buffers);
        self.memo = checkpoint.memo;
        for index in &mut self.globals {
            *index = index.filter(|index| *index < checkpoint.memo);
        }
        self.keys.rewind(checkpoint.memo);
    }

    // ---- Scalars ---------------------------------------------------------------------------

    /// `None`
    pub fn none(&mut self) {
        self.out.push(b'N');
    }

    /// `True` or `False`
    pub fn bool(&mut self, value: bool) {
        self.out.push(if value { 0x88 } else { 0x89 });
    }

    /// An `int` of up to 64 bits.
    pub fn int(&mut self, value: i64) {
        if let Ok(byte) = u8::try_from(value) {
            self.out.extend_from_slice(&[b'K', byte]);
        } else if let Ok(short) = u16::try_from(value) {
            let [low, high] = short.to_le_bytes();
            self.out.extend_from_slice(&[b'M', low, high]);
        } else if let Ok(int) = i32::try_from(value) {
            // One call instead of two: checking for room costs as much as writing.
            let [a, b, c, d] = int.to_le_bytes();
            self.out.extend_from_slice(&[b'J', a, b, c, d]);
        } else {
            self.long(value < 0, &value.unsigned_abs().to_le_bytes());
        }
    }

    /// An `int` of any size, from its sign and its magnitude, least significant byte first.
    pub fn long(&mut self, negative: bool, magnitude: &[u8]) {
        // Pickle's format is two's complement. This negates a negative number, and always adds a byte with the sign bit.
        let used = magnitude.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        let magnitude = &magnitude[..used];
        let length = used + 1;
        if let Ok(length) = u8::try_from(length) {
            self.out.extend_from_slice(&[0x8a, length]);
        } else {
            self.push_with(0x8b, &(length as u32).to_le_bytes());
        }
        let mut carry = negative;
        for byte in magnitude.iter().chain(&[0]) {
            let (byte, overflow) =
                if negative { (!byte).overflowing_add(u8::from(carry)) } else { (*byte, false) };
            self.out.push(byte);
            carry = overflow;
        }
    }

    /// A `float`. Keeps every bit pattern.
    pub fn float(&mut self, value: f64) {
        self.push_with(b'G', &value.to_be_bytes());
    }

    /// A `str`.
    pub fn str(&mut self, value: &str) {
        self.sized(value.as_bytes(), [0x8c, b'X', 0x8d]);
    }

    /// Bytes as the Python type that `binary_as` names. If a `str` is not UTF-8, loading this pickle raises a
    /// `UnicodeDecodeError` with the position, and only this request fails.
    pub fn binary(&mut self, value: &[u8], binary_as: BinaryAs) {
        match binary_as {
            BinaryAs::Bytes => self.bytes(value),
            BinaryAs::Str => match std::str::from_utf8(value) {
                Ok(text) => self.str(text),
                Err(_) => self.call(Global::DecodeText, |pickle| pickle.bytes(value)),
            },
            BinaryAs::Bytearray | BinaryAs::Memory => {
                self.push_with(0x96, &(value.len() as u64).to_le_bytes());
                self.out.extend_from_slice(value);
            }
            BinaryAs::Memoryview => self.call(Global::Memoryview, |pickle| pickle.bytes(value)),
        }
    }

    /// Bytes that travel outside the pickle; see [`BUFFER_THRESHOLD`].
    pub fn buffer(&mut self, value: B, binary_as: BinaryAs) {
        self.buffers.push((binary_as, value));
        self.out.push(0x97);
    }

    fn bytes(&mut self, value: &[u8]) {
        self.sized(value, [b'C', b'B', 0x8e]);
    }

    /// Writes bytes with one of three opcodes, whose length takes one, four or eight bytes.
    fn sized(&mut self, value: &[u8], [short, medium, long]: [u8; 3]) {
        if let Ok(length) = u8::try_from(value.len()) {
            self.out.extend_from_slice(&[short, length]);
        } else if let Ok(length) = u32::try_from(value.len()) {
            self.push_with(medium, &length.to_le_bytes());
        } else {
            self.push_with(long, &(value.len() as u64).to_le_bytes());
        }
        self.out.extend_from_slice(value);
    }

    fn push_with(&mut self, opcode: u8, argument: &[u8]) {
        self.out.push(opcode);
        self.out.extend_from_slice(argument);
    }

    // ---- Containers ------------------------------------------------------------------------

    /// Begins the members of a `frozenset`.
    pub fn frozenset_begin(&mut self) {
        self.out.push(b'(');
    }

    /// Begins a `list`.
    pub fn list_begin(&mut self) {
        self.out.extend_from_slice(b"](");
    }

    /// To be called before item number `index` of a list, from 0.
    pub fn list_item(&mut self, index: usize) {
        if index != 0 && index.is_multiple_of(BATCH) {
            self.out.extend_from_slice(b"e(");
        }
    }

    /// Ends a list.
    pub fn list_end(&mut self) {
        self.out.push(b'e');
    }

    /// An empty `list` in Python's memo, to which [`Pickle::append`] adds items.
    pub fn list_grow(&mut self) -> MemoIndex {
        self.out.push(b']');
        self.memoize()
    }

    /// Adds the object on top of Python's stack to the list below it.
    pub fn append(&mut self) {
        self.out.push(b'a');
    }

    /// Begins a `dict`, whose keys and values alternate.
    pub fn dict_begin(&mut self) {
        self.out.extend_from_slice(b"}(");
    }

    /// To be called before pair number `index` of a dict, from 0.
    pub fn dict_item(&mut self, index: usize) {
        if index != 0 && index.is_multiple_of(BATCH / 2) {
            self.out.extend_from_slice(b"u(");
        }
    }

    /// Ends a dict.
    pub fn dict_end(&mut self) {
        self.out.push(b'u');
    }

    /// Begins a `set`.
    pub fn set_begin(&mut self) {
        self.out.extend_from_slice(b"\x8f(");
    }

    /// To be called before member number `index` of a set, from 0.
    pub fn set_item(&mut self, index: usize) {
        if index != 0 && index.is_multiple_of(BATCH) {
            self.out.extend_from_slice(b"\x90(");
        }
    }

    /// Ends a set.
    pub fn set_end(&mut self) {
        self.out.push(0x90);
    }

    /// Ends a `frozenset`, and makes it.
    pub fn frozenset_end(&mut self) {
        self.out.push(0x91);
    }

    /// Begins a `tuple` of `length` items. Opcodes for up to three items need no mark.
    pub fn tuple_begin(&mut self, length: usize) {
        if length > 3 {
            self.out.push(b'(');
        }
    }

    /// Ends a `tuple` of `length` items, and makes it.
    pub fn tuple_end(&mut self, length: usize) {
        self.out.push(match length {
            0 => b')',
            1 => 0x85,
            2 => 0x86,
            3 => 0x87,
            _ => b't',
        });
    }

    // ---- Objects ---------------------------------------------------------------------------

    /// A Python object by module and qualified name.
    pub fn global_named(&mut self, module: &str, name: &str) {
        self.str(module);
        self.str(name);
        self.out.push(0x93);
    }

    /// One of the objects in [`Global`]. Python looks each up once per pickle.
    pub fn global(&mut self, global: Global) {
        match self.globals[global as usize] {
            Some(index) => self.recall(index),
            None => {
                let (module, name) = GLOBALS[global as usize];
                self.global_named(module, name);
                self.globals[global as usize] = Some(self.memoize());
            }
        }
    }

    /// Takes an argument tuple and the callable below it from Python's stack, and pushes the result of the call.
    fn reduce(&mut self) {
        self.out.push(b'R');
    }

    /// Begins a call of the object on top of Python's stack. Any number of arguments follows.
    pub fn arguments_begin(&mut self) {
        self.out.push(b'(');
    }

    /// Ends the arguments, and calls the object with them.
    pub fn arguments_end(&mut self) {
        self.out.push(b't');
        self.reduce();
    }

    /// `global(argument)`
    pub fn call(&mut self, global: Global, argument: impl FnOnce(&mut Self)) {
        self.global(global);
        argument(self);
        self.tuple_end(1);
        self.reduce();
    }

    /// Has Python check that the dict or set on top of its stack has `length` members. It has fewer if keys that differ in
    /// Elixir are equal in Python.
    pub fn distinct(&mut self, length: usize) {
        let index = self.memoize();
        self.out.push(b'0');
        self.global(Global::Distinct);
        self.recall(index);
        self.int(length as i64);
        self.tuple_end(2);
        self.reduce();
    }

    /// Stores the object on top of Python's stack in the memo, for [`Pickle::recall`].
    pub fn memoize(&mut self) -> MemoIndex {
        self.out.push(0x94);
        self.memo += 1;
        self.memo - 1
    }

    /// Pushes an object from the memo.
    pub fn recall(&mut self, index: MemoIndex) {
        match u8::try_from(index) {
            Ok(index) => self.out.extend_from_slice(&[b'h', index]),
            Err(_) => self.push_with(b'j', &index.to_le_bytes()),
        }
    }
}

#[cfg(test)]
mod tests;
