//! Compiles the BPF programs, once per layout of the cells, when the feature `bpf` is on.
//!
//! Without the feature it does nothing, so that the default build needs no clang.

#[cfg(feature = "bpf")]
mod bpf {
    use std::path::{Path, PathBuf};

    use libbpf_cargo::SkeletonBuilder;

    /// Sources, and the size of the smallest value that holds the cell.
    const SOURCES: [&str; 6] = ["timer", "wq", "task_work", "spin_lock", "res_lock", "irq_work"];

    /// Name of a layout and the distance of its cells in bytes; 0 leaves the cells side by side.
    /// 128 rather than 64: adjacent-line prefetchers move lines in pairs.
    const LAYOUTS: [(&str, u32); 2] = [("packed", 0), ("padded", 128)];

    pub(crate) fn build() {
        let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
        println!("cargo:rerun-if-changed=src/bpf/cell.h");
        for source in SOURCES {
            let path = format!("src/bpf/{source}.bpf.c");
            println!("cargo:rerun-if-changed={path}");
            for (layout, stride) in LAYOUTS {
                let object = out.join(format!("{source}-{layout}.bpf.o"));
                let built = SkeletonBuilder::new()
                    .source(Path::new(&path))
                    .obj(&object)
                    .clang_args([
                        "-mcpu=v3".to_owned(),
                        "-Wall".to_owned(),
                        "-Werror".to_owned(),
                        format!("-DCELL_STRIDE={stride}"),
                    ])
                    .build();
                if let Err(error) = built {
                    panic!(
                        "{path} does not compile ({error:#}); kernel/install-deps.sh installs the \
                         compiler and libraries it needs"
                    );
                }
            }
        }
    }
}

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    #[cfg(feature = "bpf")]
    bpf::build();
}
