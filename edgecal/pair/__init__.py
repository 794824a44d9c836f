"""Runs a pair of models on the same prompts: checks that they match, and captures the output of each in a worker.

Only the worker processes load llama.cpp. Importing this package loads nothing.
"""
