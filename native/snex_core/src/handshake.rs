//! The first frame of each side: `HELLO` is a pickle that serde writes; `READY` and `REFUSED` are ETF that `eetf` reads.

mod flat;

use crate::control::Limits;
use crate::frame::{Frame, Header, Kind, PROTOCOL};
use eetf::{Map, Term};
use serde::Serialize;
use std::collections::BTreeMap;
use thiserror::Error;

/// The settings of `HELLO`, the VM's first frame.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Hello {
    /// [`PROTOCOL`]
    pub protocol: u32,
    /// Snex's version.
    pub version: String,
    /// Whether Python's loop runs ready callbacks before it polls again.
    pub eager: bool,
    /// Low and high mark, in bytes, of what waits in Python to be written.
    pub buffer_limits: (u64, u64),
    /// How long a cancelled request may clean up before it is interrupted again, in milliseconds.
    pub cleanup_timeout: u64,
    /// Whether Python ends after it has answered a request that ran out of memory.
    pub end_on_memory_error: bool,
    /// The most bytes of a value from Python.
    pub reply_limit: u64,
    /// Descriptor and size of the arena towards Python, and of the one from Python; `None` without shared memory.
    pub shared: Option<((i32, u64), (i32, u64))>,
    /// The descriptor over which the warden asks for copies; `None` if there can be none.
    pub forks: Option<i32>,
    /// The limits of a copy, which it sets itself; `None` for a program that a warden has started and limited.
    pub limits: Option<Limits>,
    /// The descriptor of the socket for memory that is handed over; `None` if there is no such socket.
    pub handover: Option<i32>,
    /// The layout of a `MapSet`: ETF before the map of members, and after each member.
    pub map_set: (Blob, Blob),
    /// The layout of a handle of an object: ETF before its number, before the name of its type, and after that name.
    pub object: (Blob, Blob, Blob),
    /// The layouts of other structs, by name: ETF before the value of each field.
    pub structs: BTreeMap<String, Vec<Blob>>,
}

/// The most bytes in the body of a first frame, which usually has a few hundred.
pub const LONGEST: u64 = 1024 * 1024;

/// Bytes that serde writes as a byte string, not as a list of numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blob(pub Vec<u8>);

impl Serialize for Blob {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

/// A control structure as a frame towards Python.
///
/// # Errors
/// If serde cannot write `value`. That does not happen with the structures of this crate.
pub fn control_frame<B: AsRef<[u8]>>(
    kind: Kind,
    value: &impl Serialize,
) -> Result<Frame<B>, serde_pickle::Error> {
    let body = serde_pickle::to_vec(value, serde_pickle::SerOptions::new())?;
    Ok(Frame::new(Header::new(kind, 0), &body))
}

/// What Python reports in `READY`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ready {
    /// Python's version, such as `3.13.0`.
    pub python: String,
    /// `CPython` or `PyPy`.
    pub implementation: String,
    /// Path of the running executable.
    pub executable: String,
    /// Version of the `snex` package.
    pub version: String,
    /// Which encoder is active: `pure` or `native`.
    pub encoder: String,
    /// Whether Python has found the shared memory that `HELLO` describes.
    pub shared: bool,
}

/// Why the handshake failed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum HandshakeError {
    /// Python does not speak this protocol.
    #[error(
        "Snex {ours} speaks protocol {PROTOCOL}, but Python's package snex {theirs} refused it: {reason}"
    )]
    Refused {
        /// Snex's version.
        ours: String,
        /// The Python package's version.
        theirs: String,
        /// Python's reason.
        reason: String,
    },
    /// Python accepted, but speaks a protocol that this side does not speak.
    #[error("Snex {ours} speaks protocol {PROTOCOL}, Python's package snex {theirs} speaks {protocol}")]
    Mismatch {
        /// Snex's version.
        ours: String,
        /// The Python package's version.
        theirs: String,
        /// Python's protocol.
        protocol: String,
    },
    /// The body of the frame does not follow the protocol.
    #[error("the first frame from Python cannot be read: {0}")]
    Unreadable(String),
}

/// Reads the body of a `READY` frame. The error names `ours`, Snex's version.
///
/// # Errors
/// [`HandshakeError`]
pub fn read_ready(body: &[u8], ours: &str) -> Result<Ready, HandshakeError> {
    let map = read_map(body)?;
    let ready = Ready {
        python: text(&map, "python")?,
        implementation: text(&map, "implementation")?,
        executable: text(&map, "executable")?,
        version: text(&map, "version")?,
        encoder: text(&map, "encoder")?,
        shared: matches!(map.get(&key("shared")), Some(Term::Atom(atom)) if atom.name == "true"),
    };
    match map.get(&key("protocol")) {
        Some(Term::FixInteger(number)) if u32::try_from(number.value) == Ok(PROTOCOL) => Ok(ready),
        other => Err(HandshakeError::Mismatch {
            ours: ours.to_string(),
            theirs: ready.version,
            protocol: other.map_or("none".to_string(), ToString::to_string),
        }),
    }
}

