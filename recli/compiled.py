"""numba, which needs a folder for compiled code that can be written. To be imported from here: it reads where that is
when it is imported.
"""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

from recli.errors import StorageError


def cache_folder() -> str:
    """recli/ in the user's cache folder; where that cannot be written, a private temporary folder.

    Not beside the package, numba's first choice: what it leaves there outlives an uninstall, and an import of a later
    editable install finds the leftover folder. The cache holds code that will be run, so a temporary folder that
    somebody else could have made is refused.
    """
    usual = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    if _may_make(usual):
        return str(Path(usual).expanduser() / "recli")
    hint = "expected a folder of yours alone, for compiled code; set NUMBA_CACHE_DIR to another"
    try:
        folder = Path(tempfile.gettempdir()) / f"recli-numba-{os.getuid()}"
        folder.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise StorageError(hint, file=error.filename) from error
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise StorageError(hint, file=folder)
    return str(folder)


def _may_make(path: str) -> bool:
    """Can the folder be written to, or be made?"""
    try:
        folder = Path(path).expanduser()
    except RuntimeError:  # a user without a home
        return False
    # os.path, not pathlib, whose exists() raises where a folder on the way may not be entered (another user's HOME)
    return os.access(next(at for at in (folder, *folder.parents) if os.path.exists(at)), os.W_OK)


if "NUMBA_CACHE_DIR" not in os.environ:
    os.environ["NUMBA_CACHE_DIR"] = cache_folder()

import numba as nb  # noqa: E402

__all__ = ["cache_folder", "nb"]
