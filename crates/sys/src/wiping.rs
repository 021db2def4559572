//! An allocator that overwrites memory when it is freed.

use std::alloc::{GlobalAlloc, Layout, System};

/// Overwrites freed memory with zeros, and delegates all else to `A`.
///
/// As a program's global allocator, it wipes every buffer that packets pass through, including those of libraries. The
/// cost is one write of the freed memory.
#[derive(Clone, Copy, Debug, Default)]
pub struct WipingAllocator<A = System>(A);

impl WipingAllocator {
    /// A wiping allocator on top of the system's.
    pub const SYSTEM: Self = Self(System);
}

// SAFETY: `A` does all the work and fulfils the contract itself. Between the caller's `dealloc` and that of `A`,
// nothing else refers to the block, so writing to it is sound. `realloc` is the trait's default (allocate, copy,
// `dealloc`), as that of `A` could leave a copy behind when it moves a block.
unsafe impl<A: GlobalAlloc> GlobalAlloc for WipingAllocator<A> {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's guarantees are those that `A` requires.
        unsafe { self.0.alloc(layout) }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        unsafe { self.0.alloc_zeroed(layout) }
    }

    #[inline]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the block is `layout.size()` bytes long, comes from `A`, and the caller no longer uses it.
        unsafe { block.write_bytes(0, layout.size()) };
        // The compiler could remove the write, as the block is freed next. This empty assembly counts as a read of the
        // block.
        #[cfg(not(miri))]
        // SAFETY: the assembly contains no instruction.
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
        /// Bytes that [`InspectingAllocator`] was given back, and how many of them were not zero.
        static FREED: Cell<(usize, usize)> = const { Cell::new((0, 0)) };
    }

    /// An allocator that inspects freed blocks.
    struct InspectingAllocator;

    // SAFETY: it delegates to the system's allocator, and reads only blocks that nothing else refers to.
    unsafe impl GlobalAlloc for InspectingAllocator {
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            // SAFETY: the caller's guarantees are the same.
            unsafe { System.alloc(layout) }
        }

        unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
            // SAFETY: the block has this length, and all of it is initialized.
            let bytes = unsafe { std::slice::from_raw_parts(block, layout.size()) };
            let left = bytes.iter().filter(|byte| **byte != 0).count();
            FREED.set((FREED.get().0 + bytes.len(), FREED.get().1 + left));
            // SAFETY: the caller's guarantees are the same.
            unsafe { System.dealloc(block, layout) }
        }
    }

    #[test]
    fn what_is_freed_or_moved_is_overwritten() {
        let wiping = WipingAllocator(InspectingAllocator);
        for (size, align) in [(1, 1), (7, 1), (64, 64), (100_000, 8), (1 << 20, 4096)] {
            FREED.set((0, 0));
            let layout = Layout::from_size_align(size, align).unwrap();
            // SAFETY: the layout is not empty. The block is written to within its size, moved with its own layout, and
            // freed with the layout it then has.
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
