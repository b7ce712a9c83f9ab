//! Panics: each is a bug of ours. Rustler turns one in a NIF into an exception, tokio one in a task into its end; both are
//! counted here, wherever they are caught.

use std::panic;
use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering};

static COUNT: AtomicU64 = AtomicU64::new(0);

static INSTALLED: Once = Once::new();

/// Counts panics from now on, and reports them as before. The hook is that of this library alone: others bring their own
/// standard library.
pub fn count() {
    INSTALLED.call_once(|| {
        let report = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            COUNT.fetch_add(1, Ordering::Relaxed);
            report(info);
        }));
    });
}

/// How many there have been in this VM.
#[rustler::nif]
fn panics() -> u64 {
    COUNT.load(Ordering::Relaxed)
}
