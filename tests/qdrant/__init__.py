"""A Qdrant server for the tests: a real one where there is one, else the library's own engine behind HTTP."""
