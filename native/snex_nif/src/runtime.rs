//! The tokio runtime that all workers share.

use crate::{handle, interpreter, memory, panics, pool};
use rustler::{Env, Term};
use std::sync::OnceLock;
use std::time::Duration;
use tokio::runtime::{Builder, Handle, Runtime};

/// How many threads move bytes. They only wait and copy, so two are enough for many interpreters.
const THREADS: usize = 2;

static RUNTIME: OnceLock<Runtime> = OnceLock::new();

/// Called when the library is loaded. The library is never unloaded.
pub fn load(env: Env<'_>, _info: Term<'_>) -> bool {
    panics::count();
    if env.register::<interpreter::Interpreter>().is_err()
        || env.register::<handle::Handle>().is_err()
        || env.register::<handle::Proxy>().is_err()
        || env.register::<memory::Memory>().is_err()
        || env.register::<pool::Opened>().is_err()
        || env.register::<pool::Reservation>().is_err()
        || env.register::<pool::Ticket>().is_err()
    {
        return false;
    }
    if RUNTIME.get().is_some() {
        return true;
    }
    let mut builder = Builder::new_multi_thread();
    // The only blocking work is the search for what a killed warden has left behind. It is rare, so no thread is kept
    // for it.
    builder.worker_threads(THREADS).thread_keep_alive(Duration::ZERO).thread_name("snex").enable_all();
    match builder.build() {
        Ok(runtime) => RUNTIME.set(runtime).is_ok(),
        Err(_) => false,
    }
}

/// The runtime; `None` only before the library is loaded.
pub fn handle() -> Option<&'static Handle> {
    RUNTIME.get().map(Runtime::handle)
}
