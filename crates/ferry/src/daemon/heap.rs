//! Gives the kernel back what the engine needed for a while.
//!
//! The allocator (glibc's) keeps what was freed between things that stay: after a thousand containers, of which none is left,
//! a hundred megabytes. Whole pages of it are given back here.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

const LOOK: Duration = Duration::from_secs(30);
/// Growth for which it is worth looking through the heap, which takes milliseconds.
const WORTH: u64 = 4 << 20;

/// Looks now and then, for as long as the engine runs.
pub async fn trim(closing: CancellationToken) {
    let mut least = resident();
    loop {
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            () = closing.cancelled() => return,
        }
        if resident() > least.saturating_add(WORTH) {
            let _ = tokio::task::spawn_blocking(ferry_sys::process::trim_heap).await;
            least = resident();
        }
        least = least.min(resident());
    }
}

/// Bytes of this process that are in memory (proc_pid_statm(5)); 0 when that cannot be read.
fn resident() -> u64 {
    let pages = || -> Option<u64> {
        let text = std::fs::read_to_string("/proc/self/statm").ok()?;
        text.split_ascii_whitespace().nth(1)?.parse().ok()
    };
    let page = u64::try_from(rustix::param::page_size()).unwrap_or(4096);
    pages().unwrap_or(0).saturating_mul(page)
}
