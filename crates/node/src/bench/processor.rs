//! Processor time of this thread and process, and what machine this is.

use rustix::time::{ClockId, clock_gettime};

/// Seconds of processor time of this thread.
pub(super) fn thread_seconds() -> f64 {
    seconds(ClockId::ThreadCPUTime)
}

/// Seconds of processor time of this process, all threads.
pub(super) fn process_seconds() -> f64 {
    seconds(ClockId::ProcessCPUTime)
}

/// What a piece of work took, in seconds of this thread's processor time.
pub(super) fn timed<T>(work: impl FnOnce() -> T) -> (T, f64) {
    let before = thread_seconds();
    let made = work();
    (made, thread_seconds() - before)
}

fn seconds(clock: ClockId) -> f64 {
    let time = clock_gettime(clock);
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}
