"""Asking a place that may hang: in a thread of its own, and for some seconds only."""

import queue
import threading
from collections.abc import Callable
from typing import Final, TypeVar

T = TypeVar("T")


class NoAnswer(OSError):
    """The place has not answered in time; what it was asked may still be done."""


class Asker:
    """A thread that asks one thing after another. One caller at a time.

    Args:
        name: Of the thread.
        seconds: How long an answer is waited for.
    """

    def __init__(self, name: str, *, seconds: float) -> None:
        self.seconds: Final = seconds
        self._asked: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._is_free = threading.Event()
        self._is_free.set()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def ask(self, what: Callable[[], T]) -> T:
        """Return an answer, or raise what was raised.

        Raises:
            NoAnswer: If it does not come in time; at once while an earlier one is still out.
        """
        if not self._is_free.is_set():
            raise NoAnswer("the answer to an earlier question is still out")
        self._is_free.clear()
        answers: list[T] = []
        errors: list[Exception] = []

        def do() -> None:
            try:
                answers.append(what())
            except Exception as error:  # noqa: BLE001 - raised by whoever asked
                errors.append(error)
            finally:
                self._is_free.set()

        self._asked.put(do)
        if not self._is_free.wait(self.seconds):
            raise NoAnswer(f"no answer for {self.seconds:g} seconds")
        if errors:
            raise errors[0]
        return answers[0]

    def close(self) -> None:
        """End; what hangs is not waited for."""
        self._asked.put(None)
        if self._is_free.is_set():
            self._thread.join(self.seconds)

    def _run(self) -> None:
        while (do := self._asked.get()) is not None:
            do()
