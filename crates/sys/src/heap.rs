//! Configures glibc's allocator, which Rust uses, to return freed memory to the system.

/// Makes all threads share one heap, and makes large freed blocks return to the system.
///
/// By default, each allocating thread gets its own heap, up to eight per processor, and freeing a block of megabytes
/// raises the size from which blocks are mapped on their own. Heaps return no memory from their middle (mallopt(3)), so
/// threads that come and go with queries would hold tens of megabytes beyond what is in use. Call this before the
/// process has a second thread. It does nothing with other C libraries than glibc.
pub fn share_one_heap() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    if !cfg!(miri) {
        const LARGE_BYTES: libc::c_int = 128 << 10;
        for (parameter, value) in
            [(libc::M_ARENA_MAX, 1), (libc::M_MMAP_THRESHOLD, LARGE_BYTES), (libc::M_TRIM_THRESHOLD, LARGE_BYTES)]
        {
            // SAFETY: the arguments are plain numbers that affect later allocations only; a refused value changes
            // nothing.
            unsafe { libc::mallopt(parameter, value) };
        }
    }
}
