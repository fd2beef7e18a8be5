#!/usr/bin/env bash
# Plimsoll beside buildah and Docker at the image of a 10 MB executable, and beside skopeo and crane at a push of 500 MB to the
# registry at 127.0.0.1:5000, alternating, R rounds: benches/images.sh [R]
# Prints wall-clock seconds, user and system time, and peak memory of each run.
set -euo pipefail

rounds="${1:-5}"
registry="127.0.0.1:5000"
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
place="$(mktemp -d)"
trap 'rm -rf "$place"' EXIT

for program in buildah docker skopeo crane curl; do
  if ! command -v "$program" >/dev/null; then
    echo "$program is not here: install it to compare with it" >&2
    exit 2
  fi
done
curl -fsS "http://$registry/v2/" >/dev/null || { echo "no registry answers at $registry" >&2; exit 2; }

cd "$root"
cargo build --quiet --release -p plimsoll-oci --example assemble --example push_layout
examples="${CARGO_TARGET_DIR:-$root/target}/release/examples"

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

# Ten megabytes that compress as executables do: what the compiler is made of.
mkdir "$place/context"
head -c 10000000 "$(rustc --print sysroot)"/lib/librustc_driver-*.so >"$place/context/x"
printf 'FROM scratch\nCOPY x /bin/x\n' >"$place/context/Dockerfile"
storage=(--root "$place/storage" --runroot "$place/run" --storage-driver vfs)

echo "an image of 10 MB, $rounds rounds: Plimsoll for two platforms, the others for one"
for _ in $(seq "$rounds"); do
  measure plimsoll "$examples/assemble" "$place/context/x" "$(mktemp -d -p "$place")"
  measure buildah buildah "${storage[@]}" build --quiet --no-cache --tag x "$place/context"
  DOCKER_BUILDKIT=0 measure docker docker build --quiet --no-cache --tag plimsoll-bench "$place/context"
done
docker image rm --force plimsoll-bench >/dev/null

# 500 MB of noise as one layer.
mkdir "$place/noise"
head -c 500000000 /dev/urandom >"$place/noise/noise"
printf 'FROM scratch\nCOPY noise /noise\n' >"$place/noise/Dockerfile"
buildah "${storage[@]}" build --quiet --tag noise "$place/noise" >/dev/null
buildah "${storage[@]}" push --quiet --compression-format gzip noise "oci:$place/layout:noise"

echo "a push of 500 MB, $rounds rounds"
for round in $(seq "$rounds"); do
  measure plimsoll "$examples/push_layout" "$place/layout" "$registry/bench/plimsoll-$$-$round:1"
  measure skopeo skopeo copy --quiet --dest-tls-verify=false "oci:$place/layout:noise" "docker://$registry/bench/skopeo-$$-$round:1"
  measure crane crane push --insecure "$place/layout" "$registry/bench/crane-$$-$round:1"
done
