"""Mutants of every kind of file that Lamella opens: none may end in a traceback, a crash, a hang or without bound."""
