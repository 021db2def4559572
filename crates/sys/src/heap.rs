//! How the C library's allocator, which Rust's is, keeps what was freed.

/// Has the threads of this process share one heap, and larger blocks go back to the system when they are freed.
///
/// Else each thread that allocates gets a heap of its own, up to eight for each processor, and a freed block of megabytes makes later
/// ones as large come from heaps, which give nothing back from their middle (mallopt(3)): threads that come and go with queries
/// would take tens of megabytes beyond what is in use. To be called before there is a second thread. Elsewhere than with
/// glibc it does nothing.
pub fn share_one_heap() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    if !cfg!(miri) {
        const LARGE_BYTES: libc::c_int = 128 << 10;
        for (parameter, value) in
            [(libc::M_ARENA_MAX, 1), (libc::M_MMAP_THRESHOLD, LARGE_BYTES), (libc::M_TRIM_THRESHOLD, LARGE_BYTES)]
        {
            // SAFETY: plain numbers, which set how later allocations are served; what it refuses stays as it was.
            unsafe { libc::mallopt(parameter, value) };
        }
    }
}
