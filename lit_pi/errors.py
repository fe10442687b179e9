"""The one error for a mistake of the person at the keyboard."""


class UserError(ValueError):
    """What is wrong, where (file, key, document), and what to do, in one sentence.

    The command line prints it as one line, without a traceback, and exits with status 2.
    """
