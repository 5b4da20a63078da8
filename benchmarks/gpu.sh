#!/usr/bin/env bash
# The GPU kernels on a GPU: the tests of tests/kernels, benchmarks/gpu.py and recli bench, to one JSON and a short table.
#
#     benchmarks/gpu.sh [OUT.json]        # default: benchmarks/results/gpu-DEVICE.json; under 8 minutes
#
# For a bare machine with an NVIDIA GPU, Python 3.11 or newer and CuPy 14 or newer (cupy-cuda12x or cupy-cuda13x, with
# NVRTC), without a network, from a plain copy of the repository. PYTHON= chooses the interpreter, python3 otherwise.
# A stage that fails or runs out of its time is reported and does not stop the next.
#
# Packages that are missing there are carried as wheels, in wheels/ in the repository or beside it, or in WHEELS=. They
# are installed into a temporary folder, without what they require, so all of these that the machine lacks are named:
#
#     pip download --no-deps --only-binary=:all: --python-version 3.12 --platform manylinux_2_28_x86_64 \
#         --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 -d wheels PACKAGE...
#
#     to measure    numpy scipy numba llvmlite threadpoolctl polars polars-runtime-32
#     recli, too    msgspec typer rich pydantic pydantic-core annotated-types annotated-doc typing-extensions
#                   typing-inspection shellingham markdown-it-py mdurl pygments
#     the tests     pytest iniconfig packaging pluggy pygments hypothesis sortedcontainers
#     featurize     scikit-learn joblib narwhals (nothing here needs them)
#     peers         torch; implicit tqdm, and for its GPU module rmm-cu13 librmm-cu13 (26.2 or 26.4) rapids-logger
#
# To try the script without a GPU, with the fake CuPy of the tests: SHIM=1 SYNTHETIC=60x40x300 RANKS=8 K=5, and TESTS=,
# which names the test files to run. TEST_SECONDS, BUDGET and BENCH_SECONDS limit the stages.
set -uo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-python3}
size=${SYNTHETIC:-138kx27kx20M} ranks=${RANKS:-128 64 256} k=${K:-100}
test_seconds=${TEST_SECONDS:-110} budget=${BUDGET:-200} bench_seconds=${BENCH_SECONDS:-60}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/site" "$work/tests"