/// Turns the body of a `REFUSED` frame into an error.
pub fn read_refused(body: &[u8], ours: &str) -> HandshakeError {
    let read = || {
        let map = read_map(body)?;
        Ok((text(&map, "version")?, text(&map, "reason")?))
    };
    match read() {
        Ok((theirs, reason)) => HandshakeError::Refused { ours: ours.to_string(), theirs, reason },
        Err(error) => error,
    }
}

type Fields = std::collections::HashMap<Term, Term>;

fn read_map(body: &[u8]) -> Result<Fields, HandshakeError> {
    flat::check(body).map_err(|error| HandshakeError::Unreadable(error.to_string()))?;
    match Term::decode(body) {
        Ok(Term::Map(Map { map })) => Ok(map),
        Ok(other) => Err(HandshakeError::Unreadable(format!("expected a map, got {other}"))),
        Err(error) => Err(HandshakeError::Unreadable(error.to_string())),
    }
}

fn key(name: &str) -> Term {
    Term::Binary(eetf::Binary::from(name.as_bytes()))
}

fn text(map: &Fields, name: &str) -> Result<String, HandshakeError> {
    match map.get(&key(name)) {
        Some(Term::Binary(binary)) => Ok(String::from_utf8_lossy(&binary.bytes).into_owned()),
        _ => Err(HandshakeError::Unreadable(format!("no text {name:?} in it"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use eetf::FixInteger;

    fn body(protocol: i32) -> Vec<u8> {
        let mut map: Fields = ["python", "implementation", "executable", "version", "encoder"]
            .map(|name| (key(name), key(name)))
            .into();
        map.insert(key("protocol"), Term::from(FixInteger::from(protocol)));
        let mut bytes = Vec::new();
        Term::from(Map { map }).encode(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn a_ready_frame_is_read() {
        let ready = read_ready(&body(PROTOCOL as i32), "0.1.0").unwrap();
        assert_eq!((ready.python.as_str(), ready.encoder.as_str()), ("python", "encoder"));
    }

    #[test]
    fn a_mismatch_names_both_sides() {
        let error = read_ready(&body(2), "0.1.0").unwrap_err().to_string();
        assert_eq!(error, "Snex 0.1.0 speaks protocol 4, Python's package snex version speaks 2");
    }

    #[test]
    fn a_body_that_is_no_term_is_an_error() {
        assert!(matches!(read_ready(b"\x83", "0.1.0"), Err(HandshakeError::Unreadable(_))));
        assert!(matches!(read_ready(b"\x83a\x01", "0.1.0"), Err(HandshakeError::Unreadable(_))));
        assert!(matches!(read_refused(b"", "0.1.0"), HandshakeError::Unreadable(_)));
    }

    #[test]
    fn hello_is_a_dict_with_bytes() {
        let hello = Hello {
            protocol: PROTOCOL,
            version: "0.1.0".into(),
            eager: true,
            buffer_limits: (1, 2),
            cleanup_timeout: 3,
            end_on_memory_error: false,
            reply_limit: 4,
            shared: Some(((7, 5), (8, 6))),
            forks: Some(9),
            limits: Some(Limits { cpu: Some(7), ..Limits::default() }),
            handover: None,
            map_set: (Blob(vec![1]), Blob(vec![2])),
            object: (Blob(vec![3]), Blob(vec![4]), Blob(vec![])),
            structs: BTreeMap::from([("date".into(), vec![Blob(vec![5]), Blob(vec![6])])]),
        };
        let frame: Frame<Vec<u8>> = control_frame(Kind::Hello, &hello).unwrap();
        let pickle = &frame.segments[0].as_ref()[Kind::Hello.header_len()..];
        let value = serde_pickle::value_from_slice(pickle, serde_pickle::DeOptions::new()).unwrap();
        let text = value.to_string();
        assert!(text.contains(r#""structs": {"date": [b[5], b[6]]}"#), "{text}");
        assert!(text.contains(r#""forks": 9, "#) && text.contains(r#""cpu": 7, "#), "{text}");
        assert!(
            text.contains(r#""map_set": (b[1], b[2]), "object": (b[3], b[4], b[]), "protocol": 4"#),
            "{text}"
        );
        assert!(text.contains(r#""shared": ((7, 5), (8, 6))"#), "{text}");
    }
}
