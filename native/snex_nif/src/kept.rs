//! Binaries that are stored for Elixir.

use rustler::env::{OwnedEnv, SavedTerm};
use rustler::{Decoder, Encoder, Env, Error, NifResult, Term};
use std::sync::{Arc, Mutex, PoisonError};

/// A binary that is stored for Elixir and never read here. It is not copied, so a normal scheduler can store and
/// return binaries of any length.
#[derive(Clone)]
pub struct Kept(Arc<Mutex<(OwnedEnv, SavedTerm)>>);

impl<'a> Decoder<'a> for Kept {
    fn decode(term: Term<'a>) -> NifResult<Self> {
        if !term.is_binary() {
            return Err(Error::BadArg);
        }
        let own = OwnedEnv::new();
        let binary = own.save(term);
        Ok(Kept(Arc::new(Mutex::new((own, binary)))))
    }
}

impl Encoder for Kept {
    fn encode<'a>(&self, env: Env<'a>) -> Term<'a> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (own, binary) = &*kept;
        own.run(|own| binary.load(own).in_env(env))
    }
}
