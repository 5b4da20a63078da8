"""recli: ratings in, top-K lists out. The program is `recli.cli.main`; every package below works as a library."""

__version__ = "0.1.0"
