#!/bin/bash
# Boots another kernel in QEMU with an initramfs that holds the proof program, and lets it prove every
# row and every error there. For function only: under emulation no time means anything, and the
# program refuses to report one.
#
#   kernel/vm/run.sh [--package NAME] [--suite SUITE] [--binary FILE] [--seconds N] [-- ARGUMENTS]
#
# The kernel image is Debian's package NAME (linux-image-cloud-amd64) in SUITE (sid), fetched with a
# private apt configuration made from this machine's own sources: nothing is installed, and the
# machine's apt state stays as it is. Needs what `kernel/install-deps.sh --vm` installs. Exit status is
# that of the program in the machine; 3 if the machine did not finish in time.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
package=linux-image-cloud-amd64
suite=sid
binary=""
seconds=900
while [ $# -gt 0 ]; do
    case "$1" in
    --package) package=$2; shift 2 ;;
    --suite) suite=$2; shift 2 ;;
    --binary) binary=$2; shift 2 ;;
    --seconds) seconds=$2; shift 2 ;;
    --) shift; break ;;
    *) echo "run.sh: unknown argument $1; see the head of $0" >&2; exit 2 ;;
    esac
done
arguments=("$@")
[ ${#arguments[@]} -gt 0 ] || arguments=(prove 100)

for tool in qemu-system-x86_64 cpio dpkg-deb apt-get busybox; do
    command -v "$tool" >/dev/null || {
        echo "run.sh: $tool is missing; kernel/install-deps.sh --vm installs it" >&2
        exit 2
    }
done

target=${CARGO_TARGET_DIR:-$root/target}
work=$target/kernel-vm
mkdir -p "$work"

if [ -z "$binary" ]; then
    (cd "$root" && cargo build --release -q -p cellbench-kernel --features bpf)
    binary=$target/release/kernelproof
fi

# --- the kernel image -------------------------------------------------------------------------------

image=$work/$package-$suite.vmlinuz
if [ ! -s "$image" ]; then
    "$here/fetch-image.sh" "$package" "$suite" "$work" "$image" || {
        echo "run.sh: neither $package nor what it depends on in $suite holds a kernel image" >&2
        exit 2
    }
fi

# --- the initramfs ----------------------------------------------------------------------------------

tree=$(mktemp -d)
output=$(mktemp)
trap 'rm -rf "$tree" "$output"' EXIT
mkdir -p "$tree"/{bin,proc,sys,dev,tmp}
cp "$(command -v busybox)" "$tree/bin/busybox"
cp "$binary" "$tree/bin/program"
# The interpreter and libraries at the places where the programs look for them.
for file in "$tree/bin/busybox" "$tree/bin/program"; do
    # A static program has none, which ldd and grep call a failure.
    { ldd "$file" 2>/dev/null | grep -o '/[^ ]*' || true; } | while read -r library; do
        mkdir -p "$tree$(dirname "$library")"
        cp -L "$library" "$tree$library"
    done
done
{
    echo '#!/bin/busybox sh'
    echo '/bin/busybox mount -t proc proc /proc'
    echo '/bin/busybox mount -t sysfs sysfs /sys'
    echo '/bin/busybox mount -t devtmpfs dev /dev'
    printf '/bin/program'
    printf ' %q' "${arguments[@]}"
    echo
    echo 'echo "exit-status: $?"'
    echo '/bin/busybox poweroff -f'
} >"$tree/init"
chmod +x "$tree/init"
(cd "$tree" && find . -print0 | cpio --quiet --null -o -H newc | gzip -1) >"$work/initramfs.gz"

# --- the machine ------------------------------------------------------------------------------------

timeout --kill-after=10 "$seconds" qemu-system-x86_64 \
    -accel tcg,thread=multi -cpu max -smp 2 -m 2048 -nographic -no-reboot -nic none \
    -kernel "$image" -initrd "$work/initramfs.gz" \
    -append "console=ttyS0 panic=-1" </dev/null | sed -u 's/\r\?$//' | tee "$output" || true

status=$(sed -n 's/^exit-status: \([0-9]*\)$/\1/p' "$output" | tail -n 1)
if [ -z "$status" ]; then
    echo "run.sh: the machine did not finish within $seconds s" >&2
    exit 3
fi
exit "$status"
