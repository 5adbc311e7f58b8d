#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Shows the main job on two file system stores: a disk image goes in, is read in parts, checked,
# comes back the same, and is removed.
#
#   tools/demo.sh
#
# PYTHON names the interpreter (default: python3), DEMO_MIB the size of the disk (default: 384).
# The environment lies in .cache/ and is used again; all else is in a temporary directory that
# is removed at the end.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=${PYTHON:-python3}
mib=${DEMO_MIB:-384}
# mkfs is often outside of the path of ordinary users.
export PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"
export PIP_DISABLE_PIP_VERSION_CHECK=1

say() { printf '\n== %s\n' "$*"; }
fail() {
    printf 'tools/demo.sh: %s\n' "$*" >&2
    exit 1
}
have() { command -v "$1" >/dev/null 2>&1; }

# Prints a command as one would type it, and runs it; what it prints may go into a pipe.
exec 3>&1
run() {
    printf '$ %s\n' "$*" >&3
    "$@"
}

# Runs a command that must fail, and with which exit code.
run_expecting() {
    local expected=$1 code=0
    shift
    run "$@" 2>&1 || code=$?
    printf '(exit code %d)\n' "$code"
    [ "$code" -eq "$expected" ] || fail "expected exit code $expected of: $*"
}

as_root_install() {
    [ "$(id -u)" -eq 0 ] && have apt-get || return 1
    printf 'installing %s\n' "$1"
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "$1"; } \
        >/dev/null 2>&1
}

make_environment() {
    have "$python" || fail "there is no $python: install Python 3.10 or later, or name it in PYTHON"
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||
        fail "needs Python 3.10 or later; name one with PYTHON=/path/to/python3"
    local tag stamp
    tag=$("$python" -c 'import sys; print("py%d%d" % sys.version_info[:2])')
    venv="$root/.cache/demo-$tag"
    # What it was made from: another list of dependencies makes it anew.
    stamp="$venv/.made-from"
    if cmp -s "$stamp" "$root/setup.cfg"; then
        printf 'using %s\n' "$venv"
        return
    fi
    printf 'making %s\n' "$venv"
    rm -rf "$venv"
    mkdir -p "$root/.cache"
    if ! "$python" -m venv "$venv" >/dev/null 2>&1; then
        rm -rf "$venv"
        as_root_install python3-venv && "$python" -m venv "$venv" ||
            fail "cannot make a virtual environment: install python3-venv (Debian, Ubuntu)"
    fi
    "$venv/bin/python" -m pip install --quiet -e "$root" || fail "pip could not install $root"
    cp "$root/setup.cfg" "$stamp"
}

