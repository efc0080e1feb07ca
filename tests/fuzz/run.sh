#!/bin/sh
# Runs a fuzz target for 20 s, divided by MPROC_TEST_SCALE, from the seeds that it makes itself. The
# input that broke it stays in the working directory: TARGET FILE runs it again.
#
# Usage: run.sh TARGET
set -eu
target=$1
seconds=$((20 / ${MPROC_TEST_SCALE:-1}))
[ "$seconds" -ge 2 ] || seconds=2
corpus=$(mktemp -d)
trap 'rm -rf "$corpus"' EXIT
MPROC_FUZZ_SEEDS=$corpus "$target"
"$target" -max_total_time=$seconds -timeout=10 -rss_limit_mb=2048 -max_len=16384 -print_final_stats=1 \
  -artifact_prefix="$PWD/$(basename "$target")." -verbosity=0 "$corpus" 2>&1
