//! Delivers what a worker reports as messages to Erlang processes.

use crate::atoms;
use crate::caller::Caller;
use crate::content::Content;
use crate::down::{Down, binary};
use crate::pool::Slot;
use crate::reply::Reply;
use crate::shared::Shared;
use rustler::env::OwnedEnv;
use rustler::{Atom, Encoder, Env, LocalPid, OwnedBinary, Term};
use snex_core::frame::{Header, Kind};
use snex_core::handshake::Ready;
use snex_core::worker::{End, Sink, Stream};
use std::sync::PoisonError;

impl Shared {
    /// Sends a message. Must not be called on one of the VM's own threads.
    pub fn send(&self, to: &LocalPid, message: impl Encoder) -> bool {
        OwnedEnv::new().send_and_clear(to, |env| message.encode(env)).is_ok()
    }

    /// Tells the process `calls` that Python may not make this call.
    fn refuse(&self, call: u64, why: &impl ToString) {
        self.send(&self.calls, (atoms::snex_call(), atoms::refused(), call, why.to_string()));
    }

    fn answer(&self, request: u64, tag: Atom, content: Content) -> Result<(), String> {
        let answered = if content.has_handles() {
            // Built beforehand, as there may be many handles, and the table is locked while the message is sent.
            let own = OwnedEnv::new();
            let value = own.run(|env| own.save(content.release(env)));
            self.pending.answer(request, |caller| caller.send(tag, own, &value))
        } else {
            self.pending.answer(request, |caller| caller.finish(tag, |env| content.release(env)))
        };
        answered.map_err(|error| error.to_string())
    }

    /// Sends a part of a stream: items, with the number of the items before them; or the end, with the number of all
    /// items and the slot in which the stream ran. The caller takes its request out of the table when it has all
    /// items.
    fn part(&self, header: &Header, tag: Atom, content: Content, slot: Option<Slot>) -> Result<(), String> {
        let own = OwnedEnv::new();
        let value = own.run(|env| own.save((header.cause, content.release(env))));
        let mut stream = true;
        let notify = |caller: &mut Caller| {
            stream = caller.stream;
            if stream {
                caller.slot = slot;
                caller.send(tag, own, &value);
            }
        };
        let told = match header.kind {
            Kind::Items => self.pending.answer_part(header.id, notify),
            _ => self.pending.answer_early(header.id, notify),
        };
        told.map_err(|error| error.to_string())?;
        if stream {
            Ok(())
        } else {
            Err(format!("a part of a stream as the answer to request {}", header.id))
        }
    }
}

impl Sink for Shared {
    type Body = Reply;

    fn started(&self, pid: i32) {
        self.send(&self.owner, (atoms::snex_started(), pid));
    }

    fn ready(&self, ready: Ready) {
        let fields = [
            ("python", ready.python),
            ("implementation", ready.implementation),
            ("executable", ready.executable),
            ("version", ready.version),
            ("encoder", ready.encoder),
        ];
        self.send(&self.owner, (atoms::snex_ready(), fields.to_vec()));
    }

    fn frame(&self, header: Header, body: Reply) -> Result<(), String> {
        let slot = match header.kind {
            // Freed before the caller is told, so that its next call finds room. The slot is dropped after that, so
            // that the pool does not end the interpreter before the caller has its answer.
            Kind::Result | Kind::Error | Kind::Cancelled => self.membership.end(header.id),
            _ => None,
        };
        let content = Content::new(self, header.flags, body)?;
        let (call, arity) = match header.kind {
            Kind::Items if self.create_atoms => return self.part(&header, atoms::items(), content, None),
            Kind::Items => return self.part(&header, atoms::items_safe(), content, None),
            // The end of a stream. Its caller may still be waiting for items.
            Kind::Result if header.cause > 0 => {
                return self.part(&header, atoms::stream_end(), content, slot);
            }
            Kind::Error if header.cause > 0 => {
                return self.part(&header, atoms::stream_error(), content, slot);
            }
            Kind::Result if self.create_atoms => return self.answer(header.id, atoms::result(), content),
            Kind::Result => return self.answer(header.id, atoms::result_safe(), content),
            Kind::Error => return self.answer(header.id, atoms::error(), content),
            Kind::Call | Kind::Cast => match self.allow.check(content.term()) {
                Ok(arity) if header.kind == Kind::Call => (atoms::call(), arity),
                Ok(arity) => (atoms::cast(), arity),
                Err(refusal) => {
                    self.refuse(header.id, &refusal);
                    return Ok(());
                }
            },
            Kind::Send => (atoms::send(), None),
            Kind::Apply => match self.signer.as_ref().map_or(Ok(()), |signer| signer.check(content.term())) {
                Ok(()) => (atoms::apply(), None),
                Err(refusal) => {
                    self.refuse(header.id, &refusal);
                    return Ok(());
                }
            },
            Kind::Pull => return self.pull(header.id, content.term()),
            Kind::Close => return self.close(header.id),
            Kind::Cancelled => {
                return self.cancelling.acknowledge(header.id, self.pending.requests());
            }
            other => return Err(format!("a frame of kind {other:?} after the handshake")),
        };
        // The caller of the request whose code made this call; `None` if that request has been answered.
        let caller = self.pending.with(header.cause, |caller| caller.pid);
        let _ = OwnedEnv::new().send_and_clear(&self.calls, |env| {
            let cause = (header.cause, caller);
            (atoms::snex_call(), call, header.id, cause, content.release(env), arity)
        });
        Ok(())
    }

