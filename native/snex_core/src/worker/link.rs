//! The connection to a warden, shared by the workers of all its trees.
//!
//! Each worker's life task owns a [`Branch`], which receives the reports about its own tree only. Dropping the last branch
//! closes the connection, and the warden ends. Until then the warden runs, even if the program that it started is gone.

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

/// The receiver of the reports about each tree; `None` once the warden is gone. A branch is added when it is made and removed
/// when it is dropped. When the connection ends, the listening task drops the map, which ends the channel of every branch.
type Listeners = Mutex<Option<HashMap<Tree, UnboundedSender<FromWarden>>>>;

/// The connection. Dropping it ends the warden, and with the warden all of its trees.
pub(super) struct Link {
    warden: Warden,
    socket: OwnedWriteHalf,
    /// The mark of every process that descends from this warden; see [`crate::process_tree::MARK`].
    mark: String,
    /// The number of the next tree.
    next: AtomicU64,
    listeners: Arc<Listeners>,
    /// The task that receives the warden's reports.
    listening: AbortHandle,
}

/// A life task's share of the connection, for its own tree. Dropping it stops the tree, unless the tree is gone.
pub(super) struct Branch {
    link: Arc<Link>,
    tree: Tree,
    reports: UnboundedReceiver<FromWarden>,
    /// Whether the last report about the tree has arrived, so that dropping this has nothing to stop.
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
        // Registered before the task starts: the warden may have sent a report already.
        let (sender, reports) = unbounded_channel();
        let listeners = Arc::new(Mutex::new(Some(HashMap::from([(PROGRAM, sender)]))));
        // A task of its own, because `read_exact` is not cancel safe: in the life task's `select!` it would lose bytes.
        let listening = runtime.spawn(listen(from_warden, Arc::clone(&listeners))).abort_handle();
        let link = Link { warden, socket, mark, next: AtomicU64::new(PROGRAM + 1), listeners, listening };
        Ok(Branch { link: Arc::new(link), tree: PROGRAM, reports, over: false })
    }

    /// Has the program fork a copy, which gets the descriptors in `theirs`. Never blocks.
    pub(super) fn fork(
        self: Arc<Self>,
        ignore_threads: bool,
        theirs: &[BorrowedFd<'_>],
    ) -> io::Result<Branch> {
        let tree = self.next.fetch_add(1, Ordering::Relaxed);
        let mut branch = self.branch(tree)?;
        let sent = control::send_now(
            branch.link.socket.as_ref().as_fd(),
            &ToWarden::Fork { tree, ignore_threads },
            theirs,
        );
        branch.over = sent.is_err();
        sent.map(|()| branch)
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
    /// The connection, through which the program can be forked.
    pub(super) fn link(&self) -> &Arc<Link> {
        &self.link
    }

    /// The next report about the tree; `None` if the warden is gone.
    pub(super) async fn report(&mut self) -> Option<FromWarden> {
        let report = self.reports.recv().await;
        self.over = matches!(report, None | Some(FromWarden::Gone { .. } | FromWarden::Failed { .. }));
        report
    }

    /// Asks the warden to end the tree.
    pub(super) fn stop(&self, grace: Duration) {
        let grace_ms = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
        self.send(&ToWarden::Stop { tree: self.tree, grace_ms });
    }

    /// Asks the warden to interrupt the leader.
    pub(super) fn interrupt(&self) {
        self.send(&ToWarden::Interrupt { tree: self.tree });
    }

    /// Sends a message, or drops it if the socket is full, so that the life task never waits for a warden that does not read.
    /// Interrupts are repeated anyway. After a lost stop, the life task kills the warden at its deadline.
    fn send(&self, message: &ToWarden) {
        let _ = control::send_now(self.link.socket.as_ref().as_fd(), message, &[]);
    }

    /// Kills the warden, and with it the leaders of all its trees.
    pub(super) fn kill_warden(&self) {
        self.link.warden.kill();
    }

    /// The mark of the tree's processes.
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

/// Passes the warden's reports to the branches. When the warden is gone, ends all their channels.
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
