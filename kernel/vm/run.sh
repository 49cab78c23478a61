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

apt_root=$work/apt-$suite
image=$work/$package-$suite.vmlinuz

private_apt() {
    local command=$1
    shift
    timeout 300 "$command" \
        -o "Dir::Etc::SourceList=$apt_root/sources.list" -o Dir::Etc::SourceParts=/dev/null \
        -o "Dir::State=$apt_root/state" -o "Dir::State::status=/dev/null" -o "Dir::Cache=$apt_root/cache" \
        -o APT::Architecture=amd64 -o APT::Sandbox::User=root -o Acquire::Retries=3 \
        -o Acquire::http::Timeout=30 -o Acquire::Languages=none "$@"
}

# The machine's own Debian mirror, as apt knows it.
mirror() {
    # shellcheck disable=SC2016 # apt fills these in
    apt-get indextargets --format '$(ORIGIN) $(REPO_URI)' 'Created-By: Packages' |
        awk '$1 == "Debian" && $2 !~ /security/ { print $2; exit }'
}

# Fetches packages from $1 along the dependencies on other parts of the kernel, until one holds an image.
fetch_image() {
    local queue=("$1") seen="" name archive entry
    while [ ${#queue[@]} -gt 0 ]; do
        name=${queue[0]}
        queue=("${queue[@]:1}")
        case " $seen " in *" $name "*) continue ;; esac
        seen="$seen $name"
        rm -rf "$apt_root/debs" && mkdir -p "$apt_root/debs"
        (cd "$apt_root/debs" && private_apt apt-get -q download "$name" >/dev/null)
        archive=$(echo "$apt_root"/debs/*.deb)
        entry=$(dpkg-deb --fsys-tarfile "$archive" | tar -t | grep -E '/vmlinuz[^/]*$' | head -n 1 || true)
        if [ -n "$entry" ]; then
            dpkg-deb --fsys-tarfile "$archive" | tar -xO "$entry" >"$image.part"
            mv "$image.part" "$image"
            echo "run.sh: kernel from $(basename "$archive")" >&2
            return
        fi
        while read -r entry; do
            queue+=("$entry")
        done < <(private_apt apt-cache depends --important "$name" |
            awk '/Depends: linux-(image|binary)-/ { print $2 }')
    done
    echo "run.sh: neither $1 nor what it depends on in $suite holds a kernel image" >&2
    exit 2
}

if [ ! -s "$image" ]; then
    mkdir -p "$apt_root/state/lists/partial" "$apt_root/cache/archives/partial"
    uri=$(mirror)
    if [ -z "$uri" ]; then
        echo "run.sh: apt on this machine knows no Debian mirror; run apt-get update first" >&2
        exit 2
    fi
    keyring=/usr/share/keyrings/debian-archive-keyring.gpg
    echo "deb [signed-by=$keyring] $uri $suite main" >"$apt_root/sources.list"
    private_apt apt-get -q update >/dev/null
    fetch_image "$package"
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
