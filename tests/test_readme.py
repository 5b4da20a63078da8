"""Every command in the README runs, and says what the README says."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import duckdb
import pytest

from recli.cli.main import COMMANDS

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text("utf-8")
BLOCK = r"(<!-- [a-z ]+ -->\n)?```(\w+)\n(.*?)```"
BLOCKS = re.findall(BLOCK, README, re.DOTALL)


def blocks(language: str) -> list[str]:
    """Those without a marker above them: the two marked ones install recli, and .ci/run runs them as they stand."""
    return [body for marker, kind, body in BLOCKS if kind == language and not marker]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder as the README supposes: recli on the PATH, the sample data beside, HOME here."""
    shutil.copytree(ROOT / "sample_data", tmp_path / "sample_data")
    (tmp_path / "recli").symlink_to(tmp_path)
    shutil.copytree(ROOT / "sample_data", tmp_path / "data")
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def shell(script: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(["bash", "-euo", "pipefail", "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
    return done


def test_commands_run_in_order_and_outputs_read_as_shown(folder: Path) -> None:
    for script in blocks("sh"):
        done = shell(script)
    assert "u0001" in shell(blocks("sh")[3].splitlines()[0]).stdout
    shell("recli score ratings.factors.npz -k 10 -o recs.parquet")
    assert done.returncode == 0
    for code in blocks("python"):
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    for query in blocks("sql"):
        rows = duckdb.sql(query).fetchall()
        assert [row[1] for row in rows] == list(range(1, 11))


@pytest.mark.parametrize("page", ["recipes.md", "features.md", "finetune.md"])
def test_pages_run_in_order(page: str, folder: Path) -> None:
    for _, kind, body in re.findall(BLOCK, (ROOT / "docs" / page).read_text("utf-8"), re.DOTALL):
        if kind == "sh":
            shell(body)
        elif kind == "python":
            done = subprocess.run([sys.executable, "-c", body], capture_output=True, text=True)
            assert done.returncode == 0, f"{body}\n{done.stderr}"
        else:
            assert kind == "sql"
            assert [row[1] for row in duckdb.sql(body).fetchall()] == list(range(1, 11))


def test_quick_start_shows_recommendations(folder: Path) -> None:
    """Without its first line, which installs: .ci/run runs the whole."""
    (block,) = [body for marker, _, body in BLOCKS if "quick start" in marker]
    install, *rest = block.splitlines()
    assert "pip install" in install
    shown = shell("\n".join(rest).replace(".venv/bin/", "")).stdout.splitlines()
    assert shown[0] == "user_id,item_id,rank,score,reason"
    assert len(shown) == 11


def test_crontab_line_runs(folder: Path) -> None:
    (line,) = blocks("crontab")
    schedule, command = line.split(None, 5)[:5], line.split(None, 5)[5]
    assert all(re.fullmatch(r"[\d*,/-]+", part) for part in schedule)
    done = shell(command.replace("$HOME/venv/bin:", ""))
    assert done.stdout == ""
    assert done.stderr == ""  # cron would mail it
    assert {path.name for path in (folder / "out").iterdir()} == {"ratings.factors.npz", "quality.json", "recs.parquet"}


def test_settings_are_valid(folder: Path) -> None:
    (text,) = blocks("toml")
    assert tomllib.loads(text)
    (folder / "recli.toml").write_text(text)
    assert (
        "rank 100"
        in shell("recli factorize sample_data/ratings.csv --dry-run").stdout
        + shell("recli factorize sample_data/ratings.csv --dry-run 2>&1").stdout
    )


def test_table_of_verbs_is_honest() -> None:
    verbs = dict(re.findall(r"^\| `(\w+)` \|.*\| ([a-z ]+) \|$", README, re.MULTILINE))
    assert {verb for verb, state in verbs.items() if state == "here"} == set(COMMANDS)
