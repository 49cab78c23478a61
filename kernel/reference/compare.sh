#!/bin/bash
# Cross-checks the crate against the minimal C program: solo times of the same rows, run in turn, must
# agree within 15 %. As root, on hardware or under hardware virtualisation.
#
#   kernel/reference/compare.sh
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
target=${CARGO_TARGET_DIR:-$root/target}
(cd "$root" && cargo build --release -q -p cellbench-kernel --features bpf)

# The very libbpf and objects that the crate was built with.
newest() { find "$target/release/build" -path "*$1" -printf '%T@ %p\n' | sort -n | tail -n 1 | cut -d' ' -f2-; }
library=$(newest '/libbpf-sys-*/out/libbpf.a')
objects=$(dirname "$(newest '/cellbench-kernel-*/out/timer-padded.bpf.o')")
headers=$(dirname "$library")/include
program=$target/release/kernel-reference
gcc -O2 -Wall -Werror -I "$headers" "$here/reference.c" "$library" -lelf -lz -o "$program"

rows="timer-empty:timer:empty_row timer-set_callback:timer:set_callback
    bpf_spin_lock:spin_lock:lock_pair bpf_res_spin_lock:res_lock:lock_pair
    bpf_res_spin_lock_irqsave:res_lock:lock_pair_irqsave"

failed=0
declare -A best_ours best_theirs
smaller() { awk -v a="$1" -v b="$2" 'BEGIN { print (a == "" || b < a) ? b : a }'; }
# Thrice in turn, the better of each: a preempted batch moves one side only.
for _ in 1 2 3; do
    while read -r row ns _; do
        best_ours[$row]=$(smaller "${best_ours[$row]:-}" "$ns")
    done < <("$target/release/kernelproof" solo)
    for entry in $rows; do
        IFS=: read -r row object name <<<"$entry"
        ns=$("$program" "$objects/$object-padded.bpf.o" "$name")
        best_theirs[$row]=$(smaller "${best_theirs[$row]:-}" "$ns")
    done
done
for entry in $rows; do
    row=${entry%%:*}
    awk -v row="$row" -v ours="${best_ours[$row]:-0}" -v theirs="${best_theirs[$row]}" 'BEGIN {
        ratio = ours / theirs
        agree = ratio > 1 / 1.15 && ratio < 1.15
        printf "%-28s crate %8.2f ns  C %8.2f ns  ratio %.3f  %s\n", row, ours, theirs, ratio,
            agree ? "agree" : "DIFFER"
        exit !agree
    }' || failed=1
done
exit $failed
