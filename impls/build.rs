//! Compiles the C functions around the inline locks of Concurrency Kit, when the feature `ck` is on.
//!
//! Without the feature it does nothing, so that the default build needs no C compiler.

#[cfg(feature = "ck")]
fn build_ck() {
    let source = "src/lock/ck.c";
    println!("cargo:rerun-if-changed={source}");
    let built =
        cc::Build::new().file(source).opt_level(3).warnings(true).try_compile("cellbench_ck");
    if let Err(error) = built {
        panic!("{source} does not compile ({error}); it needs a C compiler and Debian's libck-dev");
    }
}

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    #[cfg(feature = "ck")]
    build_ck();
}
