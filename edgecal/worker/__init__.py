"""A worker process for code that can abort, crash or hang: llama.cpp.

The worker calls any named function with a picklable argument; nothing here depends on llama.cpp.
"""

from edgecal.worker.process import Worker, run_in_worker

__all__ = ["Worker", "run_in_worker"]
