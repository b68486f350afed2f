"""The one error class for mistakes that a user can make and mend."""


class UserError(ValueError):
    """One line that says what was found, what was expected and what to do.

    The command line prints it without a traceback and exits with status 2.
    """
