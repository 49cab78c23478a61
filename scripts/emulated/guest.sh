# Guests for the checks in this directory: sourced. Boots a Debian kernel with an initramfs that holds
# busybox, `cellbench` and a job, and brings back what the job left in /out.
#
# GUEST_IMAGE names another kernel image. Needs what `kernel/install-deps.sh --vm` installs.

guest_root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
guest_work=$(mktemp -d "${TMPDIR:-/tmp}/cellbench-guest.XXXXXX")
guest_pid=
guest_end() {
    [ -z "$guest_pid" ] || kill "$guest_pid" 2>/dev/null || :
    rm -rf "$guest_work"
}
trap guest_end EXIT

guest_fail() {
    printf '%s: %s\n' "$(basename "$0")" "$*" >&2
    exit 2
}

# guest_needs PROGRAM:PACKAGE...: installs what is missing, where the caller is root on Debian.
guest_needs() {
    local need missing=
    for need in "$@"; do
        command -v "${need%:*}" >/dev/null || missing="$missing ${need#*:}"
    done
    [ -n "$missing" ] || return 0
    [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || guest_fail "missing:$missing"
    # shellcheck disable=SC2086 # a list of names
    { apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -q -y \
        --no-install-recommends $missing; } >"$guest_work/install" 2>&1 ||
        guest_fail "cannot install$missing: $(tail -n 1 "$guest_work/install")"
}

# guest_image: prints the path of the kernel image; the first time it is fetched.
guest_image() {
    local package=linux-image-cloud-amd64 cache=${CARGO_TARGET_DIR:-$guest_root/target}/kernel-vm
    local image=${GUEST_IMAGE:-$cache/$package-sid.vmlinuz}
    if [ ! -s "$image" ]; then
        mkdir -p "$cache"
        "$guest_root/kernel/vm/fetch-image.sh" $package sid "$cache" "$image" >&2 ||
            guest_fail "no kernel image"
    fi
    printf '%s\n' "$image"
}

# guest_archive JOB BUSYBOX FILE...: writes the initramfs; each FILE goes to /bin, with its libraries.
guest_archive() {
    local job=$1 busybox=$2 tree=$guest_work/tree file library
    shift 2
    mkdir -p "$tree"/{bin,proc,sys,dev,tmp,out}
    install -m 755 "$busybox" "$tree/bin/busybox"
    for file in "$@"; do
        cp -L "$file" "$tree/bin/"
        # Without debug information, which the guest would have to unpack.
        ${GUEST_STRIP:-strip} "$tree/bin/$(basename "$file")" 2>/dev/null || :
        # A static program has no libraries, which ldd and grep call a failure.
        { ${GUEST_LDD:-ldd} "$file" 2>/dev/null | grep -o '/[^ ]*' || :; } | while read -r library; do
            mkdir -p "$tree$(dirname "$library")"
            cp -L "${GUEST_SYSROOT:-}$library" "$tree$library"
        done
    done
    cp "$job" "$tree/job"
    cat >"$tree/init" <<'EOF'
#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mount -t tmpfs tmp /tmp
mount -t tmpfs out /out
mount -t cgroup2 cgroup /sys/fs/cgroup
export HOME=/tmp PATH=/bin TERM=dumb
cd /tmp
sh /job
echo "job-ended: $?"
for line in /dev/ttyS1 /dev/ttyAMA1; do
    if [ -e $line ] && stty -F $line raw -echo 2>/dev/null; then
        tar -c -C /out . | gzip >$line
        break
    fi
done
sync
poweroff -f
EOF
    chmod +x "$tree/init"
    (cd "$tree" && find . -print0 | cpio --quiet --null -o -H newc | gzip -1) >"$guest_work/initramfs.gz"
    rm -rf "$tree"
}

# guest_run SECONDS APPEND QEMU...: boots, shows the console, and returns the status of the job; 3 if
# it did not end in time. The console is left in $guest_work/console, /out of the guest in
# $guest_work/out.
guest_run() {
    local seconds=$1 append=$2 status shown
    shift 2
    : >"$guest_work/console"
    "$@" -display none -monitor none -nic none -no-reboot \
        -initrd "$guest_work/initramfs.gz" -append "$append" \
        -serial "file:$guest_work/console" -serial "file:$guest_work/out.tgz" \
        </dev/null 2>"$guest_work/complaints" &
    guest_pid=$!
    tail --pid=$guest_pid -n +1 -f "$guest_work/console" | sed -u 's/\r\?$//' &
    shown=$!
    for _ in $(seq "$seconds"); do
        kill -0 $guest_pid 2>/dev/null || break
        sleep 1
    done
    kill $guest_pid 2>/dev/null && printf 'the guest did not end within %d s\n' "$seconds"
    wait $guest_pid 2>/dev/null || :
    guest_pid=
    wait $shown 2>/dev/null || :
    grep -v 'exceeds the recommended cpus' "$guest_work/complaints" || :
    mkdir -p "$guest_work/out"
    tar -xzf "$guest_work/out.tgz" -C "$guest_work/out" 2>/dev/null || :
    status=$(sed -n 's/^job-ended: \([0-9]*\).*/\1/p' "$guest_work/console" | tail -n 1)
    return "${status:-3}"
}
