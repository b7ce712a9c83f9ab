//! Signatures of functions, by which the VM recognises the functions that it has passed to Python.
//!
//! If the option `:allow` restricts what Python may call, the VM signs each function that it passes to Python, and calls a
//! function from Python only if it has a valid signature. Without signatures Python could call any function, because external
//! term format only names module, function and arity.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// The length of a signature in bytes.
pub const SIGNATURE_LEN: usize = 32;

/// Signs functions, and checks signatures. Each interpreter has a signer of its own, with a random key.
pub struct Signer(Hmac<Sha256>);

/// Why a function is not called.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Elixir has not passed it to this interpreter.
    #[error(
        "a function that Elixir has not handed to this interpreter is not among the functions that Python may call"
    )]
    NotSigned,
    /// The body is not a call.
    #[error("a call that cannot be understood")]
    Malformed,
}

impl Signer {
    /// A signer with a fresh key.
    ///
    /// # Errors
    /// Those of the system's random generator.
    pub fn new() -> Result<Self, getrandom::Error> {
        let mut key = [0; SIGNATURE_LEN];
        getrandom::fill(&mut key)?;
        Ok(Signer(Hmac::new(&key_of(&key))))
    }

    /// The signature of a function in external term format.
    ///
    /// ```
    /// use snex_core::signing::Signer;
    /// let (signer, other) = (Signer::new().unwrap(), Signer::new().unwrap());
    /// assert_eq!(signer.sign(b"f"), signer.sign(b"f"));
    /// assert_ne!(signer.sign(b"f"), signer.sign(b"g"));
    /// assert_ne!(signer.sign(b"f"), other.sign(b"f"));
    /// ```
    #[must_use]
    pub fn sign(&self, function: &[u8]) -> [u8; SIGNATURE_LEN] {
        self.0.clone().chain_update(function).finalize().into_bytes().into()
    }

    /// Checks the body of an `APPLY` frame: `{signature, function, args, options}` as an external term. The first two elements
    /// are binaries. Decodes none of it.
    ///
    /// # Errors
    /// [`Refusal`]
    pub fn check(&self, body: &[u8]) -> Result<(), Refusal> {
        let (signature, function) = signed(body).ok_or(Refusal::Malformed)?;
        // `verify_slice` compares in constant time.
        self.0.clone().chain_update(function).verify_slice(signature).map_err(|_| Refusal::NotSigned)
    }
}

/// A key of the hash's block size: HMAC pads a shorter one with zeros.
fn key_of(random: &[u8]) -> hmac::digest::Key<Hmac<Sha256>> {
    let mut key = hmac::digest::Key::<Hmac<Sha256>>::default();
    for (to, from) in key.iter_mut().zip(random) {
        *to = *from;
    }
    key
}

// Tags of the external term format: https://www.erlang.org/doc/apps/erts/erl_ext_dist.html
const VERSION: u8 = 131;
const SMALL_TUPLE: u8 = 104;
const BINARY: u8 = 109;

/// The signature and the function in the body of an `APPLY` frame.
fn signed(body: &[u8]) -> Option<(&[u8], &[u8])> {
    let rest = body.strip_prefix(&[VERSION, SMALL_TUPLE, 4])?;
    let (signature, rest) = binary(rest)?;
    let (function, _) = binary(rest)?;
    Some((signature, function))
}

fn binary(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.strip_prefix(&[BINARY])?.split_first_chunk()?;
    rest.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn body(signature: &[u8], function: &[u8]) -> Vec<u8> {
        let mut body = vec![VERSION, SMALL_TUPLE, 4];
        for part in [signature, function] {
            body.push(BINARY);
            body.extend((part.len() as u32).to_be_bytes());
            body.extend(part);
        }
        body.extend([106, 106]);
        body
    }

    #[test]
    fn a_function_passes_with_its_own_signature_and_no_other() {
        let (signer, other) = (Signer::new().unwrap(), Signer::new().unwrap());
        let signature = signer.sign(b"f");
        assert_eq!(signer.check(&body(&signature, b"f")), Ok(()));
        for (signature, function) in [
            (&signature[..], &b"g"[..]),
            (&other.sign(b"f"), b"f"),
            (&signature[..31], b"f"),
            (&signature[..0], b"f"),
            (&signer.sign(b""), b"f"),
        ] {
            assert_eq!(signer.check(&body(signature, function)), Err(Refusal::NotSigned));
        }
    }

    #[test]
    fn a_body_that_is_no_call_is_refused() {
        let signer = Signer::new().unwrap();
        for body in [&b""[..], b"\x83h\x04", b"\x83h\x04m\xff\xff\xff\xffx", b"\x83h\x05m\0\0\0\0m\0\0\0\0"] {
            assert_eq!(signer.check(body), Err(Refusal::Malformed));
        }
    }

    proptest! {
        #[test]
        fn no_body_makes_it_panic(bytes: Vec<u8>, cut in 0usize..60) {
            let signer = Signer::new().unwrap();
            prop_assert!(signer.check(&bytes).is_err());
            let whole = body(&signer.sign(&bytes), &bytes);
            let _ = signer.check(&whole[..cut.min(whole.len())]);
        }
    }
}
