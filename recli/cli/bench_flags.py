"""What the flags of recli bench may say together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from recli.cli import options as o
from recli.errors import UsageError

NOTHING = ("none", "")


def check_sources(flags: Mapping[str, Any], inputs: Sequence[str], given: frozenset[str]) -> None:
    """One source of data, and no flag that would do nothing with it."""
    pair = [flags[name] for name in ("train", "test")]
    if any(pair) and not all(pair):
        raise UsageError("--train and --test go together: give both")
    sources = {"INPUT": bool(inputs), "--train and --test": all(pair), "--synthetic": flags["synthetic"] is not None}
    used = [name for name, there in sources.items() if there]
    if len(used) > 1:
        raise UsageError(f"{' and '.join(used)} exclude each other")
    if not used and flags["scale"] is None:
        raise UsageError("nothing to measure on: give INPUT, --train and --test, --synthetic or --scale")
    unused = {
        "--train and --test": ("split", "test_share"),
        "--synthetic": ("columns", "where", "no_header", "input_format"),
    }
    for source in used:
        for name in unused.get(source, ()):
            if name in given:
                raise UsageError(f"{o.flag(name)}: not with {source}")
    if flags["synthetic"] is not None and flags["split"] in ("last", "time"):
        raise UsageError(f"--split {flags['split']}: synthetic pairs have no times: give random or users")


def chosen(flag: str, text: str, names: Sequence[str]) -> tuple[str, ...]:
    """Of all, none, or names with commas. Raises UsageError."""
    if text == "all":
        return tuple(names)
    if text in NOTHING:
        return ()
    found = tuple(dict.fromkeys(part.strip() for part in text.split(",")))
    for name in found:
        if name not in names:
            raise UsageError(f"{flag} {text}: expected all, none, or some of {', '.join(names)}, found {name!r}")
    return found


def check_charts() -> None:
    import importlib.util

    if importlib.util.find_spec("matplotlib") is None:
        raise UsageError("--html needs matplotlib for its charts: pip install 'recli[bench]'")


def check_outputs(flags: Mapping[str, Any], inputs: Sequence[str]) -> None:
    """One result on stdout, and what --html needs."""
    o.check_paths([*inputs, flags["train"], flags["test"], flags["baseline"]], flags["output"], None, flags["json_"])
    outputs = {"-o": flags["output"], "--html": flags["html"], "--rows": flags["rows"]}
    for flag, path in outputs.items():
        if path is not None and (not path or (path.startswith("-") and path != "-")):
            raise UsageError(f"{flag} {path!r}: expected a file's name (is a shell variable not set?)")
    if [*outputs.values(), "-" if flags["json_"] else None].count("-") > 1:
        raise UsageError("only one of -o, --html, --rows and --json can have stdout: write the others to files")
    if flags["html"]:
        check_charts()
