//! The simulated world around the core: disks, clocks and network on madsim.
//!
//! Everything here exists only with the feature `sim`, and only where `--cfg madsim` is set, as `.cargo/config.toml`
//! does for the whole workspace.
#![cfg(feature = "sim")]

#[cfg(not(madsim))]
compile_error!(
    "the feature `sim` needs `--cfg madsim`, which .cargo/config.toml sets; a RUSTFLAGS variable replaces that line: \
     use CARGO_BUILD_RUSTFLAGS, which adds to it, or RUSTFLAGS=\"$RUSTFLAGS --cfg madsim\""
);

#[cfg(madsim)]
pub mod disk;
