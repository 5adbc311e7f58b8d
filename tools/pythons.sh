#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Runs what needs no server under the other Pythons of this machine, and what the releases of the
# libraries can change on the oldest and on those of OpenStack. The last lines say what ran and how
# it ended; the exit status is 1 if something failed.
#
#   tools/pythons.sh              each Python of 3.10 to 3.14, other than that of tools/test.sh
#   tools/pythons.sh 3.12 3.14    these
#   tools/pythons.sh --oldest     the oldest releases that setup.cfg allows, on the oldest Python
#   tools/pythons.sh --openstack  the releases of OpenStack 2026.2 (tools/openstack-2026.2.txt)
#
# Under a Python: lint (once), types as that Python has them, arrows between the modules, and the
# unit tests. On other releases: the unit tests, and S3's kit on its real servers. A Python is a
# python3.N on the path, or one that pyenv has; one that does not run, or cannot make environments,
# is named and left out.
#
# PYTHON names the interpreter of tools/test.sh (default: python3), JOBS how many of these run at a
# time (default: one a core). The environments and the logs lie in .cache/.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source tools/environment.sh

supported=(3.10 3.11 3.12 3.13 3.14)
openstack=(3.11 3.12 3.13 3.14)
notes=()
names=()

# Sets `found` to the Python of a release; notes why there is none, and fails.
find_python() {
    local candidates candidate
    mapfile -t candidates < <(
        type -aP "python$1" || true
        # A shim of pyenv on the path runs only where its release is selected.
        compgen -G "${PYENV_ROOT:-$HOME/.pyenv}/versions/$1.*[0-9]/bin/python$1" | sort -rV
    )
    for candidate in "${candidates[@]}"; do
        if [[ $(release "$candidate") == "$1" ]]; then
            found=$candidate
            return
        fi
    done
    if [[ ${#candidates[@]} == 0 ]]; then
        notes+=("Python $1: not on this machine")
    else
        notes+=("Python $1: does not run, or cannot make environments: ${candidates[*]}")
    fi
    return 1
}

# Sets `found` to the first Python of some releases.
find_first() {
    local release
    for release; do
        if find_python "$release"; then return; fi
    done
    fail "this machine has none of Python $*"
}

# Runs one check; that it failed is remembered, so that the others run all the same.
broken=()
check() {
    say "$1"
    "${@:2}" || broken+=("$1")
}

run_tests() {
    local pytest=("$venv/bin/python" -m pytest -o cache_dir="$cache/pytest-$name")
    check "tests" "${pytest[@]}" "${unit_tests[@]}"
    [[ $# == 0 ]] || check "tests on servers" "${pytest[@]}" "$@"
}

check_python() {
    local python=$1 release=$2 name=py${2/./} venv=$cache/test-py${2/./}
    set_up "$python" "$venv" "${test_extras[@]}"
    if [[ $3 == first ]]; then
        check "lint" "$venv/bin/ruff" check .
        check "format" "$venv/bin/ruff" format --check .
    fi
    check "types" "$venv/bin/mypy" --python-version "$release" --cache-dir "$cache/mypy-$name"
    check "arrows" "$venv/bin/lint-imports" --no-cache
    run_tests
}

check_releases() {
    local python=$1 name=$2 venv=$cache/test-$2
    set_up "$python" "$venv" test s3 swift cinder vmware prometheus osprofiler healthcheck \
        completion crc32c -- --constraint "$3"
    run_tests tests/drivers/s3/test_kit.py
}

# start NAME COMMAND...: in the background, with a log and a result.
start() {
    local log=$cache/pythons-$1.log
    while (($(jobs -pr | wc -l) >= limit)); do wait -n || true; done
    names+=("$1")
    rm -f "$log.result"
    say "$1: begins, see $log"
    (
        outcome=failed SECONDS=0
        trap 'printf "%s %d\n" "$outcome" "$SECONDS" >"$log.result"' EXIT
        "${@:2}"
        [[ ${#broken[@]} == 0 ]] || fail "failed: ${broken[*]}"
        outcome=passed
    ) >"$log" 2>&1 &
}

start_pythons() {
    local release place=first
    for release; do
        if find_python "$release"; then
            start "$release" check_python "$found" "$release" "$place"
            place=later
        fi
    done
}

start_oldest() {
    find_first "${supported[@]}"
    sed -nE 's/^ +([a-zA-Z0-9._-]+)(\[[a-z]+\])?>=/\1==/p' setup.cfg >"$cache/oldest.txt"
    start oldest check_releases "$found" oldest "$cache/oldest.txt"
}

start_openstack() {
    found=$python
    [[ " ${openstack[*]} " == *" $own "* ]] || find_first "${openstack[@]}"
    start openstack check_releases "$found" openstack tools/openstack-2026.2.txt
}

report() {
    local name log outcome seconds worst=0
    for name in "${names[@]}"; do
        log=$cache/pythons-$name.log
        read -r outcome seconds <"$log.result" || fail "$name ended without a result, see $log"
        if [[ $outcome == passed ]]; then
            notes+=("$name: passed in $seconds s, $(grep -oE '[0-9]+ passed[^=]* in [0-9.]+s' "$log" | tail -n 1)")
        else
            worst=1
            say "$name"
            cat "$log"
            notes+=("$name: FAILED in $seconds s: $(tail -n 1 "$log")")
        fi
    done
    say "Pythons and releases"
    printf '%s\n' "${notes[@]}"
    return "$worst"
}

mkdir -p "$cache"
python=${PYTHON:-python3}
own=$(release "$python") || fail "$python does not run; name another with PYTHON=/path/to/python3"
limit=${JOBS:-$(nproc)}
releases=()
others=()
for argument; do
    case $argument in
        --oldest | --openstack) others+=("${argument#--}") ;;
        3.*) releases+=("$argument") ;;
        *) fail "unknown argument $argument; see the head of this file" ;;
    esac
done
if [[ $# == 0 ]]; then
    notes+=("Python $own: that of tools/test.sh")
    for candidate in "${supported[@]}"; do
        [[ $candidate == "$own" ]] || releases+=("$candidate")
    done
fi
# Each is a group of processes of its own, which ends together with this script.
set -m
end_all() {
    local group
    for group in $(jobs -p); do kill -- "-$group" 2>/dev/null || true; done
}
trap end_all EXIT
start_pythons "${releases[@]}"
for other in "${others[@]}"; do "start_$other"; done
while [[ -n $(jobs -pr) ]]; do wait -n || true; done
report
