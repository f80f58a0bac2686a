//! Another static library of Rust in the same program, as somebody else would make it: with the standard
//! library and a panic that is caught; or, with `--cfg bare`, without one and with a panic handler of its
//! own. (Two with the standard library do not link with each other.)
#![crate_type = "staticlib"]
#![cfg_attr(bare, no_std)]

#[cfg(bare)]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// e to the x, or −1 where the sum of digits of x overflows a byte, which panics.
#[cfg(not(bare))]
#[unsafe(no_mangle)]
pub extern "C" fn neighbour_one(x: f32) -> f32 {
    let small = std::panic::catch_unwind(|| {
        let digits: Vec<u8> = format!("{x}").bytes().filter(u8::is_ascii_digit).collect();
        digits.iter().try_fold(0u8, |sum, digit| sum.checked_add(digit - b'0')).expect("too many")
    });
    small.map_or(-1.0, |_| x.exp())
}

/// e to the x, by its series.
#[cfg(bare)]
#[unsafe(no_mangle)]
pub extern "C" fn neighbour_two(x: f32) -> f32 {
    let (mut sum, mut term) = (1.0, 1.0);
    let powers: [f32; 20] = core::array::from_fn(|n| (n + 1) as f32);
    for n in powers {
        term *= x / n;
        sum += term;
    }
    sum
}
