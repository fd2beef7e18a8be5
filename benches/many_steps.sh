#!/usr/bin/env bash
# Plimsoll beside ninja and make at N commands `true`, alternating, R rounds: benches/many_steps.sh [N] [R]
# Prints wall-clock seconds, user and system time, and peak memory of each run.
set -euo pipefail

commands="${1:-10000}"
rounds="${2:-3}"
jobs="$(nproc)"
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
place="$(mktemp -d)"
trap 'rm -rf "$place"' EXIT

for program in ninja make; do
  if ! command -v "$program" >/dev/null; then
    echo "$program is not here: install it to compare with it" >&2
    exit 2
  fi
done

cd "$root"
cargo build --quiet --release -p plimsoll-engine --example many_steps
plimsoll="${CARGO_TARGET_DIR:-$root/target}/release/examples/many_steps"

cd "$place"
awk -v n="$commands" 'BEGIN {
  print "rule t\n  command = true"
  for (i = 1; i <= n; i++) printf "build o%d: t\n", i
}' >build.ninja
awk -v n="$commands" 'BEGIN {
  printf ".PHONY: all"; for (i = 1; i <= n; i++) printf " t%d", i
  printf "\nall:"; for (i = 1; i <= n; i++) printf " t%d", i
  print ""; for (i = 1; i <= n; i++) printf "t%d:\n\t@/bin/true\n", i
}' >Makefile

# The shell's own `time` knows no memory; GNU time need not be installed.
measure() {
  local name="$1"
  shift
  python3 - "$name" "$@" <<'PYTHON'
import os, resource, subprocess, sys, time
name, command = sys.argv[1], sys.argv[2:]
begun = time.monotonic()
code = subprocess.run(command, stdout=subprocess.DEVNULL).returncode
wall = time.monotonic() - begun
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(f"{name:9} {wall:6.2f} s  user {used.ru_utime:5.2f} s  system {used.ru_stime:5.2f} s  {used.ru_maxrss // 1024:4} MB  load {os.getloadavg()[0]:.1f}")
sys.exit(code)
PYTHON
}

echo "$commands commands, $jobs jobs, $rounds rounds"
for _ in $(seq "$rounds"); do
  measure plimsoll "$plimsoll" "$(mktemp -d -p "$place")" true "$commands"
  measure ninja ninja -j "$jobs" --quiet
  measure make make -s -j "$jobs" all
done
idle="$(mktemp -d -p "$place")"
"$plimsoll" "$idle" idle "$commands" >/dev/null
for _ in $(seq "$rounds"); do
  measure cached "$plimsoll" "$idle" idle "$commands"
done
