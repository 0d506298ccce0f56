//! What the release binary leaves out at linking, on Linux with glibc.
//!
//! A panic ends the process (`panic = "abort"`), so nothing ever unwinds: the tables for it, a tenth of the binary, go.
//! What is relocated at start is listed in the packed form that glibc reads since 2.36 and binutils write since 2.38.
//! Everywhere else, and in every other profile, the linker does as it always does.

use std::path::PathBuf;
use std::{env, fs};

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let is = |name: &str, value: &str| env::var(name).as_deref() == Ok(value);
    if !(is("PROFILE", "release") && is("CARGO_CFG_TARGET_OS", "linux") && is("CARGO_CFG_TARGET_ENV", "gnu"))
    {
        return;
    }
    let mut text = NO_TABLES.to_owned();
    // Where the C library's start-up code has that function.
    if is("CARGO_CFG_TARGET_ARCH", "x86_64") || is("CARGO_CFG_TARGET_ARCH", "aarch64") {
        text.extend(UNWINDER.iter().map(|name| format!("HIDDEN(_Unwind_{name} = _init);\n")));
    }
    let script = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it")).join("no-unwinding.ld");
    fs::write(&script, text).expect("cargo's own folder is writable");
    for arg in ["-z,pack-relative-relocs", "--no-eh-frame-hdr", &format!("-T,{}", script.display())] {
        println!("cargo:rustc-link-arg-bins=-Wl,{arg}");
    }
}

/// Added to the linker's own script, not instead of it.
const NO_TABLES: &str = "\
SECTIONS { /DISCARD/ : { *(.eh_frame) *(.gcc_except_table .gcc_except_table.*) } } INSERT AFTER .rodata;
";

/// What the standard library asks of libgcc_s, and calls for backtraces alone, which have no tables to go by. A function
/// that does nothing is as good, and the library need not be loaded.
const UNWINDER: [&str; 10] = [
    "Backtrace",
    "GetDataRelBase",
    "GetIP",
    "GetIPInfo",
    "GetLanguageSpecificData",
    "GetRegionStart",
    "GetTextRelBase",
    "Resume",
    "SetGR",
    "SetIP",
];
