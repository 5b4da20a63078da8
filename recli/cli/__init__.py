"""The command line: flags to configs, steps in order, errors to exit codes. Heavy imports happen inside commands:
--help is quick.
"""
