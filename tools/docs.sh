#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Builds the documentation, HTML and the man page, into doc/build/. A warning is an error.
#
#   tools/docs.sh            build all of it
#   tools/docs.sh --charts   draw the charts first, from the figures in bench/results.json
#
# PYTHON names the interpreter (default: python3); the environment is that of tools/test.sh, and lies
# in .cache/. To build in an environment of your own, install the extra "docs" and run the two
# sphinx commands below: nothing is fetched from a network.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source tools/environment.sh
python=${PYTHON:-python3}

charts=
case ${1:-} in
    "") ;;
    --charts) charts=1 ;;
    *) fail "unknown argument $1; see the head of this file" ;;
esac

tag=$(release "$python") || fail "$python does not run, or cannot make environments (Debian:" \
    "python3-venv); name another with PYTHON=/path/to/python3"
venv=$cache/test-py${tag/./}
set_up "$python" "$venv" "${test_extras[@]}"
[[ -z $charts ]] || "$venv/bin/python" -m bench.charts
build_docs "$venv"
say "doc/build/html/index.html"
