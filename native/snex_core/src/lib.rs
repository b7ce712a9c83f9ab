//! The engine of Snex without the Erlang VM: frames, Pickle 5, and the life of a Python process tree.
//!
//! The warden uses [`control`] and [`process_tree`], without any feature. The VM's side enables two features: `worker`, whose
//! module [`worker`] starts a warden and a Python and passes the frames from Python to a [`worker::Sink`], and `project`, which
//! reads `pyproject.toml` and `uv.lock`. Nothing here knows about Rustler, so plain `cargo test` can test everything.

pub mod allow;
pub mod clock;
pub mod control;
pub mod frame;
pub mod handles;
pub mod handover;
pub mod outbox;
pub mod pending;
pub mod pickle;
pub mod pool;
pub mod process_tree;
pub mod shared_memory;
mod sync;

// Cargo builds this crate anew when the variable differs; see `cargo_build` in mix/compile_cargo.ex.
const _: Option<&str> = option_env!("SNEX_SOURCES");

#[cfg(all(any(fuzzing, test), feature = "project", feature = "worker"))]
pub mod fuzz;
#[cfg(feature = "worker")]
pub mod handshake;
#[cfg(feature = "project")]
pub mod project;
#[cfg(feature = "worker")]
pub mod signing;
#[cfg(feature = "worker")]
pub mod worker;
