"""The diffsplat command line.

A verb is a module of this package. It offers either ``command``, a function for :mod:`tyro`, or ``COMMANDS``,
a dictionary of such functions by name for a verb with subcommands. :mod:`diffsplat.cli.main` imports a verb's
module only when the verb is called.
"""
