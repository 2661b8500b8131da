#!/bin/bash
# Fuzzes every decoder, or those named, each for SECONDS (60): tests/fuzz/run.sh [SECONDS [TARGET...]]. Builds them with
# clang (tests/setup.sh fuzz installs it; CXX chooses one) into build-fuzz/. What is new and interesting goes to
# build-fuzz/corpus/TARGET; MIRAGE_KEEP=1 merges it, minimised, into tests/fuzz/corpus/. Fails when a fuzzer finds something.
set -euo pipefail
cd "$(dirname "$0")/../.."
seconds=${1:-60}
[ $# = 0 ] || shift
tests/setup.sh fuzz
build=${MIRAGE_BUILD_DIR:-build-fuzz}
launcher=()
if command -v ccache >/dev/null; then launcher=(-DCMAKE_CXX_COMPILER_LAUNCHER=ccache); fi
cmake -S . -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DCMAKE_CXX_COMPILER="${CXX:-clang++-16}" -DMIRAGE_FUZZ=ON \
  "${launcher[@]}" >/dev/null
targets=("$@")
[ $# -gt 0 ] || mapfile -t targets < <(cd tests/fuzz/corpus && ls)
cmake --build "$build" --target "${targets[@]/#/fuzz_}"

# The limits that store/FORMAT.md and tests/fuzz/decoders.h state; the process itself takes some 300 MB of the resident set.
limits=(-malloc_limit_mb=64 -rss_limit_mb=512 -timeout=10 -max_len=65536)
failed=0
for target in "${targets[@]}"; do
  kept=tests/fuzz/corpus/$target found=$build/corpus/$target
  mkdir -p "$found"
  echo "== $target: $seconds s" >&2
  "$build/bin/fuzz_$target" "${limits[@]}" -max_total_time="$seconds" -print_final_stats=1 \
    -artifact_prefix="$build/$target-" "$found" "$kept" 2>"$build/$target.log" || {
    failed=1
    tail -30 "$build/$target.log" >&2
    continue
  }
  grep -E 'stat::(number_of_executed_units|peak_rss_mb)' "$build/$target.log" >&2
  if [ "${MIRAGE_KEEP:-0}" = 1 ]; then "$build/bin/fuzz_$target" "${limits[@]}" -merge=1 "$kept" "$found" 2>/dev/null; fi
done
exit "$failed"
