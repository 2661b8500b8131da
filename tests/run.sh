#!/bin/bash
# Every test, from a bare Debian 12: installs what is missing, builds with the address and undefined-behaviour
# sanitizers into build-tests/, runs ctest. The default tier takes minutes; --full adds the tests labelled `full`, which
# make a whole Debian disk. MIRAGE_REQUIRE_ALL=1: a test that cannot run here fails instead of being skipped.
# Other arguments go to ctest: tests/run.sh -L unit.
set -euo pipefail
cd "$(dirname "$0")/.."

tier=(-LE '^full$')
packages=()
arguments=()
for argument in "$@"; do
  case $argument in
    --full) tier=() packages=(full) ;;
    -h | --help) sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0"; exit 0 ;;
    *) arguments+=("$argument") ;;
  esac
done

tests/setup.sh "${packages[@]}"
jobs=$(nproc)
launcher=()
if command -v ccache >/dev/null; then launcher=(-DCMAKE_CXX_COMPILER_LAUNCHER=ccache); fi
build=${MIRAGE_BUILD_DIR:-build-tests}
cmake -S . -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Debug -DCMAKE_CXX_FLAGS_DEBUG=-O1 -DMIRAGE_SANITIZE=address,undefined \
  -DMIRAGE_TESTS=ON -DMIRAGE_WERROR=ON "${launcher[@]}" >/dev/null
cmake --build "$build" -j "$jobs"

# The first error a sanitizer finds ends the program that made it, with a code no test expects. A daemon in the background has
# nobody who sees its code or hears it: each report is a file, and one is enough to fail.
reports=$(realpath "$build")/sanitizer-report
rm -f "$reports".*
export ASAN_OPTIONS="${ASAN_OPTIONS:-detect_leaks=1:halt_on_error=1:exitcode=99}:log_path=$reports"
export UBSAN_OPTIONS="${UBSAN_OPTIONS:-print_stacktrace=1:halt_on_error=1:exitcode=99}:log_path=$reports"
status=0
ctest --test-dir "$build" --output-on-failure -j "$jobs" "${tier[@]}" "${arguments[@]}" || status=$?
for report in "$reports".*; do
  [ -e "$report" ] || continue
  printf 'tests/run.sh: a sanitizer found, in %s:\n' "$report"
  cat "$report"
  status=1
done
exit "$status"
