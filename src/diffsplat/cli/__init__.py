"""The diffsplat command line.

A subcommand is a module of this package. It offers either ``command``, a function for :mod:`tyro`, or
``COMMANDS``, a dictionary of such functions by name for a subcommand that has subcommands of its own.
:mod:`diffsplat.cli.main` imports a subcommand's module only when it is called.
"""
