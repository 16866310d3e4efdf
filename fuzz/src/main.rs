//! The program that libFuzzer drives; `BATON_FUZZ_TARGET` names the target.
#![no_main]

use std::sync::LazyLock;

use baton_fuzz::{TARGETS, Target};

static TARGET: LazyLock<Target> = LazyLock::new(|| {
    let name = std::env::var("BATON_FUZZ_TARGET").unwrap_or_default();
    Target::named(&name).unwrap_or_else(|| {
        let names: Vec<_> = TARGETS.iter().map(|target| target.name).collect();
        eprintln!("BATON_FUZZ_TARGET is {name:?}, and none of {}", names.join(", "));
        std::process::exit(2);
    })
});

libfuzzer_sys::fuzz_target!(
    init: {
        // A panic that the target itself catches is none of the fuzzer's business.
        drop(std::panic::take_hook());
        LazyLock::force(&TARGET);
    },
    |input: &[u8]| {
        TARGET.run(input);
    }
);
