# shellcheck shell=bash disable=SC2034
# SPDX-License-Identifier: Apache-2.0
# The environments that the tests run in; sourced by the other scripts here, in the root of the
# project.

cache=.cache
# The tests start hundreds of processes: none should compile again what another one has compiled.
unset PYTHONDONTWRITEBYTECODE
# What the tests need, and those of them that need no server.
test_extras=(test docs s3 swift cinder vmware prometheus osprofiler healthcheck completion)
unit_tests=(tests/engine tests/facade tests/drivers/*/unit tests/drivers/test_*.py -m "not services")

say() { printf '\n== %s (after %d s)\n' "$*" "$SECONDS"; }
fail() { printf '%s: %s\n' "${0##*/}" "$*" >&2; exit 1; }

# Prints the release of a Python, such as 3.12; fails when it does not run, or cannot make
# environments.
release() {
    "$1" -c 'import ensurepip, sys, venv; print("%d.%d" % sys.version_info[:2])' 2>/dev/null
}

# set_up PYTHON VENV EXTRA... [-- ARGUMENT OF PIP...]
#
# Makes an environment with the project and some of its extras, or reuses it: its stamp holds what
# it was made from. One is made at a time, also by other runs: the metadata of the project, which
# pip writes beside the sources, belongs to all of them.
set_up() {
    local python=$1 venv=$2 extras=$3 stamp argument
    shift 3
    while [[ $# -gt 0 && $1 != -- ]]; do extras+=,$1; shift; done
    [[ $# -eq 0 ]] || shift
    mkdir -p "$cache"
    (
        flock 9
        stamp=$(
            printf '%s\n' "$("$python" -VV)" "$extras" "$*"
            cat setup.cfg
            for argument; do [[ ! -f $argument ]] || cat "$argument"; done
        )
        if [[ ! -f $venv/.made-from || $(<"$venv/.made-from") != "$stamp" ]]; then
            say "making the test environment $venv"
            rm -rf "$venv"
            "$python" -m venv "$venv" ||
                fail "cannot make a virtual environment (Debian: python3-venv)"
            "$venv/bin/python" -m pip install --quiet --disable-pip-version-check \
                -e ".[$extras]" "$@" || fail "cannot fill the environment $venv"
            printf '%s\n' "$stamp" >"$venv/.made-from"
        fi
    ) 9>"$cache/.environment.lock"
}

# build_docs VENV: the documentation, into doc/build; a warning is an error.
build_docs() {
    local builder
    # Pages that have moved would be read as doubles of themselves.
    rm -rf doc/build
    for builder in html man; do
        say "documentation: $builder"
        # What the first has read serves the second.
        "$1/bin/python" -m sphinx -q -W --keep-going -b "$builder" -d doc/build/doctrees \
            doc/source "doc/build/$builder"
    done
    "$1/bin/reno" -q lint
}
