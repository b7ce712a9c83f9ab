//! Interpreters: starting and stopping the worker of an interpreter process.

use crate::answering::Answering;
use crate::atoms;
use crate::binary_ref::BinaryRef;
use crate::caller::{Caller, Pending};
use crate::cancel::{self, Cancelling};
use crate::down::Down;
use crate::handle;
use crate::kept::Kept;
use crate::options::{CallOptions, Options};
use crate::pool::Membership;
use crate::registry;
use crate::resource_count::{Counted, CountedKind};
use crate::runtime;
use crate::shared::Shared;
use crate::source::{self, Sources};
use rustler::{Atom, Binary, Encoder, Env, LocalPid, Monitor, NifMap, Resource, ResourceArc, Term};
use snex_core::allow::{Allow, Rule};
use snex_core::control::{Limits, ORPHAN_GRACE, Spec};
use snex_core::frame::PROTOCOL;
use snex_core::handles::{Alive, Kind};
use snex_core::handover::Handover;
use snex_core::handshake::{Blob, Hello};
use snex_core::process_tree;
use snex_core::signing::Signer;
use snex_core::worker::{Settings, Transport, Worker};
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::sync::mpsc;

/// The worker of an interpreter process. The registry keeps it until that process has died.
pub struct Interpreter {
    pub worker: Arc<Worker<BinaryRef, Shared>>,
    /// Set once the owner has died; `registry::find` no longer returns this worker.
    pub gone: AtomicBool,
    _counted: Counted,
}

impl Resource for Interpreter {
    const IMPLEMENTS_DOWN: bool = true;

    /// Called when the owner, its output process or a watched process has died. If the owner has already stopped its
    /// worker, this only removes the worker from the registry.
    fn down<'a>(&'a self, _env: Env<'a>, pid: LocalPid, _monitor: Monitor) {
        let shared = &self.worker.sink;
        if pid == shared.owner {
            // The output process is linked to the owner, and dies with it.
            shared.close_output();
            self.owner_gone();
            return;
        }
        if pid == shared.output {
            shared.close_output();
            return;
        }
        shared.watched.remove(pid);
        source::abandon(self, pid);
        for request in shared.pending.abandon(pid) {
            cancel::cancel(&self.worker, request);
        }
    }
}

/// The callers and feeders that this worker monitors. Each is monitored once, until it dies.
#[derive(Default)]
pub struct Watched(Mutex<BTreeSet<LocalPid>>);

impl Watched {
    /// How many processes are monitored.
    pub fn len(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    fn insert(&self, pid: LocalPid) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(pid)
    }

    fn remove(&self, pid: LocalPid) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&pid);
    }
}

/// Monitors the calling process, so that its requests are cancelled when it dies. Returns false if it is dead
/// already: a process that is killed in a dirty NIF still runs the NIF to its end.
pub fn watch(env: Env<'_>, interpreter: &ResourceArc<Interpreter>) -> bool {
    let pid = env.pid();
    let shared = &interpreter.worker.sink;
    let dead = pid != shared.owner && shared.watched.insert(pid) && env.monitor(interpreter, &pid).is_none();
    if dead {
        shared.watched.remove(pid);
    }
    !dead
}

/// Fails all pending requests, and stops the worker. In a task, because schedulers must not send this way.
fn fail_and_stop(worker: Arc<Worker<BinaryRef, Shared>>, down: Down, grace: Duration) {
    worker.sink.membership.leave();
    if let Some(runtime) = runtime::handle() {
        runtime.spawn(async move {
            worker.sink.pending.fail_all(down, Caller::fail);
            worker.stop(grace);
        });
    }
}

impl Interpreter {
    /// Fails all pending requests, and stops the worker. The registry keeps the worker until all callers have been
    /// told, so that `request_forget` finds it: a caller that gives up meanwhile gets no message afterwards.
    fn owner_gone(&self) {
        self.gone.store(true, Ordering::Release);
        self.worker.sink.membership.leave();
        let worker = Arc::clone(&self.worker);
        if let Some(runtime) = runtime::handle() {
            runtime.spawn(async move {
                worker.sink.pending.fail_all(Down::OwnerGone, Caller::fail);
                worker.stop(ORPHAN_GRACE);
                registry::remove(worker.sink.owner);
            });
        }
    }
}

