//! Checks that a control structure is a flat map: its keys and values are scalars. This has to come before `eetf` decodes the
//! structure, because `eetf` trusts lengths, inflates compressed terms of any size, and recurses until the stack overflows.

use thiserror::Error;

/// Why a body is not decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(super) enum NotFlat {
    /// The body is not a map.
    #[error("expected a map in external term format")]
    NoMap,
    /// A key or a value is not text, a number or an atom.
    #[error("a term of tag {0}, where text, a number or an atom should be")]
    Tag(u8),
    /// The body ends inside a term.
    #[error("it ends inside a term")]
    CutShort,
    /// Bytes follow the map.
    #[error("{0} bytes behind the map")]
    Surplus(usize),
}

// Tags of the external term format: https://www.erlang.org/doc/apps/erts/erl_ext_dist.html
const VERSION: u8 = 131;
const NEW_FLOAT: u8 = 70;
const SMALL_INTEGER: u8 = 97;
const INTEGER: u8 = 98;
const BINARY: u8 = 109;
const SMALL_BIG: u8 = 110;
const MAP: u8 = 116;
const ATOM_UTF8: u8 = 118;
const SMALL_ATOM_UTF8: u8 = 119;

/// Checks a whole body, in linear time and without allocating memory.
pub(super) fn check(body: &[u8]) -> Result<(), NotFlat> {
    let mut rest = body.strip_prefix(&[VERSION, MAP]).ok_or(NotFlat::NoMap)?;
    let pairs = number(&mut rest, 4)?;
    for _ in 0..pairs * 2 {
        scalar(&mut rest)?;
    }
    if rest.is_empty() { Ok(()) } else { Err(NotFlat::Surplus(rest.len())) }
}

fn scalar(rest: &mut &[u8]) -> Result<(), NotFlat> {
    let tag = number(rest, 1)? as u8;
    let length = match tag {
        SMALL_INTEGER => 1,
        INTEGER => 4,
        NEW_FLOAT => 8,
        BINARY => number(rest, 4)?,
        // One byte more, for the sign.
        SMALL_BIG => number(rest, 1)? + 1,
        SMALL_ATOM_UTF8 => number(rest, 1)?,
        ATOM_UTF8 => number(rest, 2)?,
        other => return Err(NotFlat::Tag(other)),
    };
    take(rest, length as usize).map(|_| ())
}

/// Reads a number of `size` bytes, at most 4.
fn number(rest: &mut &[u8], size: usize) -> Result<u64, NotFlat> {
    let bytes = take(rest, size)?;
    Ok(bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Result<&'a [u8], NotFlat> {
    let (taken, others) = rest.split_at_checked(length).ok_or(NotFlat::CutShort)?;
    *rest = others;
    Ok(taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: u32, terms: &[u8]) -> Vec<u8> {
        [&[VERSION, MAP][..], &pairs.to_be_bytes(), terms].concat()
    }

    #[test]
    fn scalars_of_every_kind_are_fine() {
        let terms = [
            &[BINARY, 0, 0, 0, 1, b'a', SMALL_INTEGER, 1][..],
            &[BINARY, 0, 0, 0, 0, INTEGER, 0, 0, 1, 0],
            &[SMALL_BIG, 2, 0, 1, 1, SMALL_ATOM_UTF8, 1, b'a'],
            &[ATOM_UTF8, 0, 1, b'a', NEW_FLOAT, 0, 0, 0, 0, 0, 0, 0, 0],
        ];
        assert_eq!(check(&map(4, &terms.concat())), Ok(()));
    }

    #[test]
    fn what_would_cost_memory_or_stack_is_refused() {
        // The most pairs, the longest text, a list that claims to be long, something compressed, a deep tuple.
        assert_eq!(check(&map(u32::MAX, &[SMALL_INTEGER, 1])), Err(NotFlat::CutShort));
        assert_eq!(check(&map(1, &[BINARY, 255, 255, 255, 255])), Err(NotFlat::CutShort));
        assert_eq!(check(&map(1, &[108, 255, 255, 255, 255])), Err(NotFlat::Tag(108)));
        assert_eq!(check(&[VERSION, 80, 255, 255, 255, 255]), Err(NotFlat::NoMap));
        assert_eq!(check(&map(1, &[104, 1].repeat(1_000_000))), Err(NotFlat::Tag(104)));
        assert_eq!(check(&[VERSION, 104, 1].repeat(1_000_000)), Err(NotFlat::NoMap));
    }

    #[test]
    fn nothing_may_follow() {
        assert_eq!(check(&map(0, &[1, 2])), Err(NotFlat::Surplus(2)));
    }
}
