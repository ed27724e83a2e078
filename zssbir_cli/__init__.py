"""zssbir: zero-shot sketch-based image retrieval, from a folder of pictures to an honest number."""

__version__ = "0.1.0"
