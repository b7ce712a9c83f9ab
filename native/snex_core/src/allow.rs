//! Which Elixir functions Python may call.
//!
//! The body of a call is checked before it is decoded, so that a refused call creates no atoms.

use std::collections::HashSet;

/// A rule. Names are as in a term: those of Elixir modules begin with `Elixir.`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Rule {
    /// Every function of a module.
    Module(Vec<u8>),
    /// A function of any arity.
    Function(Vec<u8>, Vec<u8>),
    /// A function of one arity.
    Arity(Vec<u8>, Vec<u8>, u32),
}

/// What is allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Allow {
    /// Everything.
    All,
    /// What one of the rules names.
    Only(HashSet<Rule>),
}

/// Why a call is refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No rule allows the function.
    #[error("{module}.{function}/{arity} is not among the functions that Python may call")]
    NotAllowed {
        /// The module, as Elixir writes it.
        module: String,
        /// The function.
        function: String,
        /// The number of arguments.
        arity: u32,
    },
    /// The body is not a call.
    #[error("a call that cannot be understood")]
    Malformed,
}

impl Allow {
    /// Checks the body of a `CALL` or `CAST` frame: `{node, module, function, args, options}` as an external term.
    ///
    /// Returns the number of arguments that the function must have, or `None` if any number is allowed. The decoder of the
    /// body must check the number again: the tail of an encoded list may be another list, and this function counts only the
    /// elements of the first one.
    ///
    /// # Errors
    /// [`Refusal`]
    pub fn check(&self, body: &[u8]) -> Result<Option<u32>, Refusal> {
        let Allow::Only(rules) = self else { return Ok(None) };
        let (module, function, arity) = callee(body).ok_or(Refusal::Malformed)?;
        if rules.contains(&Rule::Module(module.to_vec()))
            || rules.contains(&Rule::Function(module.to_vec(), function.to_vec()))
        {
            return Ok(None);
        }
        if rules.contains(&Rule::Arity(module.to_vec(), function.to_vec(), arity)) {
            return Ok(Some(arity));
        }
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let module = text(module);
        Err(Refusal::NotAllowed {
            module: module.strip_prefix("Elixir.").map_or_else(|| format!(":{module}"), str::to_string),
            function: text(function),
            arity,
        })
    }
}

// Tags of the external term format: https://www.erlang.org/doc/apps/erts/erl_ext_dist.html
const VERSION: u8 = 131;
const SMALL_TUPLE: u8 = 104;
const NIL: u8 = 106;
const STRING: u8 = 107;
const LIST: u8 = 108;
const ATOM_UTF8: u8 = 118;
const SMALL_ATOM_UTF8: u8 = 119;

/// The module, the function and the number of arguments of a call; `None` if the body is not a call.
fn callee(body: &[u8]) -> Option<(&[u8], &[u8], u32)> {
    let rest = body.strip_prefix(&[VERSION, SMALL_TUPLE, 5])?;
    let (_node, rest) = atom(rest)?;
    let (module, rest) = atom(rest)?;
    let (function, rest) = atom(rest)?;
    let arity = match rest {
        [NIL, ..] => 0,
        [STRING, high, low, ..] => u32::from(u16::from_be_bytes([*high, *low])),
        [LIST, length @ ..] => u32::from_be_bytes(*length.first_chunk()?),
        _ => return None,
    };
    Some((module, function, arity))
}

fn atom(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = match bytes {
        [SMALL_ATOM_UTF8, length, rest @ ..] => (usize::from(*length), rest),
        [ATOM_UTF8, high, low, rest @ ..] => (usize::from(u16::from_be_bytes([*high, *low])), rest),
        _ => return None,
    };
    rest.split_at_checked(length)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn call(module: &str, function: &str, args: &[u8]) -> Vec<u8> {
        let mut body = vec![VERSION, SMALL_TUPLE, 5];
        for name in ["nil", module, function] {
            body.extend([SMALL_ATOM_UTF8, name.len() as u8]);
            body.extend(name.as_bytes());
        }
        body.extend(args);
        body
    }

    fn only(rule: Rule) -> Allow {
        Allow::Only(HashSet::from([rule]))
    }

    const TWO: &[u8] = &[LIST, 0, 0, 0, 2, 97, 1, 97, 2, NIL];

    #[test]
    fn a_rule_allows_what_it_names_and_nothing_else() {
        let (module, function) = (b"Elixir.Enum".to_vec(), b"map".to_vec());
        let map = call("Elixir.Enum", "map", TWO);
        let sum = call("Elixir.Enum", "sum", &[NIL]);
        for (rule, arity) in [
            (Rule::Module(module.clone()), None),
            (Rule::Function(module.clone(), function.clone()), None),
            (Rule::Arity(module.clone(), function.clone(), 2), Some(2)),
        ] {
            assert_eq!(only(rule).check(&map), Ok(arity));
        }
        assert_eq!(only(Rule::Module(module.clone())).check(&sum), Ok(None));
        assert_eq!(Allow::All.check(&map), Ok(None));
        for rule in [
            Rule::Module(b"Elixir.Enumerable".to_vec()),
            Rule::Function(module.clone(), b"mapp".to_vec()),
            Rule::Arity(module, function, 3),
        ] {
            let error = only(rule).check(&map).unwrap_err().to_string();
            assert_eq!(error, "Enum.map/2 is not among the functions that Python may call");
        }
    }

    #[test]
    fn an_erlang_module_is_named_as_elixir_writes_it() {
        let error = Allow::Only(HashSet::new()).check(&call("erlang", "halt", &[NIL])).unwrap_err();
        assert_eq!(error.to_string(), ":erlang.halt/0 is not among the functions that Python may call");
    }

    #[test]
    fn a_body_that_is_no_call_is_refused() {
        let allow = only(Rule::Module(b"m".to_vec()));
        assert_eq!(allow.check(b"\x83h\x05"), Err(Refusal::Malformed));
        assert_eq!(allow.check(&call("m", "f", &[97, 1])), Err(Refusal::Malformed));
    }

    proptest! {
        #[test]
        fn no_body_makes_it_panic(body: Vec<u8>) {
            let _ = Allow::Only(HashSet::new()).check(&body);
        }

        #[test]
        fn no_cut_makes_it_panic(length in 0usize..60) {
            let body = call("Elixir.Enum", "map", TWO);
            let _ = Allow::Only(HashSet::new()).check(&body[..length.min(body.len())]);
        }
    }
}
