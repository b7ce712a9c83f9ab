//! Terms from Python, with the handles in them.

use crate::atoms;
use crate::handle::Handle;
use crate::memory::Memory;
use crate::reply::Reply;
use crate::shared::Shared;
use rustler::{Encoder, Env, OwnedBinary, ResourceArc, Term};
use snex_core::frame::{self, HANDLES};
use snex_core::handles::{Key, Kind};
use snex_core::handover::MEMORY;

/// The body of a frame: a term in external format.
///
/// It owns the handles in the term from its arrival. If it is dropped before Elixir has it, so are the handles, and
/// Python gets their counts back.
pub struct Content {
    body: OwnedBinary,
    /// Where the term begins: after the table of handles, if there is one.
    start: usize,
    /// Each entry of the table: its number, and what that refers to. See [`HANDLES`].
    handles: Option<Vec<(u64, Entry)>>,
}

/// What an entry of the table refers to.
#[derive(Clone)]
enum Entry {
    Nothing,
    Object(ResourceArc<Handle>),
    /// Memory that Python has handed over, which becomes a binary.
    Memory(ResourceArc<Memory>),
}

impl Encoder for Entry {
    fn encode<'a>(&self, env: Env<'a>) -> Term<'a> {
        match self {
            Entry::Nothing => atoms::nil().encode(env),
            Entry::Object(handle) => handle.encode(env),
            Entry::Memory(memory) => Memory::binary(memory, env).to_term(env),
        }
    }
}

impl Entry {
    fn new(shared: &Shared, id: u64) -> Result<Self, String> {
        if id & MEMORY != 0 {
            let Some(handover) = &shared.handover else {
                return Err("memory is handed over, and nowhere to take it from".into());
            };
            return Ok(Entry::Memory(Memory::new(handover.take_memory(id)?)));
        }
        Ok(if id == 0 {
            Entry::Nothing
        } else {
            Entry::Object(ResourceArc::new(Handle::received(Key { kind: Kind::Object, id }, shared)))
        })
    }
}

impl Content {
    /// The content of a frame with these flags.
    ///
    /// # Errors
    /// A sentence about what is wrong with the table of handles.
    pub fn new(shared: &Shared, flags: u8, body: Reply) -> Result<Self, String> {
        let (body, lead) = body.into_parts();
        if flags & HANDLES == 0 {
            return Ok(Content { body, start: lead, handles: None });
        }
        let Some((ids, start)) = body.get(lead..).and_then(frame::split_handles) else {
            return Err(format!("a table of handles that does not fit into a body of {} bytes", body.len()));
        };
        let mut handles = Vec::new();
        if handles.try_reserve_exact(ids.len()).is_err() {
            return Err(format!("the VM has no memory for {} handles", ids.len()));
        }
        for id in ids {
            handles.push((id, Entry::new(shared, id)?));
        }
        Ok(Content { body, start: lead + start, handles: Some(handles) })
    }

    /// The term, in external format.
    pub fn term(&self) -> &[u8] {
        self.body.get(self.start..).unwrap_or_default()
    }

    /// Whether the frame has a table of handles.
    pub fn has_handles(&self) -> bool {
        self.handles.is_some()
    }

    /// What Elixir gets: the term as a binary, or `{binary, [{number, handle}]}`.
    pub fn release<'a>(self, env: Env<'a>) -> Term<'a> {
        let Content { body, start, handles } = self;
        let body = body.release(env);
        let term = if start == 0 {
            body.to_term(env)
        } else {
            // Never an error: the term begins within the body.
            body.make_subbinary(start, body.len().saturating_sub(start))
                .map_or_else(|_| body.to_term(env), |term| term.to_term(env))
        };
        match handles {
            Some(handles) => (term, handles).encode(env),
            None => term,
        }
    }
}
