#!/usr/bin/env bash
# Debian's Python for 64-bit ARM in a folder, for `make wheel-aarch64` and `make test-aarch64`:
#
#   bash tests/arm64.sh FOLDER
#
# FOLDER/bin/python runs it in qemu, with the packages of FOLDER/site; it runs programs of this machine,
# such as compilers, as they are. Nothing is installed on this machine, so no root is needed.
set -euo pipefail
for program in apt-get dpkg-deb aarch64-linux-gnu-g++ qemu-aarch64; do
    command -v $program > /dev/null || {
        echo "error: $program cannot be found: on Debian, apt-get install g++-aarch64-linux-gnu qemu-user" >&2
        exit 1
    }
done
mkdir -p "$1"/apt/{lists,archives}/partial "$1"/bin
folder=$(cd "$1" && pwd)
touch "$folder/apt/status"  # of no package
apt() {
    apt-get -qq -o APT::Architecture=arm64 -o APT::Architectures=arm64 -o Dir::State="$folder/apt" \
        -o Dir::State::status="$folder/apt/status" -o Dir::Cache="$folder/apt" "$@"
}
apt update
apt install --yes --no-install-recommends --download-only libpython3-dev libstdc++6 python3
for package in "$folder"/apt/archives/*.deb; do
    dpkg-deb --extract "$package" "$folder/root"
done
cat > "$folder/bin/python" <<'END'
#!/bin/sh
here=$(cd "$(dirname "$0")/.." && pwd)
export PYTHONHOME="$here/root/usr" PYTHONPATH="$here/site${PYTHONPATH:+:$PYTHONPATH}"
exec qemu-aarch64 -L "$here/root" -0 "$0" "$here/root/usr/bin/python3" "$@"
END
cat > "$folder/bin/bhvit-seg" <<'END'
#!/bin/sh
exec "$(dirname "$0")/python" -m bhvit_seg "$@"
END
chmod +x "$folder"/bin/*
