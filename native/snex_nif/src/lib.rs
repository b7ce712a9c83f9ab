//! The NIFs of `Snex.Native`: thin adapters between Erlang terms and `snex_core`.
//!
//! The terms:
//!
//! * An *interpreter* is the Erlang process that owns a *worker*: a warden and a Python process tree (`snex_core::worker`).
//! * The *registry* maps an interpreter's pid to its worker.
//! * An *environment* is a dictionary inside Python, and an *object* any value there. Both are known here by their numbers.
//! * A *handle* keeps an environment or object alive in Python.

mod answering;
mod atoms;
mod binary_ref;
mod call;
mod caller;
mod cancel;
mod content;
mod deliver;
mod down;
mod handle;
mod how;
mod interpreter;
mod kept;
mod memory;
mod options;
mod outcome;
mod panics;
mod pool;
mod project;
mod registry;
mod reply;
mod request;
mod resource_count;
mod runtime;
mod shared;
mod source;
mod walk;

rustler::init!("Elixir.Snex.Native", load = runtime::load);
