//! Facts that the guest tells of its kernel: layouts of structures, and symbols.

use std::fs;
use std::io;

use super::port::{Host, say};
use crate::btf::Btf;
use crate::trace::STRUCTURES;

/// Tells where the fields of structures lie.
pub(super) fn layouts(host: &mut Host, btf: &Btf) {
    for (name, depth) in STRUCTURES {
        let (Some(size), Some(fields)) = (btf.size(name), btf.fields(name, *depth)) else {
            continue;
        };
        say!(host, "layout {name} {size}");
        for field in fields {
            say!(host, "field {} {} {}", field.offset, field.size, field.name);
        }
    }
}

/// Tells the symbols of the kernel proper. Those of modules and BPF programs come and go.
pub(super) fn symbols(host: &mut Host) -> io::Result<()> {
    let mut before = 0_u64;
    for line in fs::read_to_string("/proc/kallsyms")?.lines() {
        let mut words = line.split_ascii_whitespace();
        let (Some(address), Some(kind), Some(name), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            continue;
        };
        let noise = [
            "__pfx_",
            "__ksym",
            "__kstr",
            "__crc_",
            "__cfi_",
            ".L",
            "__func__",
            "__tracepoint_",
            "__bpf_trace",
            "__initcall",
            "__already",
            "__msg",
            "__key",
            "__event_",
            "event_",
            "types__",
            "args__",
            "__syscall_meta",
            "__p_syscall",
            "trace_event_",
            "print_fmt",
            "__export",
            "__x64_sys_",
            "__ia32_sys",
            "__do_sys_",
            "__se_sys",
            "__UNIQUE_ID",
            "__BTF_ID",
            "_RN",
        ];
        // Constants are not what CPUs meet at.
        if matches!(kind, "r" | "R") || noise.iter().any(|prefix| name.starts_with(prefix)) {
            continue;
        }
        // They are many, and the port takes a byte at a time.
        let at = u64::from_str_radix(address, 16).unwrap_or(before);
        say!(host, "symbol {:x} {name}", at.wrapping_sub(before));
        before = at;
    }
    Ok(())
}