/// What `:allow` permits: all of a module, all arities of a function, or one arity.
type Callable<'a> = (Binary<'a>, Option<Binary<'a>>, Option<u32>);

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
    /// The interpreter to fork. `program`, `args`, `env` and `cwd` are not used then.
    template: Option<LocalPid>,
    /// Whether to fork even if the template has threads.
    ignore_threads: bool,
    version: String,
    eager: bool,
    low: usize,
    high: usize,
    /// `None` for no limit.
    max_in_flight: Option<u64>,
    /// In milliseconds.
    cleanup_timeout: u64,
    end_on_memory_error: bool,
    map_set: (Binary<'a>, Binary<'a>),
    object: (Binary<'a>, Binary<'a>, Binary<'a>),
    structs: Vec<(String, Vec<Binary<'a>>)>,
    owner: LocalPid,
    calls: LocalPid,
    output: LocalPid,
    /// Where output goes, as a term in external format that only Elixir reads.
    output_to: Kept,
    encoding: CallOptions<'a>,
    create_atoms: bool,
    /// `None` allows everything.
    allow: Option<Vec<Callable<'a>>>,
    /// Limits of memory, CPU time, open files and niceness, and of the size of a value from Python in bytes.
    limits: (Option<u64>, Option<u64>, Option<u64>, Option<i32>, u64),
    /// The size of the shared memory in each direction, in bytes.
    shared_memory: Option<u64>,
}

impl StartOptions<'_> {
    fn settings(&self, handover: Option<OwnedFd>) -> Settings {
        let bytes = |binary: &Binary<'_>| binary.as_slice().to_vec();
        Settings {
            warden: Path::new(OsStr::from_bytes(self.warden.as_slice())).to_path_buf(),
            spec: Spec {
                program: bytes(&self.program),
                args: self.args.iter().map(bytes).collect(),
                env: self.env.iter().map(|(key, value)| (bytes(key), bytes(value))).collect(),
                cwd: self.cwd.as_ref().map(bytes),
                descriptors: Vec::new(),
                limits: Limits {
                    memory: self.limits.0,
                    cpu: self.limits.1,
                    open_files: self.limits.2,
                    nice: self.limits.3,
                },
                forks: None,
            },
            transport: if self.use_stdio { Transport::Stdio } else { Transport::Pipes },
            hello: Hello {
                protocol: PROTOCOL,
                version: self.version.clone(),
                eager: self.eager,
                buffer_limits: (self.low as u64, self.high as u64),
                cleanup_timeout: self.cleanup_timeout,
                end_on_memory_error: self.end_on_memory_error,
                reply_limit: self.limits.4,
                shared: None,
                forks: None,
                limits: None,
                handover: None,
                map_set: (Blob(bytes(&self.map_set.0)), Blob(bytes(&self.map_set.1))),
                object: (
                    Blob(bytes(&self.object.0)),
                    Blob(bytes(&self.object.1)),
                    Blob(bytes(&self.object.2)),
                ),
                structs: self
                    .structs
                    .iter()
                    .map(|(name, layout)| {
                        (name.clone(), layout.iter().map(|part| Blob(bytes(part))).collect())
                    })
                    .collect(),
            },
            marks: (self.low, self.high),
            shared_memory: self.shared_memory,
            handover,
        }
    }

    fn allow(&self) -> Allow {
        let Some(rules) = &self.allow else { return Allow::All };
        let bytes = |binary: &Binary<'_>| binary.as_slice().to_vec();
        let rule = |(module, function, arity): &Callable<'_>| match (function, arity) {
            (None, _) => Rule::Module(bytes(module)),
            (Some(function), None) => Rule::Function(bytes(module), bytes(function)),
            (Some(function), Some(arity)) => Rule::Arity(bytes(module), bytes(function), *arity),
        };
        Allow::Only(rules.iter().map(rule).collect())
    }
}

/// Starts a worker for the process `owner`, or has a template fork one. Returns `ok`, or `{error, reason}` with a
/// sentence.
///
/// The owner then gets the messages `{snex_started, os_pid}`, `{snex_ready, fields}` and `{snex_ended, down}`. Until
/// it calls `interpreter_open`, only the calling process may submit requests.
#[rustler::nif(schedule = "DirtyIo")]
fn interpreter_start<'a>(env: Env<'a>, options: StartOptions<'a>) -> Term<'a> {
    let failed = |reason: &str| (atoms::error(), reason).encode(env);
    let Some(runtime) = runtime::handle() else { return failed("the native library is not loaded") };
    let owner = options.owner;
    let allow = options.allow();
    let signer = match &allow {
        Allow::All => None,
        Allow::Only(_) => match Signer::new() {
            Ok(signer) => Some(Arc::new(signer)),
            Err(error) => return failed(&format!("no random numbers for a key: {error}")),
        },
    };
    let (drops, dropped) = mpsc::unbounded_channel();
    // Optional: without a handover, as in copies of a template, Python copies memory instead of handing it over.
    let wanted = !options.use_stdio && options.template.is_none() && cfg!(target_os = "linux");
    let handover = options.shared_memory.filter(|_| wanted);
    let handover = handover.and_then(|_| Handover::new(options.limits.4).ok());
    let (handover, theirs) = handover.map_or((None, None), |(ours, theirs)| (Some(ours), Some(theirs)));
    let shared = Shared {
        owner,
        starter: env.pid(),
        calls: options.calls,
        output: options.output,
        output_to: options.output_to.clone(),
        high: options.high,
        encoding: options.encoding.over(Options::default()),
        create_atoms: options.create_atoms,
        allow,
        signer,
        handover,
        pending: Pending::default(),
        membership: Membership::default(),
        max_in_flight: options
            .max_in_flight
            .and_then(|most| usize::try_from(most).ok())
            .unwrap_or(usize::MAX),
        // Over standard streams, Python may run on another machine.
        shares_clock: !options.use_stdio,
        cancelling: Cancelling::default(),
        cleanup_timeout: Duration::from_millis(options.cleanup_timeout),
        answering: Answering::default(),
        sources: Sources::default(),
        watched: Watched::default(),
        alive: Alive::default(),
        open: AtomicBool::new(false),
        drops,
        last_errors: Mutex::default(),
        unread: [Semaphore::new(1), Semaphore::new(1)],
        logged: Semaphore::new(0),
        _counted: Counted::new(CountedKind::Worker),
    };
    let settings = options.settings(theirs);
    let started = match options.template {
        None => Worker::start(runtime, settings, shared),
        Some(template) => match idle(template) {
            Ok(template) => template.worker.fork(runtime, settings, options.ignore_threads, shared),
            Err(reason) => return failed(&reason),
        },
    };
    let worker = match started {
        Ok(worker) => worker,
        Err(error) => return failed(&error.to_string()),
    };
    runtime.spawn(handle::give_back_dropped(Arc::downgrade(&worker), dropped));
    let interpreter = ResourceArc::new(Interpreter {
        worker,
        gone: AtomicBool::new(false),
        _counted: Counted::new(CountedKind::Interpreter),
    });
    registry::insert(owner, interpreter.clone());
    if env.monitor(&interpreter, &options.output).is_none() {
        interpreter.worker.sink.close_output();
    }
    if env.monitor(&interpreter, &owner).is_none() {
        // The owner has just died, so `down` will not be called.
        interpreter.owner_gone();
    }
    atoms::ok().encode(env)
}

