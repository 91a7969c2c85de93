"""What an operator may set, with its default, in one place.

A setting is read from the command line first, then from the environment
(CROSSWAY_ and its name in capitals), then from here.
"""
