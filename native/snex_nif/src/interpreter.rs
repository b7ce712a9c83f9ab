//! Interpreters: starting a worker for the calling process, and its end.

use crate::atoms;
use crate::down::Down;
use crate::environment;
use crate::held::Held;
use crate::options::{CallOptions, Options};
use crate::pending::Pending;
use crate::registry;
use crate::runtime;
use crate::sink::News;
use rustler::{Atom, Binary, Encoder, Env, LocalPid, Monitor, NifMap, Resource, ResourceArc, Term};
use snex_core::control::{ORPHAN_GRACE, Spec};
use snex_core::frame::PROTOCOL;
use snex_core::handshake::{Blob, Hello};
use snex_core::worker::{Settings, Transport, Worker};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::sync::mpsc;

/// The worker of an interpreter process. Kept by the registry until that process is gone.
pub struct Interpreter {
    pub worker: Arc<Worker<Held, News>>,
}

impl Resource for Interpreter {
    const IMPLEMENTS_DOWN: bool = true;

    /// The owner died. If it stopped its worker before, all this does is forget it.
    fn down<'a>(&'a self, _env: Env<'a>, owner: LocalPid, _monitor: Monitor) {
        let interpreter = registry::remove(owner);
        fail_and_stop(Arc::clone(&self.worker), Down::OwnerGone, ORPHAN_GRACE);
        drop(interpreter);
    }
}

/// Callers are told on the runtime's threads: schedulers must not send this way.
fn fail_and_stop(worker: Arc<Worker<Held, News>>, down: Down, grace: Duration) {
    if let Some(runtime) = runtime::handle() {
        runtime.spawn(async move {
            worker.sink.pending.fail_all(down);
            worker.stop(grace);
        });
    }
}

/// What `Snex.Interpreter` passes to start.
#[derive(NifMap)]
#[rustler(decode)]
struct StartOptions<'a> {
    warden: Binary<'a>,
    program: Binary<'a>,
    args: Vec<Binary<'a>>,
    env: Vec<(Binary<'a>, Binary<'a>)>,
    cwd: Option<Binary<'a>>,
    use_stdio: bool,
    version: String,
    eager: bool,
    low: usize,
    high: usize,
    map_set: (Binary<'a>, Binary<'a>),
    calls: LocalPid,
    output: LocalPid,
    encoding: CallOptions,
}

impl StartOptions<'_> {
    fn settings(&self) -> Settings {
        let bytes = |binary: &Binary<'_>| binary.as_slice().to_vec();
        Settings {
            warden: Path::new(OsStr::from_bytes(self.warden.as_slice())).to_path_buf(),
            spec: Spec {
                program: bytes(&self.program),
                args: self.args.iter().map(bytes).collect(),
                env: self.env.iter().map(|(key, value)| (bytes(key), bytes(value))).collect(),
                cwd: self.cwd.as_ref().map(bytes),
                descriptors: Vec::new(),
            },
            transport: if self.use_stdio { Transport::Stdio } else { Transport::Pipes },
            hello: Hello {
                protocol: PROTOCOL,
                version: self.version.clone(),
                eager: self.eager,
                buffer_limits: (self.low as u64, self.high as u64),
                map_set: (Blob(bytes(&self.map_set.0)), Blob(bytes(&self.map_set.1))),
            },
            marks: (self.low, self.high),
        }
    }
}

/// Starts a worker for the calling process: `ok`, or `{error, reason}` with a sentence. What becomes of it comes as messages:
/// `{snex_started, os_pid}`, `{snex_ready, fields}`, `{snex_ended, down}`.
#[rustler::nif(schedule = "DirtyIo")]
fn interpreter_start<'a>(env: Env<'a>, options: StartOptions<'a>) -> Term<'a> {
    let failed = |reason: &str| (atoms::error(), reason).encode(env);
    let Some(runtime) = runtime::handle() else { return failed("the native library is not loaded") };
    let owner = env.pid();
    let (drops, dropped) = mpsc::unbounded_channel();
    let news = News {
        owner,
        calls: options.calls,
        output: options.output,
        encoding: options.encoding.over(Options::default()),
        pending: Pending::default(),
        open: AtomicBool::new(false),
        requests: AtomicU64::new(0),
        environments: AtomicU64::new(0),
        drops,
        unread: [Semaphore::new(1), Semaphore::new(1)],
    };
    let worker = match Worker::start(runtime, options.settings(), news) {
        Ok(worker) => worker,
        Err(error) => return failed(&error.to_string()),
    };
    runtime.spawn(environment::forget_dropped(Arc::downgrade(&worker), dropped));
    let interpreter = ResourceArc::new(Interpreter { worker });
    registry::insert(owner, interpreter.clone());
    if env.monitor(&interpreter, &owner).is_none() {
        // Killed in this very moment: there will be no call of `down`.
        registry::remove(owner);
        fail_and_stop(Arc::clone(&interpreter.worker), Down::OwnerGone, ORPHAN_GRACE);
    }
    atoms::ok().encode(env)
}

/// Lets others submit requests to the calling interpreter process.
#[rustler::nif]
fn interpreter_open(env: Env<'_>) -> Atom {
    match registry::find(env.pid()) {
        Some(interpreter) => {
            interpreter.worker.sink.open.store(true, Ordering::Release);
            atoms::ok()
        }
        None => atoms::noproc(),
    }
}

/// Stops the worker of the calling process: callers get `reason` (a term in external format), the tree gets `grace`
/// milliseconds between SIGTERM and SIGKILL. `{snex_ended, down}` tells when nothing is left.
#[rustler::nif]
fn interpreter_stop(env: Env<'_>, reason: Binary<'_>, grace: u64) -> Atom {
    match registry::find(env.pid()) {
        Some(interpreter) => {
            let down = Down::Stopped(reason.as_slice().to_vec());
            fail_and_stop(Arc::clone(&interpreter.worker), down, Duration::from_millis(grace));
            atoms::ok()
        }
        None => atoms::noproc(),
    }
}

/// The output process has dealt with the chunk of this stream: the next may come.
#[rustler::nif]
fn output_read(interpreter: LocalPid, stream: Atom) -> Atom {
    if let Some(interpreter) = registry::find(interpreter) {
        let [stdout, stderr] = &interpreter.worker.sink.unread;
        if stream == atoms::stdout() { stdout } else { stderr }.add_permits(1);
    }
    atoms::ok()
}
