"""Two models on the same prompts: whether they belong together, and what each one says.

Knows llama.cpp only through the worker that runs it; knows nothing of temperatures.
"""
