//! An allocator that leaves nothing behind.

use std::alloc::{GlobalAlloc, Layout, System};

/// Overwrites what is freed with zeros, and has `A` do the rest.
///
/// As the allocator of a whole program it does so for every buffer that packets pass through, those of libraries included,
/// however they are given up. It costs the writing of what is freed; who frees nothing pays nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wiping<A = System>(A);

impl Wiping {
    /// Before the system's allocator.
    pub const SYSTEM: Self = Self(System);
}

// SAFETY: all of it is `A`'s work, which keeps the contract by its own account. Between a caller that gives a block up and `A` that
// takes it back nobody else has it, so that writing to it is sound. `realloc` is the trait's own: another block, a copy,
// and `dealloc`, as `A`'s could leave a copy behind where it moves one.
unsafe impl<A: GlobalAlloc> GlobalAlloc for Wiping<A> {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promises are those that `A` asks for.
        unsafe { self.0.alloc(layout) }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        unsafe { self.0.alloc_zeroed(layout) }
    }

    #[inline]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the block is `layout.size()` bytes long, was given out by `A`, and the caller has given it up.
        unsafe { block.write_bytes(0, layout.size()) };
        // A compiler that knows what comes next would spare itself the writing: this is taken for a reader.
        #[cfg(not(miri))]
        // SAFETY: there is no instruction in it.
        unsafe {
            std::arch::asm!("/* {0} */", in(reg) block, options(nostack, preserves_flags, readonly));
        }
        // SAFETY: as above.
        unsafe { self.0.dealloc(block, layout) }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    thread_local! {
        /// Bytes that came back to [`Looking`], and how many of them were not zero.
        static FREED: Cell<(usize, usize)> = const { Cell::new((0, 0)) };
    }

    /// Looks at what it gets back.
    struct Looking;

    // SAFETY: it hands everything on to the system's, and reads blocks that nobody else has any more.
    unsafe impl GlobalAlloc for Looking {
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            // SAFETY: the caller's promises are the same.
            unsafe { System.alloc(layout) }
        }

        unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
            // SAFETY: the block is so long, and was written to from end to end.
            let bytes = unsafe { std::slice::from_raw_parts(block, layout.size()) };
            let left = bytes.iter().filter(|byte| **byte != 0).count();
            FREED.set((FREED.get().0 + bytes.len(), FREED.get().1 + left));
            // SAFETY: the caller's promises are the same.
            unsafe { System.dealloc(block, layout) }
        }
    }

    #[test]
    fn what_is_freed_or_moved_is_overwritten() {
        let wiping = Wiping(Looking);
        for (size, align) in [(1, 1), (7, 1), (64, 64), (100_000, 8), (1 << 20, 4096)] {
            FREED.set((0, 0));
            let layout = Layout::from_size_align(size, align).unwrap();
            // SAFETY: the layout is not empty; the block is written to within its size, moved with its own layout, and
            // freed with the one it then has.
            unsafe {
                let block = wiping.alloc(layout);
                block.write_bytes(0xa5, size);
                let block = wiping.realloc(block, layout, 3 * size);
                assert_eq!(FREED.get(), (size, 0), "moved");
                assert!((0..size).all(|at| block.add(at).read() == 0xa5), "what moves stays the same");
                block.write_bytes(0xa5, 3 * size);
                let block = wiping.realloc(block, Layout::from_size_align(3 * size, align).unwrap(), size);
                assert_eq!(FREED.get(), (4 * size, 0), "made smaller");
                wiping.dealloc(block, layout);
            }
            assert_eq!(FREED.get(), (5 * size, 0), "freed");
        }
    }
}
