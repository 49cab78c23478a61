#!/bin/bash
# Fetches a Debian kernel image without installing anything.
#
#   fetch-image.sh PACKAGE SUITES DIRECTORY FILE [ARCHITECTURE [PATTERN]]
#
# Looks for PACKAGE in each of SUITES (a list with spaces), follows its dependencies on other parts of
# the kernel until one holds an image, and leaves that in FILE. ARCHITECTURE is Debian's name (amd64);
# with PATTERN it is the file of the package whose path matches that. Uses a private apt configuration made
# from this machine's own sources, kept in DIRECTORY: the machine's apt state stays as it is.
set -euo pipefail
package=$1 suites=$2 file=$4
# apt takes a relative path for one below its own.
directory=$(realpath -m "$3")
architecture=${5:-amd64}
pattern=${6:-'/vmlinuz[^/]*$'}

fail() {
    echo "$*" >&2
    exit 2
}

# The machine's own Debian mirror, as apt knows it.
mirror() {
    # shellcheck disable=SC2016 # apt fills these in
    apt-get indextargets --format '$(ORIGIN) $(REPO_URI)' 'Created-By: Packages' |
        awk '$1 == "Debian" && $2 !~ /security/ { print $2; exit }'
}

private_apt() {
    local command=$1
    shift
    timeout 300 "$command" \
        -o "Dir::Etc::SourceList=$apt_root/sources.list" -o Dir::Etc::SourceParts=/dev/null \
        -o "Dir::State=$apt_root/state" -o "Dir::State::status=/dev/null" -o "Dir::Cache=$apt_root/cache" \
        -o APT::Architecture="$architecture" -o APT::Sandbox::User=root -o Acquire::Retries=3 \
        -o Acquire::http::Timeout=30 -o Acquire::Languages=none "$@"
}

# Fetches packages from $1 along the dependencies on other parts of the kernel, until one holds an image.
fetch() {
    local queue=("$1") seen="" name archive entry
    while [ ${#queue[@]} -gt 0 ]; do
        name=${queue[0]}
        queue=("${queue[@]:1}")
        case " $seen " in *" $name "*) continue ;; esac
        seen="$seen $name"
        rm -rf "$apt_root/debs" && mkdir -p "$apt_root/debs"
        (cd "$apt_root/debs" && private_apt apt-get -q download "$name" >/dev/null 2>&1) || continue
        archive=$(echo "$apt_root"/debs/*.deb)
        entry=$(dpkg-deb --fsys-tarfile "$archive" | tar -t | grep -E "$pattern" | head -n 1 || true)
        if [ -n "$entry" ]; then
            dpkg-deb --fsys-tarfile "$archive" | tar -xO "$entry" >"$file.part"
            mv "$file.part" "$file"
            rm -rf "$apt_root/debs"
            return 0
        fi
        while read -r entry; do
            queue+=("$entry")
        done < <(private_apt apt-cache depends --important "$name" |
            awk '/Depends: linux-(image|binary)-/ { print $2 }')
    done
    rm -rf "$apt_root/debs"
    return 1
}

for tool in apt-get apt-cache dpkg-deb; do
    command -v "$tool" >/dev/null || fail "$tool is missing: give the image as a file"
done
uri=$(mirror)
[ -n "$uri" ] || fail "apt on this machine knows no Debian mirror; run apt-get update first"
for suite in $suites; do
    apt_root=$directory/apt-$suite
    [ "$architecture" = amd64 ] || apt_root=$apt_root-$architecture
    if [ ! -d "$apt_root/state/lists" ] || [ -z "$(ls "$apt_root/state/lists" 2>/dev/null)" ]; then
        mkdir -p "$apt_root/state/lists/partial" "$apt_root/cache/archives/partial"
        keyring=/usr/share/keyrings/debian-archive-keyring.gpg
        echo "deb [signed-by=$keyring] $uri $suite main" >"$apt_root/sources.list"
        private_apt apt-get -q update >/dev/null 2>&1 || continue
    fi
    private_apt apt-cache show "$package" >/dev/null 2>&1 || continue
    if fetch "$package"; then
        exit 0
    fi
done
fail "no package $package with a kernel image in $suites"
