"""The GPU backend. Nothing but cuda.py imports CuPy, and only when a GPU is used."""
