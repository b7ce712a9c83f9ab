//! Workers with a real warden and real programs: what is reported, and what is left behind (nothing).
//!
//! The programs are shell scripts that speak as much of the protocol as a test needs. Where a test waits, it waits for an
//! event, under one generous limit for all of it, which only a failure reaches.

#![cfg(unix)]
#![allow(clippy::unwrap_used, missing_docs)]

mod end;
mod forking;
mod stop;
mod support;
mod traffic;
mod warden;
