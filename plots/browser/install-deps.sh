#!/usr/bin/env bash
# Installs what the page's test needs beside Rust: Chromium and a font, from the distribution.
# Needs apt-get and root (or sudo); does nothing where a Chromium is there.
set -euo pipefail
for browser in /usr/bin/chromium /usr/bin/chromium-browser /usr/bin/google-chrome; do
    if [ -x "$browser" ]; then
        echo "$browser is there"
        exit 0
    fi
done
sudo=$([ "$(id -u)" = 0 ] || echo sudo)
$sudo apt-get update --quiet
DEBIAN_FRONTEND=noninteractive $sudo apt-get install --yes --quiet --no-install-recommends \
    chromium fonts-dejavu-core
