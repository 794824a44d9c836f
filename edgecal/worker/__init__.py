"""A worker process for code that can abort, crash or hang: llama.cpp.

Knows nothing of what the worker does: it calls a named function with a picklable argument.
"""

from edgecal.worker.process import Worker, run_in_worker

__all__ = ["Worker", "run_in_worker"]
