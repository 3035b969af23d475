//! The heap, counted: what a parser holds is what is allocated and was not before it.
//!
//! Refuses: what C++ allocates; libFuzzer does not come here.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// The system's allocator, with a count of the bytes that are in use.
struct Counting;

static HELD_BYTES: AtomicUsize = AtomicUsize::new(0);

#[global_allocator]
static HEAP: Counting = Counting;

/// Bytes in use by Rust.
pub fn held_bytes() -> usize {
    HELD_BYTES.load(Relaxed)
}

// SAFETY: every call goes to the system's allocator with the caller's own arguments; the count allocates nothing.
// `alloc_zeroed` and `realloc` are the trait's, which come through here.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        HELD_BYTES.fetch_add(layout.size(), Relaxed);
        // SAFETY: the caller vouches for the layout.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HELD_BYTES.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller vouches for the pointer, which `System` gave for this layout.
        unsafe { System.dealloc(pointer, layout) }
    }
}
