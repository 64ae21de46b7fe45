//! What all fuzzing programs share.

pub use libfuzzer_sys;
pub use tests;

/// Counts memory, so that targets can bound it.
#[global_allocator]
static ALLOCATOR: tests::fuzz::Counting = tests::fuzz::Counting;

/// A program that runs one target of `tests::fuzz`.
#[macro_export]
macro_rules! program {
    ($target:ident) => {
        $crate::libfuzzer_sys::fuzz_target!(|data: &[u8]| $crate::tests::fuzz::$target(data));
    };
}
