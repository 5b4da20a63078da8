"""Work on another thread ends as it would on this one, and does not keep signals waiting."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from recli.io.background import in_background


def test_a_result_comes_back_from_another_thread() -> None:
    assert in_background(threading.get_ident) != threading.get_ident()
    assert in_background(lambda: None) is None


@pytest.mark.parametrize("error", [ValueError("x"), KeyboardInterrupt(), SystemExit(3)])
def test_an_exception_comes_back_as_it_is(error: BaseException) -> None:
    def work() -> None:
        raise error

    with pytest.raises(type(error)) as caught:
        in_background(work)
    assert caught.value is error


def test_ctrl_c_gets_through_while_the_work_goes_on() -> None:
    release, ended = threading.Event(), threading.Event()

    def work() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        release.wait(60)
        ended.set()

    with pytest.raises(KeyboardInterrupt):
        in_background(work)
    assert not ended.is_set()
    release.set()
    assert ended.wait(60)
