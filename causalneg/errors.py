"""The one exception that users see as a sentence instead of a traceback."""


class UserError(Exception):
    """Something the user can mend: bad input, a missing file, a wrong setting.

    Its message is one sentence that names the file, row and field and says what to do. The command line
    prints it without a traceback and exits with 2.
    """