for folder in "${WHEELS:-}" "$root/wheels" "$root/../wheels"; do
  if [ -n "$folder" ] && compgen -G "$folder/*.whl" >/dev/null; then
    timeout 45 "$python" -m pip install -q --no-index --no-deps --no-compile --disable-pip-version-check \
      --root-user-action=ignore --target "$work/site" "$folder"/*.whl || echo "wheels of $folder: not installed" >&2
    break
  fi
done
export PYTHONPATH="$work/site:$root${SHIM:+:$root/tests/kernels/shim}${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1

# Each file in a process of its own: after one wrong access a process can do nothing more on a GPU.
echo "tests/kernels, at most $test_seconds s"
until=$((SECONDS + test_seconds))
tests=${TESTS:-$(cd "$root" && ls tests/kernels/test_*.py | grep -v gpu_compile) tests/kernels/test_gpu_compile.py}
for file in $tests; do
  left=$((until - SECONDS)) log="$work/tests/$(basename "$file" .py)"
  if [ "$left" -gt 0 ]; then
    (cd "$root" && timeout -k 5 "$left" "$python" -m pytest "$file" -vv -k gpu --tb=short -p no:cacheprovider \
      -W default::DeprecationWarning) >"$log.log" 2>&1
    echo $? >"$log.code"
  else
    echo skipped >"$log.code"
  fi
done

echo "benchmarks/gpu.py, at most $((budget + 40)) s"
timeout -k 5 $((budget + 40)) "$python" "$root/benchmarks/gpu.py" --synthetic "$size" --rank $ranks -k "$k" \
  --budget "$budget" --json "$work/gpu.json" 2>"$work/gpu.log"
echo $? >"$work/gpu.code"
cat "$work/gpu.log" >&2

echo "recli bench, at most $bench_seconds s"
(cd "$work" && timeout -k 5 "$bench_seconds" "$python" -m recli bench --synthetic "$size" --rank "${ranks%% *}" -k "$k" \
  --races train,topk --device gpu --peers none --repeats 1 -o bench.json) >"$work/bench.log" 2>&1
echo $? >"$work/bench.code"

"$python" - "$work" "$root" "$SECONDS" "${1:-}" <<'PYTHON'
import json
import re
import sys
from pathlib import Path

work, root, seconds = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
ENDS = {0: "ok", 5: "ok", 69: "no GPU", 124: "out of time", 137: "out of time"}  # 5: pytest had nothing to run


def status(path: Path) -> str:
    code = path.read_text().strip()
    if code == "skipped":
        return "skipped: out of time"
    return ENDS.get(int(code), f"failed: exit {code}")


def last(path: Path, lines: int) -> list[str]:
    return path.read_text(errors="replace").splitlines()[-lines:]


def read(name: str) -> dict:
    path = work / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else {}


gpu, bench = read("gpu"), read("bench")
try:
    from recli.kernels.device import gpu_problem, gpu_text

    problem = gpu_problem()
    device = f"none: {problem}" if problem else gpu_text()
except Exception as error:
    device = f"none: {type(error).__name__}: {error}"
counts, wrong, files = {}, [], {}
for code in sorted((work / "tests").glob("*.code")):
    ended, log = status(code), code.with_suffix(".log")
    text = log.read_text(errors="replace") if log.exists() else ""
    files[code.stem] = {"status": ended}
    found = re.findall(r"^(\S+::.*?) (PASSED|FAILED|ERROR|SKIPPED|XFAIL|XPASS)\b", text, re.MULTILINE)
    for name, outcome in found:
        counts[outcome.lower()] = counts.get(outcome.lower(), 0) + 1
        if outcome in ("FAILED", "ERROR"):
            wrong.append(name)
    files[code.stem]["tests"] = len(found)
    if ended not in ("ok", "skipped: out of time"):
        files[code.stem]["log"] = last(log, 40)
    if ended.startswith("failed") and not any(outcome in ("FAILED", "ERROR") for _, outcome in found):
        wrong.append(code.stem)  # which did not even begin, or crashed

report = {
    "kind": "gpu benchmark",
    "device": device,
    "seconds": seconds,
    "conformance": {"counts": counts, "failed": wrong, "files": files},
    "benchmark": {"status": status(work / "gpu.code"), "log": last(work / "gpu.log", 40), **gpu},
    "bench": {"status": status(work / "bench.code"), "rows": bench.get("rows", []), "log": last(work / "bench.log", 20)},
}
passed = counts.get("passed", 0)
unfinished = [name for name, file in files.items() if not file["status"].startswith(("ok", "failed"))]
# Without a GPU they ran on the fake CuPy. What compiles needs no GPU, and may be left out.
is_known = passed and not device.startswith("none") and not set(unfinished) - {"test_gpu_compile"}
told = {"target": "tests/kernels pass", "ratio": passed / (passed + len(wrong)) if is_known else None}
report["targets"] = [told, *gpu.get("targets", [])]
slug = re.sub(r"[^a-z0-9]+", "-", re.split("[,:]", device)[0].lower()).strip("-")[:40]
out = Path(sys.argv[4] or root / "benchmarks" / "results" / f"gpu-{slug}.json")
out.parent.mkdir(parents=True, exist_ok=True)
out.write_text(json.dumps(report, indent=1) + "\n")

print(f"\n{device}; {seconds} s\ntests/kernels: {counts}" + (f"; unfinished: {unfinished}" if unfinished else ""))
for name in wrong[:20]:
    print(f"  failed: {name}")
for stage in report["benchmark"].get("stages", []):
    if stage["status"] != "ok":
        print(f"gpu.py, {stage['stage']}: {stage['status']}")
print(f"gpu.py: {report['benchmark']['status']}; recli bench: {report['bench']['status']}")
for row in report["bench"]["rows"]:
    text = f"{row['seconds']:.3f} s" if "seconds" in row else row["status"]
    print(f"  {row['race']:6} rank {row['rank']:<4} {text}")
for target in report["targets"]:
    ratio = target["ratio"]
    said = "not measured" if ratio is None else f"{'met' if ratio >= 1 else 'missed'}, {ratio:.3g} times what is asked"
    print(f"target  {target['target']:44} {said}")
print(f"wrote {out}")
PYTHON
