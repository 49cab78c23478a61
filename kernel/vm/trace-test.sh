#!/bin/bash
# Traces kernels in QEMU and holds the outcome to what is kept and to itself. Takes some minutes.
#
#   kernel/vm/trace-test.sh CELLBENCH KERNELPROOF [IMAGE...]
#
# IMAGE: as `cellbench trace --kernel` takes them; by default a package of each generation. For each:
# two traces are byte-equal, and no operation differs from the kept trace of the same release in
# results/trace, if there is one. Then the failures: each must be one line and leave nothing behind.
set -euo pipefail
cellbench=$(realpath "$1")
program=$(realpath "$2")
shift 2
images=("$@")
[ ${#images[@]} -gt 0 ] ||
    images=(linux-image-6.18.15+deb13-cloud-amd64 linux-binary-7.1.13+deb13-cloud-amd64)
root=$(cd "$(dirname "$0")/../.." && pwd)
work=$(mktemp -d)
mounted=""
finish() {
    [ -z "$mounted" ] || umount "$mounted"
    rm -rf "$work"
}
trap finish EXIT
cache=${CARGO_TARGET_DIR:-$root/target}/cellbench/trace/cache
failed=0

check() {
    local name=$1
    shift
    if "$@"; then echo "ok      $name"; else echo "FAILED  $name"; failed=$((failed + 1)); fi
}

trace() { "$cellbench" trace --program "$program" "$@"; }

# Fails unless the command ends with status 2 and one line that holds the text $1.
refuses() {
    local text=$1 status=0
    shift
    "$@" >"$work/out" 2>"$work/err" || status=$?
    [ $status = 2 ] && [ "$(grep -c 'error:' "$work/err")" = 1 ] && grep -q -- "$text" "$work/err" ||
        { cat "$work/err"; return 1; }
}

leaves_nothing() { [ -z "$(find "$1" -maxdepth 2 -name 'trace-[0-9]*' -print -quit)" ]; }

for image in "${images[@]}"; do
    for n in 1 2; do
        mkdir -p "$work/$n"
        began=$SECONDS
        trace --kernel "$image" --out "$work/$n" >"$work/$n/table" 2>"$work/$n/log" || cat "$work/$n/log"
        echo "        $image: $((SECONDS - began)) s"
    done
    file=$(basename "$(ls "$work"/1/*.json | tail -n 1)")
    check "$image: two traces are byte-equal" cmp "$work/1/$file" "$work/2/$file"
    kept=$root/results/trace/$file
    if [ -f "$kept" ]; then
        # The kept trace may be of fewer rows.
        rows=$(grep -o '"name":"[^"]*","context"' "$kept" | cut -d'"' -f4 | paste -sd,)
        trace --kernel "$image" --rows "$rows" --out "$work/2" >/dev/null 2>&1 || true
        check "$image: as kept" trace --kernel "$work/2/$file" --against "$kept"
    fi
    mv "$work/1/$file" "$work/$(basename "$image").trace.json"
    cp -n "$work"/1/cache/*.vmlinuz "$work/" 2>/dev/null || true
    rm -rf "$work/1/$file" "$work/2"
done

image=$(find "$work" "$cache" -name '*.vmlinuz' 2>/dev/null | head -n 1)
[ -n "$image" ] || { echo "no image to fail with" >&2; exit 2; }

check "no image" refuses "neither a file" trace --kernel /nonexistent --out "$work/f"
printf 'no image' >"$work/text"
check "no kernel image" refuses "not an x86 kernel image" trace --kernel "$work/text" --out "$work/f"
check "no guest program" refuses "kernelproof" \
    "$cellbench" trace --kernel "$image" --program /nonexistent --out "$work/f"
check "no QEMU" refuses "apt-get install qemu-system-x86" \
    env PATH="$work" "$cellbench" trace --program "$program" --kernel "$image" --out "$work/f"
check "nothing left behind" leaves_nothing "$work/f"

if [ "$(id -u)" = 0 ]; then
    mkdir "$work/small"
    mount -t tmpfs -o size=7m tmpfs "$work/small"
    mounted=$work/small
    check "full disk" refuses "no storage space\|No space left" trace --kernel "$image" --out "$work/small"
    check "nothing left on the full disk" leaves_nothing "$work/small"
fi

# However the command ends, the machine ends with it, and the next run takes its remains away.
trace --kernel "$image" --rows timer-start --out "$work/k" >/dev/null 2>&1 &
command=$!
qemu=""
for _ in $(seq 300); do
    qemu=$(pgrep -P $command qemu-system || true)
    [ -z "$qemu" ] || break
    sleep 0.1
done
kill -KILL $command
wait $command 2>/dev/null || true
gone() { for _ in $(seq 50); do [ -d "/proc/$1" ] || return 0; sleep 0.1; done; return 1; }
check "kill -9 of the command ends QEMU" gone "${qemu:-none}"

trace --kernel "$image" --rows timer-start --out "$work/k" >/dev/null 2>"$work/err" &
command=$!
qemu=""
for _ in $(seq 300); do
    qemu=$(pgrep -P $command qemu-system || true)
    [ -z "$qemu" ] || break
    sleep 0.1
done
kill -KILL "$qemu"
status=0
wait $command || status=$?
check "kill -9 of QEMU is one line" grep -q "qemu-system-x86_64 was killed" "$work/err"
check "kill -9 of QEMU: exit status 2" [ $status = 2 ]
check "nothing left behind by either" leaves_nothing "$work/k"

echo "$failed failed"
[ $failed = 0 ]
