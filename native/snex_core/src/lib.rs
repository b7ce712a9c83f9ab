//! The engine of Snex without the Erlang VM: frames, Pickle 5, the life of a Python process tree.
//!
//! The warden uses [`control`] alone. The VM's side adds the `worker` feature: [`worker`] starts a warden and a Python
//! and moves frames between them and a [`worker::Sink`]; the `project` feature reads what declares a Python. Nothing here knows about Rustler, so everything here is tested
//! by plain `cargo test`.

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