/// The interpreter to fork, which must have no requests under way. Python would refuse too, but perhaps only once
/// these have ended.
fn idle(template: LocalPid) -> Result<ResourceArc<Interpreter>, String> {
    let Some(interpreter) = registry::find(template) else { return Err("the template has ended".into()) };
    match interpreter.worker.sink.pending.len() {
        0 => Ok(interpreter),
        count => {
            let calls = if count == 1 { "a call".into() } else { format!("{count} calls") };
            Err(format!("the template has {calls} under way, which a copy could not continue"))
        }
    }
}

/// Lets all processes submit requests to the calling interpreter process.
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

/// Stops the worker of the calling process. Callers get `reason`, a term in external format; the process tree has
/// `grace` milliseconds between SIGTERM and SIGKILL. `{snex_ended, down}` is sent when nothing of the tree is left.
#[rustler::nif]
fn interpreter_stop(env: Env<'_>, reason: Kept, grace: u64) -> Atom {
    match registry::find(env.pid()) {
        Some(interpreter) => {
            let down = Down::Stopped(reason);
            fail_and_stop(Arc::clone(&interpreter.worker), down, Duration::from_millis(grace));
            atoms::ok()
        }
        None => atoms::noproc(),
    }
}

/// The output process acknowledges a chunk of this stream; the next one may be sent.
#[rustler::nif]
fn output_read(interpreter: LocalPid, stream: Atom) -> Atom {
    if let Some(interpreter) = registry::find(interpreter) {
        let [stdout, stderr] = &interpreter.worker.sink.unread;
        if stream == atoms::stdout() { stdout } else { stderr }.add_permits(1);
    }
    atoms::ok()
}

/// The output process acknowledges a log event.
#[rustler::nif]
fn log_read(interpreter: LocalPid) -> Atom {
    if let Some(interpreter) = registry::find(interpreter) {
        interpreter.worker.sink.logged.add_permits(1);
    }
    atoms::ok()
}

/// The caller acknowledges a chunk that its request printed; the next one may be sent.
#[rustler::nif]
fn print_read(interpreter: LocalPid, request: u64) -> Atom {
    if let Some(interpreter) = registry::find(interpreter)
        && let Some(unread) = interpreter.worker.sink.pending.with(request, Caller::unread)
    {
        unread.add_permits(1);
    }
    atoms::ok()
}

/// Figures for `Snex.Interpreter.info/1`: the number of requests submitted and under way, of environments and of
/// objects; the bytes queued towards Python; and, in bytes, the resident memory of the process tree and the shared
/// memory in use.
#[rustler::nif(schedule = "DirtyIo")]
fn interpreter_info(env: Env<'_>, interpreter: LocalPid) -> Term<'_> {
    let Some(interpreter) = registry::find(interpreter) else { return atoms::noproc().encode(env) };
    let worker = &interpreter.worker;
    let memory = worker.pid().map_or(0, process_tree::resident_memory);
    let served = worker.sink.pending.requests();
    let queued = worker.queued();
    (
        atoms::ok(),
        served,
        worker.sink.pending.len(),
        worker.sink.alive.len_of(Kind::Environment),
        worker.sink.alive.len_of(Kind::Object),
        queued,
        (memory, worker.shared_bytes()),
    )
        .encode(env)
}

/// Where the output of this interpreter goes, as given to `interpreter_start`; an empty binary if there is no such
/// interpreter.
#[rustler::nif]
fn interpreter_output(env: Env<'_>, interpreter: LocalPid) -> Term<'_> {
    match registry::find(interpreter) {
        Some(interpreter) => interpreter.worker.sink.output_to.encode(env),
        None => "".encode(env),
    }
}
