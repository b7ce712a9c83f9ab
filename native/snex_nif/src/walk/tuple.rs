//! Reading tuples without copying their items.

use rustler::Term;
use rustler::sys::{ErlNifTerm, enif_get_tuple};
use std::mem::MaybeUninit;

/// The items of a tuple, in the VM's own memory; `None` if `term` is not a tuple.
pub fn items<'a>(term: Term<'a>) -> Option<&'a [ErlNifTerm]> {
    let mut arity = 0;
    let mut items = MaybeUninit::uninit();
    // SAFETY: both variables are written if the call succeeds, and not read if it fails.
    let found =
        unsafe { enif_get_tuple(term.get_env().as_c_arg(), term.as_c_arg(), &mut arity, items.as_mut_ptr()) };
    if found == 0 || arity <= 0 {
        return (found != 0).then_some(&[]);
    }
    // SAFETY: the items are part of the tuple, which the environment of `term` keeps in its place during 'a.
    Some(unsafe { std::slice::from_raw_parts(items.assume_init(), arity as usize) })
}

/// An item of `tuple`.
pub fn item<'a>(tuple: Term<'a>, item: ErlNifTerm) -> Term<'a> {
    // SAFETY: an item belongs to the environment of its tuple.
    unsafe { Term::new(tuple.get_env(), item) }
}
