"""How bad input is reported: one sentence, a non-zero exit status and no traceback."""

from __future__ import annotations

import functools
import sys
from typing import Callable


class UserError(ValueError):
    """Something the user gave is wrong.

    The message is one sentence for that user: what is wrong, where it stands, what was expected
    and how to mend it. Entry points print it without a traceback.
    """


def find_user_error(error: BaseException | None) -> UserError | None:
    """Return the innermost :class:`UserError` in the chain of causes of ``error``.

    mmengine's registries rethrow what a constructor raises under a longer message; the sentence
    meant for the user is the original one.
    """
    found = None
    seen = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, UserError):
            found = error
        error = error.__cause__ or error.__context__
    return found


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or its type when it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def command(main: Callable) -> Callable:
    """Decorate an entry point so that a :class:`UserError` ends it with one line and status 2."""

    @functools.wraps(main)
    def run(*args, **kwargs):
        try:
            return main(*args, **kwargs)
        except Exception as error:
            user_error = find_user_error(error)
            if user_error is None:
                raise
            # torch repeats an error of a worker process with the worker's traceback before it
            sentence = str(user_error).rpartition('UserError: ')[2].strip()
            print(f'error: {sentence}', file=sys.stderr)
            sys.exit(2)

    return run
