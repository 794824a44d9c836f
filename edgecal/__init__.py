"""edgecal: honest confidence for local language models, without labels and without a GPU."""

__version__ = "0.1.0"
