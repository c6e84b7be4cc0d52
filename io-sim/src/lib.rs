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
pub mod checkpoints;
#[cfg(madsim)]
pub mod clock;
#[cfg(madsim)]
pub mod disk;
#[cfg(madsim)]
mod frames;
#[cfg(madsim)]
pub mod gossip;
#[cfg(madsim)]
pub mod host;
#[cfg(madsim)]
pub mod net;
#[cfg(madsim)]
pub mod prober;
#[cfg(madsim)]
pub mod resolver;
#[cfg(madsim)]
pub mod spawn;
#[cfg(madsim)]
pub mod stream;
#[cfg(madsim)]
pub mod time;
#[cfg(madsim)]
pub mod trace;
#[cfg(madsim)]
pub mod wire;

#[cfg(all(test, madsim))]
mod testing;
