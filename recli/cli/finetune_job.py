"""What the modes of recli finetune share: the flags as one value, and the checks on their combination."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import typer

from recli.cli import options as o
from recli.cli.adapted import feature_files
from recli.cli.console import Console
from recli.cli.training import valid_share
from recli.config import FinetuneConfig, ReadConfig
from recli.errors import UsageError

BASE = ("base_users", "base_items", "base_user_ids", "base_item_ids")
# What --merge takes beside what every command does.
MERGING = ("inputs", "output", "adapter_file", "merge", *BASE, "threads", "memory_limit", "no_clobber", "device")
SHARED = ("dry_run", "json_", "stats", "log_format", "quiet", "verbose", "debug")
# Flags that some adapters alone know, and some ways to fit.
ADAPTERS_WITH = {
    "rank": ("lora", "bilinear"),
    "hidden": ("head",),
    "features": ("features",),
    "reg": ("features",),
}
NOT_WITH_HEAD = ("stay", "dropout", "old")
GRADIENT_ONLY = (
    *("loss", "negatives", "sampling", "optimizer", "learning_rate", "momentum", "schedule", "warm_up", "clip"),
    *("batch", "patience", "l1", "l2", "decay", "dropout", "checkpoint_every"),
)


@dataclass(frozen=True)
class Job:
    """One run, as its flags describe it. model: the file of the base, or None: it is made of --base-users and
    --base-items; new: tables of new interactions; sources: all that is read, each with the argument or flag that names
    it. limit: bytes of --memory-limit, or None.
    """

    flags: Mapping[str, Any]
    given: frozenset[str]
    console: Console
    config: FinetuneConfig
    reading: ReadConfig
    workers: int
    limit: int | None
    path: str
    model: str | None
    new: list[str]
    sources: list[tuple[str, str]]

    @classmethod
    def of(cls, ctx: typer.Context) -> Job:
        flags, given = dict(ctx.params), o.given_flags(ctx)
        console, workers = Console.of("finetune", flags), o.limit_threads(flags["threads"])
        tables = [flags[name] is not None for name in BASE[:2]]
        if any(tables) != all(tables):
            raise UsageError("--base-users and --base-items: give both")
        for name in BASE[2:]:
            if flags[name] is not None and not all(tables):
                raise UsageError(f"{o.flag(name)}: there are no --base-users and --base-items for it")
        inputs = list(flags["inputs"] or [])
        model = None if all(tables) else (inputs.pop(0) if inputs else None)
        if model is None and not all(tables):
            raise UsageError("nothing to do: give MODEL and NEW, or --base-users and --base-items")
        _check_mode(flags, given, inputs)
        config = o.pick(FinetuneConfig, {**flags, "trainable": _share(flags["trainable"])})
        if not flags["merge"]:
            _check_training(flags, given, config, inputs)
        sources = _sources(model, inputs, flags)
        o.check_paths([path for _, path in sources], flags["output"], flags["stats"], flags["json_"])
        piped = [name for name, path in sources if path == "-"]
        if len(piped) > 1:
            raise UsageError(f"only one of {' and '.join(dict.fromkeys(piped))} can be - (stdin)")
        ending = ".merged.factors.npz" if flags["merge"] else ".delta.npz"
        path = flags["output"] or o.default_output([model or _file_of(flags["base_users"])], ending)
        if path.lower().endswith(o.TABLES):
            raise UsageError(f"-o {path}: it is an NPZ file: give it a name that ends in .npz")
        return cls(
            flags=flags,
            given=given,
            console=console,
            config=config,
            reading=o.read_config(flags),
            workers=workers,
            limit=o.parse_size(flags["memory_limit"]),
            path=path,
            model=model,
            new=inputs,
            sources=sources,
        )

    @property
    def adapters(self) -> list[str]:
        return list(self.flags["adapter_file"] or [])

    @property
    def inputs(self) -> tuple[str, ...]:
        """Files that must not be replaced."""
        return tuple(path for _, path in self.sources)

    @property
    def base_name(self) -> str:
        """What errors call the model."""
        name = self.flags["base_users"] if self.model is None else self.model
        return "stdin" if name == "-" else str(name)


def valid_file(text: str) -> bool:
    return text != "none" and valid_share(text) is None


def _sources(model: str | None, new: list[str], flags: Mapping[str, Any]) -> list[tuple[str, str]]:
    found = [("MODEL", model)] if model is not None else []
    found += [("NEW", path) for path in new]
    if model is None:  # tables of one file are one input
        tables = {_file_of(flags[name]): o.flag(name) for name in reversed(BASE[:2])}
        found += [(name, path) for path, name in tables.items()]
    found += [(o.flag(name), flags[name]) for name in (*BASE[2:], "old") if flags[name] is not None]
    found += [("--adapter-file", path) for path in flags["adapter_file"] or []]
    found += [("--features", path) for path in feature_files(flags["features"])]
    return [*found, ("--valid", flags["valid"])] if valid_file(flags["valid"]) else found


def _file_of(address: str) -> str:
    from recli import io  # heavy, but a name may have colons, and files say which are its own

    return io.table_file(address)


def _share(text: str | None) -> float | None:
    """5% or 0.05."""
    if text is None:
        return None
    try:
        share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        share = 0
    if not 0 < share <= 1:
        raise UsageError(f"--trainable {text}: expected a share of the model's parameters, as 5%")
    return share


def _check_mode(flags: Mapping[str, Any], given: frozenset[str], new: list[str]) -> None:
    if not flags["merge"]:
        if not new and not (flags["adapter"] == "features" and flags["features"] is not None):
            raise UsageError("there is nothing to learn from: give NEW, a table of new interactions")
        return
    if new:
        raise UsageError(f"--merge: it trains nothing: leave {new[0]} out")
    for name in sorted(given - {*MERGING, *SHARED}):
        if name == "adapter":
            raise UsageError("--adapter: --merge trains nothing; --adapter-file names what is to be merged")
        raise UsageError(f"{o.flag(name)}: --merge trains nothing: leave it out")
    if not flags["adapter_file"] and flags["base_users"] is None:
        raise UsageError("--merge: there is nothing to merge: give --adapter-file")


def _check_training(flags: Mapping[str, Any], given: frozenset[str], config: FinetuneConfig, new: list[str]) -> None:
    """Refuses flags of the command line that would do nothing, or contradict each other."""
    adapter = config.adapter
    for name, adapters in ADAPTERS_WITH.items():
        if name in given and adapter not in adapters:
            raise UsageError(f"{o.flag(name)}: not for --adapter {adapter}, but for {', '.join(adapters)}")
    if adapter == "features" and flags["features"] is None:
        raise UsageError("--adapter features: there are no attributes: give --features FOLDER (recli featurize)")
    if adapter == "features" and config.fit != "gradient":
        for name in ("stay", "epochs"):
            if name in given:
                raise UsageError(
                    f"{o.flag(name)}: a ridge solves features at once: leave it out, or give --fit gradient"
                )
    if config.negatives == 0 and "sampling" in given:
        raise UsageError("--sampling: --negatives 0 draws none: leave one of them out")
    if config.fit == "gradient" and not new:
        raise UsageError("--fit gradient: it takes steps from pair to pair: give NEW, a table of new interactions")
    for name in NOT_WITH_HEAD:
        if adapter == "head" and name in given:
            raise UsageError(f"{o.flag(name)}: not for --adapter head, whose rows are frozen")
    if adapter == "head" and config.loss not in ("auto", "logistic"):
        raise UsageError(f"--loss {config.loss}: a head predicts probabilities: --loss logistic")
    for name in ("rank", "hidden"):
        if name in given and "trainable" in given:
            raise UsageError(f"{o.flag(name)} and --trainable exclude each other: the second chooses the first")
    if config.fit == "closed":
        for name in GRADIENT_ONLY:
            if name in given:
                raise UsageError(f"{o.flag(name)}: --fit closed solves, and takes no steps: leave it out")
    if "momentum" in given and config.optimizer != "sgd":
        raise UsageError(f"--momentum: for --optimizer sgd, not {config.optimizer}")
    if config.negatives == 0 and config.loss in ("bpr", "softmax"):
        raise UsageError(f"--negatives 0: --loss {config.loss} compares pairs with negatives: give at least 1")
    if flags["valid"] == "none":
        for name in ("metric", "patience"):
            if name in given:
                raise UsageError(f"{o.flag(name)}: there is no --valid for it")
    if flags["checkpoint_every"] is not None and flags["checkpoint_every"] < 1:
        raise UsageError(f"--checkpoint-every {flags['checkpoint_every']}: expected a value from 1 up")
    if flags["checkpoint_every"] and flags["output"] == "-":
        raise UsageError(
            "--checkpoint-every: a checkpoint lies beside the output, and stdout has no place: give -o FILE"
        )
    if (config.metric == "logloss") != (adapter == "head") and config.metric != "auto":
        raise UsageError(f"--metric {config.metric}: a head is measured by logloss, and nothing else is")
