//! The connection to a warden, which the workers of all its trees share.
//!
//! Each worker's life task has a [`Branch`], through which it hears of its own tree alone. The connection is closed when the
//! last of these is dropped; until then the warden lives on, also when the program that it has started is gone.

use super::warden::Warden;
use crate::control::{self, FromWarden, ORPHAN_GRACE, PROGRAM, Spec, ToWarden, Tree};
use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::runtime::Handle;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::AbortHandle;

/// Who hears of which tree; `None` once the warden is gone. Changed by whoever makes or drops a branch, and emptied by the task
/// that listens.
type Listeners = Mutex<Option<HashMap<Tree, UnboundedSender<FromWarden>>>>;

/// The connection. Dropping it ends the warden, and with it whatever tree there still is.
pub(super) struct Link {
    warden: Warden,
    socket: OwnedWriteHalf,
    /// What all processes are marked with that descend from this warden; see [`crate::process_tree::MARK`].
    mark: String,
    /// The number of the next tree.
    next: AtomicU64,
    listeners: Arc<Listeners>,
    listening: AbortHandle,
}

/// The share of a life task in the connection: its own tree. Dropping it before that has gone ends the tree.
pub(super) struct Branch {
    link: Arc<Link>,
    tree: Tree,
    reports: UnboundedReceiver<FromWarden>,
    /// Whether nothing more is to be expected of the tree.
    over: bool,
}

impl Link {
    /// Starts a warden and has it start a program. Blocks for the time of one `posix_spawn`.
    pub(super) fn start(
        runtime: &Handle,
        warden: &Path,
        spec: Spec,
        mark: String,
        theirs: &[BorrowedFd<'_>],
    ) -> io::Result<Branch> {
        let (warden, socket) = Warden::spawn(runtime, warden)?;
        control::send_with(&socket, &ToWarden::Start(spec), theirs)?;
        socket.set_nonblocking(true)?;
        let _context = runtime.enter();
        let (from_warden, socket) = UnixStream::from_std(socket)?.into_split();
        // There before anybody listens: the warden may have reported already.
        let (sender, reports) = unbounded_channel();
        let listeners = Arc::new(Mutex::new(Some(HashMap::from([(PROGRAM, sender)]))));
        // A task of its own: a read that `select!` gives up half-way would lose its bytes.
        let listening = runtime.spawn(listen(from_warden, Arc::clone(&listeners))).abort_handle();
        let link = Link { warden, socket, mark, next: AtomicU64::new(PROGRAM + 1), listeners, listening };
        Ok(Branch { link: Arc::new(link), tree: PROGRAM, reports, over: false })
    }

    /// Has the program fork a copy, which gets these descriptors. Never blocks.
    pub(super) fn fork(
        self: Arc<Self>,
        ignore_threads: bool,
        theirs: &[BorrowedFd<'_>],
    ) -> io::Result<Branch> {
        let tree = self.next.fetch_add(1, Ordering::Relaxed);
        let mut branch = self.branch(tree)?;
        let asked = control::send_now(
            branch.link.socket.as_ref().as_fd(),
            &ToWarden::Fork { tree, ignore_threads },
            theirs,
        );
        branch.over = asked.is_err();
        asked.map(|()| branch)
    }

    fn branch(self: Arc<Self>, tree: Tree) -> io::Result<Branch> {
        let (sender, reports) = unbounded_channel();
        match lock(&self.listeners).as_mut() {
            Some(listeners) => listeners.insert(tree, sender),
            None => return Err(io::Error::other("the template has ended")),
        };
        Ok(Branch { link: self, tree, reports, over: false })
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

impl Branch {
    /// The connection, for those who want a copy of the program.
    pub(super) fn link(&self) -> &Arc<Link> {
        &self.link
    }

    /// The next report about the tree. `None` when there will be none: the warden is gone.
    pub(super) async fn report(&mut self) -> Option<FromWarden> {
        let report = self.reports.recv().await;
        self.over = matches!(report, None | Some(FromWarden::Gone { .. } | FromWarden::Failed { .. }));
        report
    }

    /// Asks for the end of the tree.
    pub(super) fn stop(&self, grace: Duration) {
        let grace_ms = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
        self.tell(&ToWarden::Stop { tree: self.tree, grace_ms });
    }

    /// Asks for an interrupt of the leader.
    pub(super) fn interrupt(&self) {
        self.tell(&ToWarden::Interrupt { tree: self.tree });
    }

    /// Never waits for the warden. What is lost because it does not read is an interrupt, of which others follow, or a stop,
    /// for which there is not much time.
    fn tell(&self, message: &ToWarden) {
        let _ = control::send_now(self.link.socket.as_ref().as_fd(), message, &[]);
    }

    /// Kills the warden, and with it the leaders of all its trees.
    pub(super) fn kill_warden(&self) {
        self.link.warden.kill();
    }

    /// What the processes of the tree are marked with.
    pub(super) fn mark(&self) -> String {
        self.link.mark.clone()
    }
}

impl Drop for Branch {
    fn drop(&mut self) {
        if !self.over {
            self.stop(ORPHAN_GRACE);
        }
        if let Some(listeners) = lock(&self.link.listeners).as_mut() {
            listeners.remove(&self.tree);
        }
    }
}

fn lock(listeners: &Listeners) -> MutexGuard<'_, Option<HashMap<Tree, UnboundedSender<FromWarden>>>> {
    listeners.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Hands out what the warden reports, until it is gone: then everybody learns that.
async fn listen(mut warden: OwnedReadHalf, listeners: Arc<Listeners>) {
    while let Ok(Some(report)) = next_report(&mut warden).await {
        if let Some(listener) = lock(&listeners).as_ref().and_then(|all| all.get(&report.tree())) {
            let _ = listener.send(report);
        }
    }
    lock(&listeners).take();
}

async fn next_report(warden: &mut OwnedReadHalf) -> io::Result<Option<FromWarden>> {
    let mut length = [0; 4];
    if let Err(error) = warden.read_exact(&mut length).await {
        return if error.kind() == io::ErrorKind::UnexpectedEof { Ok(None) } else { Err(error) };
    }
    let mut body = vec![0; control::body_length(length)?];
    warden.read_exact(&mut body).await?;
    control::decode(&body).map(Some)
}
