//! Keeps the library in memory when it is closed: what Rust's runtime leaves with a thread must be there when that thread ends.

fn main() {
    println!("cargo::rustc-cdylib-link-arg=-Wl,-z,nodelete");
    println!("cargo::rerun-if-changed=build.rs");
}