    fn waiting(&self) -> usize {
        self.pending.len() + self.sources.len()
    }

    fn writable(&self) {
        self.pending.notify_room(|caller| caller.finish(atoms::writable(), |env| atoms::ok().encode(env)));
    }

    async fn print(&self, request: u64, body: Reply) {
        let body = body.into_binary();
        let stream = match body.first() {
            Some(1) => Stream::Stdout,
            Some(2) => Stream::Stderr,
            _ => return,
        };
        if stream == Stream::Stderr {
            self.remember(body.get(1..).unwrap_or_default());
        }
        let mut body = Some(body);
        if let Some(unread) = self.pending.with(request, Caller::unread) {
            // `print_read` gives the permit back. The semaphore is closed when the caller is gone.
            if let Ok(permit) = unread.acquire().await {
                permit.forget();
                let sent = self.pending.with(request, |caller| {
                    caller.print(|env| {
                        let text =
                            body.take().map_or_else(|| atoms::nil().encode(env), |body| text_of(body, env));
                        (stream_name(stream), text).encode(env)
                    })
                });
                if sent == Some(true) {
                    return;
                }
            }
        }
        // Printed outside of any request, or by one without a caller: it goes to the interpreter's output.
        if let Some(body) = body {
            self.output(stream, body.get(1..).unwrap_or_default()).await;
        }
    }

    async fn log(&self, event: Reply) {
        let event = event.into_binary();
        let sent = OwnedEnv::new()
            .send_and_clear(&self.output, |env| (atoms::snex_log(), event.release(env).to_term(env)))
            .is_ok();
        // Waits until the event is logged, so that the answer of the request that logged it comes after it.
        if sent && let Ok(permit) = self.logged.acquire().await {
            permit.forget();
        }
    }

    async fn output(&self, stream: Stream, chunk: &[u8]) {
        let unread = match stream {
            Stream::Stdout => &self.unread[0],
            Stream::Stderr => &self.unread[1],
        };
        // `output_read` gives the permit back when the output process has acknowledged the chunk.
        let Ok(permit) = unread.acquire().await else { return };
        let sent = OwnedEnv::new()
            .send_and_clear(&self.output, |env| {
                (atoms::snex_output(), stream_name(stream), binary(env, chunk))
            })
            .is_ok();
        if sent {
            permit.forget();
        }
    }

    fn ended(&self, mut end: End) {
        // For the report of a crash: first what Python code printed, then what C code did.
        let last = self.last_errors.lock().unwrap_or_else(PoisonError::into_inner);
        end.stderr = last.iter().copied().chain(end.stderr).collect();
        drop(last);
        self.close_output();
        let down = Down::Ended(end);
        self.membership.leave();
        self.pending.fail_all(down.clone(), Caller::fail);
        self.membership.clear();
        self.send(&self.owner, (atoms::snex_ended(), down));
    }
}

fn stream_name(stream: Stream) -> Atom {
    match stream {
        Stream::Stdout => atoms::stdout(),
        Stream::Stderr => atoms::stderr(),
    }
}

/// The printed text, which follows the byte for the stream: a sub-binary, not a copy.
fn text_of(body: OwnedBinary, env: Env<'_>) -> Term<'_> {
    let body = body.release(env);
    body.make_subbinary(1, body.len() - 1).map_or_else(|_| body.to_term(env), |text| text.to_term(env))
}
