"""The words every package shares: modality, part, role. Imports nothing heavy."""

from enum import IntEnum, StrEnum
from pathlib import Path

AnyPath = str | Path
"""What the Python API takes for a file or a folder."""

FOUND_FILES = (".html", ".png", ".json", ".csv")
"""What `search --out` writes."""
EXPORT_FORMS = ("onnx", "run")
"""What `export --format` takes."""
TREC_FORMS = ("trec", "trec-all")
"""What `eval --export` takes."""
ROWS_FILES = (".npz", ".h5", ".hdf5", ".csv")
"""Files of embeddings of any program."""


class Modality(IntEnum):
    """What an image is: a sketch (query) or a photo (gallery). The value is stored in shards."""

    SKETCH = 0
    PHOTO = 1

    @property
    def word(self) -> str:
        """`sketch` or `photo`."""
        return self.name.lower()

    @property
    def plural(self) -> str:
        """`sketches` or `photos`."""
        return "sketches" if self is Modality.SKETCH else "photos"


class Role(StrEnum):
    """What a class may be used for. Unseen classes never reach training or model selection."""

    SEEN = "seen"
    VAL = "val"
    UNSEEN = "unseen"


class Part(StrEnum):
    """What an image may be used for; each shard holds one part.

    train: images of seen classes to learn from; holdout: images of seen classes kept out of training
    (queries of generalised zero-shot protocols); val: all images of held-out seen classes, for model
    selection; test: all images of unseen classes.
    """

    TRAIN = "train"
    HOLDOUT = "holdout"
    VAL = "val"
    TEST = "test"


ROLE_OF_PART = {Part.TRAIN: Role.SEEN, Part.HOLDOUT: Role.SEEN, Part.VAL: Role.VAL, Part.TEST: Role.UNSEEN}
