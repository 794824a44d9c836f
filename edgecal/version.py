"""edgecal's version, in a module of its own so that every part can name it without importing the whole package."""

__version__ = "0.9.0"
