//! Counts panics. Each is a bug in Snex. Rustler turns a panic in a NIF into an exception, and tokio ends a task that
//! panics; both are counted here.

use std::panic;
use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering};

static COUNT: AtomicU64 = AtomicU64::new(0);

static INSTALLED: Once = Once::new();

/// Starts to count panics; they are still reported as before. Other NIF libraries are not affected, as each is linked
/// with its own standard library.
pub fn count() {
    INSTALLED.call_once(|| {
        let report = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            COUNT.fetch_add(1, Ordering::Relaxed);
            report(info);
        }));
    });
}

/// How many panics there have been in this VM.
#[rustler::nif]
fn panics() -> u64 {
    COUNT.load(Ordering::Relaxed)
}
