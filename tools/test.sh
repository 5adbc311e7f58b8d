#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Sets up all that the tests need, and runs them.
#
#   tools/test.sh              everything: gates, unit tests, real servers, a real Glance, docs
#   tools/test.sh NAME...      the tests of these alone, with the servers that they need:
#                              file http rbd s3 swift cinder vmware, engine facade cli docs glance
#                              kit faults services
#   tools/test.sh --quick      lint and unit tests alone, in little more than a minute
#   tools/test.sh --all        everything, and the whole kit on every configuration of each driver
#   tools/test.sh -- ARGS      everything is set up, then pytest runs with ARGS alone
#
# PYTHON names the interpreter (default: python3); the environments lie in .cache/.
# GLANCE_STORE_TEST_PROCESSES: how many processes run tests (default: five on two cores).
# GLANCE_STORE_TEST_SHUFFLE: a number; the tests run in another order for each.
# tests/README.rst shows where which tests are, and where the minutes go.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
python=${PYTHON:-python3}
source tools/environment.sh
# Most tests wait for a server rather than compute.
processes=${GLANCE_STORE_TEST_PROCESSES:-$(($(nproc) * 2 + 1))}

names=()
options=()
mode=full
while (($#)); do
    case $1 in
        --quick) mode=quick ;;
        --all) options+=(--all) ;;
        --) mode=pytest; shift; break ;;
        -*) fail "unknown argument $1; see the head of this file" ;;
        *)
            for place in "tests/drivers/$1" "tests/$1" ""; do
                [[ -d $place ]] && break
            done
            [[ $1 != */* && -n $place ]] || fail "no tests of $1; see the head of this file"
            names+=("$place"); mode=some ;;
    esac
    shift
done

tag=$(release "$python") || fail "$python does not run, or cannot make environments (Debian:" \
    "python3-venv); name another with PYTHON=/path/to/python3"
[[ $tag == 3.* && ${tag#3.} -ge 10 ]] || fail "needs Python 3.10 or later, $python is $tag"
venv="$cache/test-py${tag/./}"

# All that the run makes lies in one folder. Whatever ends this script, SIGKILL included: the reaper
# then kills what still runs, unmounts, and removes the folder.
export GLANCE_STORE_TEST_RUN
GLANCE_STORE_TEST_RUN=$(mktemp -d -t glance_store-run-XXXXXXXX)
setsid "$python" tests/services/reaper.py $$ "$GLANCE_STORE_TEST_RUN" </dev/null >/dev/null 2>&1 &
export TMPDIR=$GLANCE_STORE_TEST_RUN

# What the tests of some names need is installed before they begin: a test that waits for pip fails.
prepare() {
    local name services=() glance=
    for name in "${names[@]##*/}"; do
        case $name in
            rbd) services+=(ceph) ;;
            s3) services+=(radosgw ceph keystone swift) ;;
            swift) services+=(keystone swift radosgw ceph) ;;
            cinder) services+=(keystone cinder ceph) ;;
            vmware) services+=(vcenter) ;;
            cli | glance | services) services+=(ceph radosgw keystone swift cinder vcenter) ;;
        esac
        [[ $name != glance ]] || glance=1
    done
    [[ -z $glance ]] || "$venv/bin/python" -m tests.glance.environment &
    [[ ${#services[@]} == 0 ]] || "$venv/bin/python" -m tests.services install "${services[@]}"
    wait $!
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

run_tests() {
    local shuffle=()
    [[ -z ${GLANCE_STORE_TEST_SHUFFLE:-} ]] || shuffle=(--shuffle "$GLANCE_STORE_TEST_SHUFFLE")
    "$venv/bin/python" -m pytest -n "$processes" --max-worker-restart 3 "${shuffle[@]}" "${options[@]}" "$@"
}

unit_tests() {
    say "unit tests"
    # These compute more than they wait, and each process imports everything once more.
    processes=$(($(nproc) + 1)) run_tests -q "${unit_tests[@]}"
}

coverage_gate() {
    say "branch coverage"
    "$venv/bin/coverage" report --skip-empty
    # The parts that everything stands on have a floor of their own.
    "$venv/bin/coverage" report --fail-under=90 --skip-empty \
        --include='glance_store/transfer/*,glance_store/registry.py'
}

set_up "$python" "$venv" "${test_extras[@]}"
case $mode in
    quick)
        lint
        unit_tests
        ;;
    pytest)
        exec "$venv/bin/python" -m pytest "$@"
        ;;
    some)
        prepare
        run_tests "${names[@]}"
        ;;
    full)
        names=(services glance)
        prepare &
        preparing=$!
        lint
        # They wait for a core that nothing else wants, and are looked at in the end.
        JOBS=1 nice tools/pythons.sh >"$cache/pythons.log" 2>&1 &
        others=$!
        say "programs of servers"
        wait "$preparing"
        say "tests"
        run_tests --cov --cov-report= tests
        coverage_gate
        build_docs "$venv"
        say "other Pythons"
        wait "$others" || { cat "$cache/pythons.log"; fail "a test has failed under another Python"; }
        sed -n '/== Pythons and releases/,$p' "$cache/pythons.log"
        say "all passed"
        ;;
esac
