//! How an interpreter went down, as Elixir sees it.

use crate::atoms;
use crate::kept::Kept;
use rustler::{Atom, Encoder, Env, NewBinary, Term};
use snex_core::worker::{Cause, End};

/// How an interpreter went down. Kept to answer later requests.
#[derive(Clone)]
pub enum Down {
    /// Its owner stopped it. The reason is in external term format.
    Stopped(Kept),
    /// Its owner died without stopping it.
    OwnerGone,
    /// It ended by itself.
    Ended(End),
}

impl Encoder for Down {
    fn encode<'a>(&self, env: Env<'a>) -> Term<'a> {
        match self {
            Down::Stopped(reason) => (atoms::stopped(), reason).encode(env),
            Down::OwnerGone => atoms::owner_gone().encode(env),
            Down::Ended(end) => (
                atoms::ended(),
                cause(env, &end.cause),
                end.exit.map(|exit| exit.shell_status()),
                end.exit.and_then(|exit| exit.signal_name()),
                binary(env, &end.stderr),
            )
                .encode(env),
        }
    }
}

fn cause<'a>(env: Env<'a>, cause: &Cause) -> Term<'a> {
    let told = |name: Atom, reason: &str| (name, reason).encode(env);
    match cause {
        Cause::NotStarted(reason) => told(atoms::not_started(), reason),
        Cause::Broken(reason) => told(atoms::broken(), reason),
        Cause::Exited => atoms::exited().encode(env),
        Cause::Stopped => atoms::stopped().encode(env),
        Cause::WardenLost => atoms::warden_lost().encode(env),
    }
}

pub fn binary<'a>(env: Env<'a>, bytes: &[u8]) -> Term<'a> {
    let mut binary = NewBinary::new(env, bytes.len());
    binary.as_mut_slice().copy_from_slice(bytes);
    Term::from(binary)
}
