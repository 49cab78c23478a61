#!/bin/sh
# Installs what the feature `bpf` needs to build (clang, libelf, zlib) and its tests use to look for
# leftovers (bpftool). With --vm also what vm/run.sh needs. Debian and Ubuntu; as root.
set -eu

packages="clang libelf-dev zlib1g-dev pkg-config make gcc bpftool"
if [ "${1:-}" = "--vm" ]; then
    packages="$packages qemu-system-x86 cpio gzip busybox-static debian-archive-keyring"
fi

missing=""
for package in $packages; do
    if ! dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q "ok installed"; then
        missing="$missing $package"
    fi
done
if [ -z "$missing" ]; then
    exit 0
fi

if [ "$(id -u)" -ne 0 ]; then
    echo "install-deps.sh: not root; run: sudo apt-get install$missing" >&2
    exit 1
fi
apt-get update -q
# shellcheck disable=SC2086 # a list of names
DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $missing
