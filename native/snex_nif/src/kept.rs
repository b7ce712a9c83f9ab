//! Binaries that Elixir gives, and gets back.

use rustler::env::{OwnedEnv, SavedTerm};
use rustler::{Decoder, Encoder, Env, Error, NifResult, Term};
use std::sync::{Arc, Mutex, PoisonError};

/// A binary that nobody here looks into. It is never copied, whatever its length and however many ask for it: what a normal
/// scheduler does with it takes no time.
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
