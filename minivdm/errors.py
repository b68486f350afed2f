"""The one error class for mistakes that a user can make and mend."""

import unicodedata


class UserError(ValueError):
    """One line that says what was found, what was expected and what to do.

    The command line prints it without a traceback and exits with status 2. It stays one line whatever is in it: names
    of files may hold line breaks.
    """

    def __init__(self, message: object):
        super().__init__(printable(str(message)))


def printable(text: str) -> str:
    r"""The text with line breaks, control characters and marks that turn the direction written out, as in "a\nb"."""
    return "".join(
        letter if letter.isprintable() or unicodedata.category(letter) == "Zs" else _written_out(letter)
        for letter in text
    )


def _written_out(letter: str) -> str:
    return letter.encode("unicode_escape").decode()
