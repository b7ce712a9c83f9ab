//! The NIFs of `Snex.Native`: thin adapters between Erlang terms and `snex_core`.
//!
//! Three names for three things: an *interpreter* is the Erlang process that owns a *worker* (a warden and a Python process
//! tree, `snex_core::worker`); the *registry* finds the worker of an interpreter's pid. An *environment* is a dictionary
//! inside Python, and an *object* any value there, both known here by their numbers; a *handle* keeps one of them in Python until
//! nobody refers to it any more.

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
