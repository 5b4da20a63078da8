"""What do the GPU's tests find? One fault at a time is put into the kernels, and the tests run: python -m
tests.kernels.mutate [FILE...].

Faults are made by RULES from the text of the .cu files and of prims.cuh (what only a GPU compiles is left out), in
copies of the project, one for each worker. A fault is killed where tests fail, crash or hang. Those that make the same
machine code are counted apart, as are those that do not build; what survives is listed, to be judged by a person: some
are no faults (a barrier too many, a check that spares work). Where --most leaves faults out, --seed draws them, rule
by rule in turn, but every barrier is tried.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import NamedTuple

from recli.kernels.gpu import sources

ROOT = Path(__file__).parents[2]
COPIED = ("recli", "tests", "sample_data", "pyproject.toml")
KERNELS = "recli/kernels/gpu"
TESTS = {  # of tests/kernels, which a file's faults are put to; of prims.cuh: all
    "gram.cu": ("gpu_products", "gpu_half_sweep", "gpu_memory", "products", "conformance"),
    "pairs.cu": ("pairs", "touched"),
    "product.cu": ("gpu_products", "gpu_memory", "products"),
    "rows.cu": ("touched", "products", "gpu_half_sweep"),
    "nominate.cu": ("gpu_topk", "topk"),
    "solve.cu": ("gpu_half_sweep", "gpu_memory", "conformance"),
    "topk.cu": ("gpu_topk", "topk"),
}
OTHERS = ("gpu_memory",)
OUTCOMES = ("failed", "crashed", "hung", "survived", "same code", "did not build")
BUILD = """
import hashlib, sys, cupy, recli
from pathlib import Path
from recli.kernels.gpu import sources
assert recli.__file__.startswith(sys.argv[1]), recli.__file__
for file in sys.argv[2:]:
    print(hashlib.sha256(Path(cupy.build(sources.source(file))[0]._name).read_bytes()).hexdigest())
