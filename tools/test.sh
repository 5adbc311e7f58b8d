#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Sets up all that the tests need, and runs them.
#
#   tools/test.sh            everything: gates, unit tests, real servers, a real Glance, docs
#   tools/test.sh --quick    unit tests and lint alone, in under two minutes
#   tools/test.sh -- ARGS    everything is set up, then pytest runs with ARGS alone
#
# PYTHON names the interpreter (default: python3); the environments lie in .cache/.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
python=${PYTHON:-python3}
cache="$root/.cache"

say() { printf '\n== %s\n' "$*"; }
fail() { printf 'tools/test.sh: %s\n' "$*" >&2; exit 1; }

mode=full
case "${1:-}" in
    "") ;;
    --quick) mode=quick ;;
    --) mode=pytest; shift ;;
    *) fail "unknown argument $1; see the head of this file" ;;
esac

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null ||
    fail "needs Python 3.10 or later; name one with PYTHON=/path/to/python3"
tag=$("$python" -c 'import sys; print("py%d%d" % sys.version_info[:2])')
venv="$cache/test-$tag"

set_up() {
    # The stamp holds what the environment was made from: another setup.cfg makes it anew.
    local stamp="$venv/.made-from"
    if ! cmp -s "$stamp" setup.cfg; then
        say "making the test environment $venv"
        rm -rf "$venv"
        "$python" -m venv "$venv" || fail "cannot make a virtual environment (Debian: python3-venv)"
        "$venv/bin/python" -m pip install --quiet --disable-pip-version-check \
            -e '.[test,docs,s3,swift,cinder]'
        cp setup.cfg "$stamp"
    fi
}

lint() {
    say "lint"
    "$venv/bin/ruff" check .
    "$venv/bin/ruff" format --check .
    say "types"
    "$venv/bin/mypy"
    say "arrows between the modules"
    "$venv/bin/lint-imports" --no-cache
}

# Two runs side by side, each with servers of its own: the tests of Cinder wait for it most of the
# time. Processes that the tests start are measured as well.
run_tests() {
    local aside=(tests/drivers/{cinder,swift})
    local log="$cache/tests-aside.log" first=0 second=0
    "$venv/bin/coverage" run -m pytest -o cache_dir="$cache/pytest-aside" "${aside[@]}" \
        >"$log" 2>&1 &
    local running=$!
    trap 'kill -INT "$running" 2>/dev/null || true; wait "$running" || true' EXIT
    "$venv/bin/coverage" run -m pytest tests "${aside[@]/#/--ignore=}" || first=$?
    wait "$running" || second=$?
    trap - EXIT
    say "tests of Cinder and Swift, which ran beside these"
    cat "$log"
    [[ $first == 0 && $second == 0 ]] || fail "tests have failed"
}

docs() {
    say "documentation, warnings are errors"
    "$venv/bin/python" -m sphinx -q -W --keep-going -b html doc/source doc/build/html
    "$venv/bin/reno" lint
}

coverage_gate() {
    say "branch coverage"
    "$venv/bin/coverage" combine --quiet
    "$venv/bin/coverage" report --skip-empty
    # The parts that everything stands on have a floor of their own.
    "$venv/bin/coverage" report --fail-under=90 --skip-empty \
        --include='glance_store/transfer/*,glance_store/registry.py'
}

set_up
case $mode in
    quick)
        lint
        say "unit tests"
        "$venv/bin/python" -m pytest tests/engine tests/facade tests/drivers/*/unit tests/drivers/test_*.py
        ;;
    pytest)
        exec "$venv/bin/python" -m pytest "$@"
        ;;
    full)
        lint
        say "tests"
        rm -f .coverage .coverage.*
        run_tests
        coverage_gate
        docs
        say "all passed"
        ;;
esac
