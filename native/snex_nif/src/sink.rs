//! News from a worker, sent on as messages.

use crate::atoms;
use crate::cancel::Cancelling;
use crate::down::{Down, binary};
use crate::environment::Alive;
use crate::interpreter::Watched;
use crate::kept::Kept;
use crate::live::Live;
use crate::options::Options;
use crate::pending::{Caller, Pending};
use crate::reply::Reply;
use rustler::env::OwnedEnv;
use rustler::{Atom, Encoder, Env, LocalPid, OwnedBinary, Term};
use snex_core::allow::Allow;
use snex_core::frame::{Header, Kind};
use snex_core::handshake::Ready;
use snex_core::worker::{End, Sink, Stream};
use std::collections::VecDeque;
use std::sync::atomic::AtomicBool;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::sync::mpsc::UnboundedSender;

/// Bytes of standard error that are kept for the report of a crash.
const LAST_ERRORS: usize = 4 * 1024;

/// What the NIFs and the worker's tasks share about one interpreter.
pub struct News {
    /// The interpreter process.
    pub owner: LocalPid,
    /// The process that starts it, and runs the init script.
    pub starter: LocalPid,
    /// The process that runs what Python calls.
    pub calls: LocalPid,
    /// The process that prints what Python prints.
    pub output: LocalPid,
    /// Where it goes, as a term in external format.
    pub output_to: Kept,
    /// How values look in Python where a call does not say.
    pub encoding: Options,
    /// Whether replies may create atoms.
    pub create_atoms: bool,
    /// Which functions Python may call.
    pub allow: Allow,
    /// Requests under way.
    pub pending: Pending,
    /// How many there may be.
    pub max_in_flight: usize,
    /// Whether Python reads the same clock as the VM.
    pub shares_clock: bool,
    /// Requests that nobody waits for any more, until Python has noticed.
    pub cancelling: Cancelling,
    /// How long Python does not interrupt a request once more, so that it can clean up.
    pub cleanup_timeout: Duration,
    /// Processes whose end this worker is told of.
    pub watched: Watched,
    /// Environments that Python keeps, besides the root.
    pub alive: Alive,
    /// Whether anyone but the starter may submit requests.
    pub open: AtomicBool,
    /// Environments to be forgotten.
    pub drops: UnboundedSender<u64>,
    /// The last that was printed to standard error from Python's own code, for the report of a crash.
    pub last_errors: Mutex<VecDeque<u8>>,
    /// Room for chunks of output that the output process has not acknowledged: one for each stream.
    pub unread: [Semaphore; 2],
    /// Log events that the output process has dealt with.
    pub logged: Semaphore,
    /// Counts it.
    pub _live: Live,
}

impl News {
    /// Sends a message. Only from threads that are not the VM's own.
    pub fn tell(&self, to: &LocalPid, message: impl Encoder) -> bool {
        OwnedEnv::new().send_and_clear(to, |env| message.encode(env)).is_ok()
    }

    /// Nobody prints any more what Python prints outside of calls, or logs: it need not wait for that.
    pub fn close_output(&self) {
        self.unread.iter().for_each(Semaphore::close);
        self.logged.close();
    }

    fn remember(&self, errors: &[u8]) {
        let mut last = self.last_errors.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = errors.get(errors.len().saturating_sub(LAST_ERRORS)..).unwrap_or_default();
        let surplus = (last.len() + fresh.len()).saturating_sub(LAST_ERRORS);
        last.drain(..surplus);
        last.extend(fresh);
    }

    fn answer(&self, request: u64, tag: Atom, body: OwnedBinary) -> Result<(), String> {
        let tell = |caller: Caller| caller.finish(tag, |env| body.release(env).to_term(env));
        self.pending.answer(request, tell).map_err(|unasked| unasked.to_string())
    }
}

impl Sink for News {
    type Body = Reply;

    fn started(&self, pid: i32) {
        self.tell(&self.owner, (atoms::snex_started(), pid));
    }

    fn ready(&self, ready: Ready) {
        let fields = [
            ("python", ready.python),
            ("implementation", ready.implementation),
            ("executable", ready.executable),
            ("version", ready.version),
            ("encoder", ready.encoder),
        ];
        self.tell(&self.owner, (atoms::snex_ready(), fields.to_vec()));
    }

    fn frame(&self, header: Header, body: Reply) -> Result<(), String> {
        let body = body.into_binary();
        let (call, arity) = match header.kind {
            Kind::Result if self.create_atoms => return self.answer(header.id, atoms::result(), body),
            Kind::Result => return self.answer(header.id, atoms::result_safe(), body),
            Kind::Error => return self.answer(header.id, atoms::error(), body),
            Kind::Call | Kind::Cast => match self.allow.check(&body) {
                Ok(arity) if header.kind == Kind::Call => (atoms::call(), arity),
                Ok(arity) => (atoms::cast(), arity),
                Err(refusal) => {
                    let refused = (atoms::snex_call(), atoms::refused(), header.id, refusal.to_string());
                    self.tell(&self.calls, refused);
                    return Ok(());
                }
            },
            Kind::Send => (atoms::send(), None),
            Kind::Cancelled => {
                return self.cancelling.noticed_by_python(header.id, self.pending.requests());
            }
            other => return Err(format!("a frame of kind {other:?} after the handshake")),
        };
        let _ = OwnedEnv::new().send_and_clear(&self.calls, |env| {
            (atoms::snex_call(), call, header.id, body.release(env).to_term(env), arity)
        });
        Ok(())
    }

    fn writable(&self) {
        self.pending.room(|caller| caller.finish(atoms::writable(), |env| atoms::ok().encode(env)));
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
            // Given back by `print_read`; closed when the caller is gone.
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
        // Printed outside of any call, or nobody waits any more: the interpreter's.
        if let Some(body) = body {
            self.output(stream, body.get(1..).unwrap_or_default()).await;
        }
    }

    async fn log(&self, event: Reply) {
        let event = event.into_binary();
        let sent = OwnedEnv::new()
            .send_and_clear(&self.output, |env| (atoms::snex_log(), event.release(env).to_term(env)))
            .is_ok();
        // The answer of the request that has logged it comes behind it.
        if sent && let Ok(permit) = self.logged.acquire().await {
            permit.forget();
        }
    }

    async fn output(&self, stream: Stream, chunk: &[u8]) {
        let unread = match stream {
            Stream::Stdout => &self.unread[0],
            Stream::Stderr => &self.unread[1],
        };
        // Given back by `output_read` when the process has dealt with the chunk.
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
        // What Python's own code printed, and after it what C code did: the last words of a crash.
        let last = self.last_errors.lock().unwrap_or_else(PoisonError::into_inner);
        end.stderr = last.iter().copied().chain(end.stderr).collect();
        drop(last);
        self.close_output();
        let down = Down::Ended(end);
        self.pending.fail_all(down.clone(), Caller::fail);
        self.tell(&self.owner, (atoms::snex_ended(), down));
    }
}

fn stream_name(stream: Stream) -> Atom {
    match stream {
        Stream::Stdout => atoms::stdout(),
        Stream::Stderr => atoms::stderr(),
    }
}

/// What was printed, behind the byte that tells the stream: a part of the binary, not a copy.
fn text_of(body: OwnedBinary, env: Env<'_>) -> Term<'_> {
    let body = body.release(env);
    body.make_subbinary(1, body.len() - 1).map_or_else(|_| body.to_term(env), |text| text.to_term(env))
}