# Real files to fill the disk with: every machine with Python has its library.
make_tree() {
    local library
    library=$("$python" -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')
    mkdir tree
    (cd "$library" && find . -name '*.py' -size +3k | sort | sed -n '1,1200p' |
        tar -cf - -T -) | tar -xf - -C tree
}

make_disk() {
    make_tree
    if ! have mkfs.ext4; then
        as_root_install e2fsprogs ||
            printf 'mkfs.ext4 (package e2fsprogs) is not here and cannot be installed by this user\n'
    fi
    if have mkfs.ext4; then
        run mkfs.ext4 -q -F -d tree disk.raw "${mib}M"
        return
    fi
    truncate -s "${mib}M" disk.raw
    local kind
    for kind in xfs fat vfat minix bfs; do
        if have "mkfs.$kind"; then
            printf 'using mkfs.%s instead\n' "$kind"
            run "mkfs.$kind" disk.raw >/dev/null
            break
        fi
    done
    # These cannot fill a file system without mounting it: the data goes to its free space.
    printf 'writing an archive of the files into the disk\n'
    tar -cf - tree | dd of=disk.raw bs=1M seek=$((mib / 4)) conv=notrunc status=none
}

used() { du -k "$1" | awk '{ printf "%d MiB", $1 / 1024 }'; }
location_in() { sed -n 's/^location: *//p' "$1"; }

say "the environment"
make_environment
export PATH="$venv/bin:$PATH"
work=$(mktemp -d "${TMPDIR:-/tmp}/glance-store-demo.XXXXXX")
trap 'rm -rf "$work"' EXIT
cd "$work"
run glance-store --version

say "a disk of $mib MiB, raw and sparse"
make_disk
printf 'disk.raw: %s MiB long, %s used\n' "$mib" "$(used disk.raw)"

say "a configuration with two stores; thin leaves holes where the disk is zeros"
cat >glance-api.conf <<CONF
[DEFAULT]
enabled_backends = thin:file, full:file

[glance_store]
default_backend = thin

[thin]
filesystem_store_datadir = $work/thin
filesystem_thin_provisioning = true
weight = 10

[full]
filesystem_store_datadir = $work/full
CONF
cat glance-api.conf
run glance-store --config-file glance-api.conf stores --check
[ -t 2 ] || printf '(On a terminal the transfers below show a progress bar.)\n'

say "put: from a file into the default store, and from a pipe into the other one"
run glance-store --config-file glance-api.conf put disk.raw | tee put.txt
thin=$(location_in put.txt)
printf '$ cat disk.raw | glance-store --config-file glance-api.conf put - --store full\n'
# shellcheck disable=SC2002 - a pipe, whose size nobody knows, is what is shown
cat disk.raw | glance-store --config-file glance-api.conf put - --store full | tee put.txt
full=$(location_in put.txt)

say "both are the same bytes; the thin one uses the space of its data only"
run cmp disk.raw "${thin#file://}"
run cmp disk.raw "${full#file://}"
printf 'space used: disk.raw %s, in thin %s, in full %s\n' \
    "$(used disk.raw)" "$(used "${thin#file://}")" "$(used "${full#file://}")"

say "an id is taken once"
run_expecting 1 glance-store --config-file glance-api.conf put disk.raw --id "${thin##*/}"

say "where is it, and how large?"
run glance-store --config-file glance-api.conf stat "$thin"

say "ranges: two bytes (53 ef is the signature of an ext4 file system), then 8 MiB of the inside"
run glance-store --config-file glance-api.conf get "$thin" --offset 1080 --length 2 | od -An -tx1
run glance-store --config-file glance-api.conf get "$thin" --offset $((mib / 4))M --length 8M -o part.raw
dd if=disk.raw bs=1M skip=$((mib / 4)) count=8 of=expected.raw status=none
run cmp part.raw expected.raw

say "verify: against digests that another program has computed"
md5=$(md5sum disk.raw | cut -d' ' -f1)
sha512=$(sha512sum disk.raw | cut -d' ' -f1)
run glance-store --config-file glance-api.conf verify "$full" --checksum "$md5" --multihash "$sha512"

say "verify finds one byte that has changed on the storage"
printf '!' | dd of="${full#file://}" bs=1 seek=$((mib * 524288 + 1)) conv=notrunc status=none
run_expecting 1 glance-store --config-file glance-api.conf verify "$full" --checksum "$md5"

say "get: the whole disk back, holes included"
run glance-store --config-file glance-api.conf get "$thin" -o back.raw
run cmp disk.raw back.raw
printf 'space used: disk.raw %s, back.raw %s\n' "$(used disk.raw)" "$(used back.raw)"
if have e2fsck && have mkfs.ext4; then
    run e2fsck -fn back.raw 2>&1
fi

say "rm: both are gone, and asking again says so"
run glance-store --config-file glance-api.conf rm "$thin" --yes
run glance-store --config-file glance-api.conf rm "$full" --yes
run_expecting 3 glance-store --config-file glance-api.conf stat "$thin"
[ -z "$(find thin full -type f)" ] || fail "something was left in the stores"
printf 'nothing is left in the stores\n'

say "done"