"""


def _other(match: re.Match[str]) -> str:
    """A whole number one off, up where it is even."""
    number = int(match[0])
    return str(number + (1 if number % 2 == 0 else -1))


RULES: dict[str, list[tuple[str, str | Callable[[re.Match[str]], str]]]] = {
    "barrier": [(r"__sync(threads|warp)\([^()]*\);", ";")],
    "lanes": [(r"\bEVERY\b", "0xFFFFu")],
    "bound": [(" < ", " <= "), (" <= ", " < "), (" >= ", " > "), (" > ", " >= ")],
    "equal": [(" == ", " != "), (" != ", " == ")],
    "logic": [(" && ", " || "), (r" \|\| ", " && "), (r"!(?=[\w(])", "")],
    "choice": [(r"(?<=[(=] )(\w+)(?= \? )", r"!\1"), (r" \? ([^?:]+) : ([^?:;,()]+)(?=[;,)])", r" ? \2 : \1")],
    "arithmetic": [(r" \+ ", " - "), (" - ", " + "), (r" \* ", " / "), (" / ", " * "), (" % ", " / ")],
    "bits": [(" & ", " | "), (" >> ", " << "), (r" \^ ", " | "), (r" \| ", " & ")],
    "update": [(r" \+= (?![^();]*\))", " = "), (r" -= (?![^();]*\))", " += "), (r" \*= ", " = "), (r" \|= ", " = ")],
    "factor": [(r" \* -?[A-Za-z_][\w.]*(\[\w+\])?(?=[;,)\s])", "")],
    "term": [(r" [+-] [\w.]+(\[\w+\])?(?=[;,)\]])", "")],
    "swap": [(r"(?<![\w.])(\w+) \* (\w+) \+ (\w+)\b(?![.(\[])", r"\3 * \2 + \1"), (r"\[(\w+)\]\[(\w+)\]", r"[\2][\1]")],
    "extreme": [(r"\bmin\(", "max("), (r"\bmax\(", "min("), ("fmaxf", "fminf"), ("fminf", "fmaxf")],
    "flag": [(r"\btrue\b", "false"), (r"\bfalse\b", "true")],
    "exit": [(r"\bif \(.*\) (return|continue|break);", ";")],
    "whole": [(r"(?<![\w.])\d+(?![\w.])", _other)],
    "float": [(r"(?<![\w.])0\.f", "1.f"), (r"(?<![\w.])1\.f", "0.5f"), (r"(?<![\w.])2\.f", "1.f")],
}


class Fault(NamedTuple):
    file: str
    line: int  # from 1
    rule: str
    old: str  # the line
    new: str


def faults(file: str) -> Iterator[Fault]:
    """All that RULES make of FILE."""
    gpu_only = False
    for number, line in enumerate((ROOT / KERNELS / file).read_text().splitlines(), 1):
        gpu_only = (gpu_only or line.startswith("#ifndef RECLI_SHIM")) and "#endif  // RECLI_SHIM" not in line
        code = re.split(r"//", line)[0]
        if gpu_only or not code.strip() or re.match(r"\s*(#(?!define)|template|typedef|struct)", code):
            continue
        code = re.sub(r'"[^"]*"|__launch_bounds__\([^)]*\)', lambda text: "\0" * len(text[0]), code)
        seen = {line}
        for rule, pairs in RULES.items():
            for pattern, replacement in pairs:
                for match in re.finditer(pattern, code):
                    put = replacement(match) if callable(replacement) else match.expand(replacement)
                    new = line[: match.start()] + put + line[match.end() :]
                    if new not in seen:
                        seen.add(new)
                        yield Fault(file, number, rule, line, new)


def drawn(file: str, most: int, seed: int) -> list[Fault]:
    """Every barrier's, then the other rules' in turn."""
    found = list(faults(file))
    of_rule = {rule: [fault for fault in found if fault.rule == rule] for rule in RULES}
    draw = random.Random(f"{seed} {file}")
    chosen = of_rule.pop("barrier")
    for rest in of_rule.values():
        draw.shuffle(rest)
    while len(chosen) < most and any(of_rule.values()):
        chosen += [rest.pop() for rest in of_rule.values() if rest]
    return sorted(chosen[: max(most, sum(fault.rule == "barrier" for fault in found))])


class Worker:
    """A copy of the project, in which one file at a time has a fault."""

    def __init__(self, folder: Path, tests: tuple[str, ...], deselect: str) -> None:
        self.folder, self.tests, self.deselect = folder, tests, deselect
        for name in COPIED:
            copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy2
            copy(ROOT / name, folder / name)
        (folder / "tmp").mkdir()
        shim = folder / "tests/kernels/shim"
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("RECLI_")},
            "PYTHONPATH": f"{folder}{os.pathsep}{shim}",
            "TMPDIR": str(folder / "tmp"),  # where the shim keeps what it built
            "XDG_CACHE_HOME": str(folder / "cache"),
            "CUDA_VISIBLE_DEVICES": "",
        }
        self.code: dict[str, list[str]] = {}
        self.seconds: dict[tuple[str, ...], float] = {}

    def prepare(self, files: list[str]) -> None:
        """Runs the tests without a fault: they must pass, and how long they take is the measure of hanging."""
        for file in files:
            _, self.code[file] = self._build(file)
            suite = self._suite(file)
            if suite not in self.seconds:
                self._test(suite, 3600)  # compiles what is kept for the next run
                start = time.perf_counter()
                code = self._test(suite, 3600)
                self.seconds[suite] = time.perf_counter() - start
                if code:
                    raise SystemExit(f"without a fault, the tests of {file} fail ({code}): {' '.join(suite)}")

    def outcome(self, fault: Fault) -> str:
        path = self.folder / KERNELS / fault.file
        text = path.read_text()
        lines = text.splitlines(keepends=True)
        assert lines[fault.line - 1] == fault.old + "\n"
        lines[fault.line - 1] = fault.new + "\n"
        path.write_text("".join(lines))
        try:
            built, code = self._build(fault.file)
            if not built:
                return "did not build"
            if code == self.code[fault.file]:
                return "same code"
            suite = self._suite(fault.file)
            status = self._test(suite, 15 + 4 * self.seconds[suite])
        finally:
            path.write_text(text)
        if status is None:
            return "hung"
        if status < 0:
            return "crashed"
        return {0: "survived", 1: "failed"}[status]

    def _build(self, file: str) -> tuple[bool, list[str]]:
        """Whether what has FILE in it builds, and the code's hashes."""
        of = sources.names() if file == "prims.cuh" else [file.removesuffix(".cu")]
        command = [sys.executable, "-c", BUILD, str(self.folder), *of]
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, cwd=self.folder)
        if done.returncode and "ShimError" not in done.stderr:
            raise RuntimeError(done.stderr)
        return not done.returncode, done.stdout.split()

    def _suite(self, file: str) -> tuple[str, ...]:
        if self.tests:
            return self.tests
        every = {name for names in TESTS.values() for name in names}.union(OTHERS)
        names = (
            sorted(every, key=lambda name: (name[:3] != "gpu", name))
            if file == "prims.cuh"
            else TESTS.get(file, OTHERS)
        )
        paths = [f"tests/kernels/test_{name}.py" for name in names]
        return tuple(path for path in paths if (self.folder / path).exists())

    def _test(self, suite: tuple[str, ...], limit: float) -> int | None:
        """Pytest's exit status; None: it took longer."""
        options = ["-x", "-q", "-p", "no:cacheprovider", "-k", self.deselect, *suite]
        command = [sys.executable, "-m", "pytest", *options]
        quiet = subprocess.DEVNULL
        with subprocess.Popen(
            command, env=self.environment, cwd=self.folder, stdout=quiet, stderr=quiet, start_new_session=True
        ) as process:
            try:
                return process.wait(limit)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                return None


