"""The CPU backend. Importing it imports numba, which needs a folder for compiled code that can be written."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from recli.errors import StorageError


def _cache_folder() -> str | None:
    """None where numba's own choices work (beside the package, or in the user's cache folder); else a private temporary
    folder.

    The cache holds code that will be run, so a folder that somebody else could have made is refused.
    """
    package, home = Path(__file__).parent, Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    nearest = next(folder for folder in (home, *home.parents) if folder.exists())
    if os.access(package, os.W_OK) or os.access(nearest, os.W_OK):
        return None
    folder = Path(tempfile.gettempdir()) / f"recli-numba-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    status = folder.lstat()
    if status.st_uid != os.getuid() or status.st_mode & 0o077 or folder.is_symlink():
        raise StorageError(
            "expected a folder of yours alone, for compiled code; set NUMBA_CACHE_DIR to another", file=folder
        )
    return str(folder)


if "NUMBA_CACHE_DIR" not in os.environ and (_folder := _cache_folder()):
    os.environ["NUMBA_CACHE_DIR"] = _folder

from recli.kernels.cpu.backend import CpuKernels  # noqa: E402  (numba reads the variable when it is imported)

__all__ = ["CpuKernels"]