def report(results: list[tuple[Fault, str]]) -> None:
    def table(key: Callable[[Fault], str], names: list[str]) -> None:
        print(f"{'':12}{'faults':>8}{'killed':>8}" + "".join(f"{outcome:>15}" for outcome in OUTCOMES))
        for name in [*names, "all"]:
            count = Counter(outcome for fault, outcome in results if name in ("all", key(fault)))
            killed = sum(count[outcome] for outcome in OUTCOMES[:3])
            print(f"{name:12}{count.total():8}{killed:8}" + "".join(f"{count[outcome]:15}" for outcome in OUTCOMES))
        print()

    table(lambda fault: fault.file, sorted({fault.file for fault, _ in results}))
    table(lambda fault: fault.rule, [rule for rule in RULES if any(fault.rule == rule for fault, _ in results)])
    print("Survivors:")
    for fault, outcome in sorted(results):
        if outcome == "survived":
            print(f"{fault.file}:{fault.line} {fault.rule}\n  - {fault.old.strip()}\n  + {fault.new.strip()}")


def main() -> None:
    every = [*(f"{name}.cu" for name in sources.names()), "prims.cuh"]
    parser = argparse.ArgumentParser(description="What do the GPU's tests find?")
    parser.add_argument("files", nargs="*", default=every, help=f"of {', '.join(every)}")
    parser.add_argument("--most", type=int, default=60, help="faults of a file (60)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--tests", nargs="+", default=(), help="for pytest, instead of those that TESTS has for a file")
    parser.add_argument("--keyword", default="gpu and not compile", help="for pytest's -k (gpu and not compile)")
    arguments = parser.parse_args()
    chosen = [fault for file in arguments.files for fault in drawn(file, arguments.most, arguments.seed)]
    made = Counter(fault.file for file in arguments.files for fault in faults(file))
    start = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="recli-faults-") as folder:
        idle: SimpleQueue[Worker] = SimpleQueue()
        results: list[tuple[Fault, str]] = []

        def prepare(number: int) -> None:
            place = Path(folder).resolve() / str(number)
            place.mkdir()
            worker = Worker(place, tuple(arguments.tests), arguments.keyword)
            worker.prepare(arguments.files)
            idle.put(worker)

        def judge(fault: Fault) -> None:
            worker = idle.get()
            try:
                results.append((fault, worker.outcome(fault)))
            finally:
                idle.put(worker)
            took = time.perf_counter() - start
            print(
                f"{len(results)}/{len(chosen)} {took:.0f} s {fault.file}:{fault.line} {fault.rule}: {results[-1][1]}",
                file=sys.stderr,
                flush=True,
            )

        with ThreadPoolExecutor(arguments.workers) as pool:
            list(pool.map(prepare, range(arguments.workers)))
            list(pool.map(judge, chosen))
    digest = hashlib.sha256("".join(map(sources.source, sources.names())).encode()).hexdigest()[:12]
    print(
        f"Sources {digest}, seed {arguments.seed}, {time.perf_counter() - start:.0f} s; faults that could be made: "
        + ", ".join(f"{file} {count}" for file, count in made.items())
        + "\n"
    )
    report(results)


if __name__ == "__main__":
    main()
