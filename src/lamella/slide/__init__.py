"""1. Slides: one way to open every format, and pixels at any resolution.

`open_slide` gives a `Slide`; its `read_box` reads at exactly the resolution asked for. Resolution comes from the file
or from the user and is never guessed.
"""

from lamella.slide.hashing import hash_fully, hash_quickly, list_slide_files
from lamella.slide.opening import ReaderInfo, list_formats, list_readers
from lamella.slide.resampling import ReadLevel, SourceBlock, find_halo, resample_box
from lamella.slide.resolution import Resolution
from lamella.slide.slide import MAX_UPSAMPLE, Slide, open_slide

__all__ = [
    "MAX_UPSAMPLE",
    "ReadLevel",
    "ReaderInfo",
    "Resolution",
    "Slide",
    "SourceBlock",
    "find_halo",
    "hash_fully",
    "hash_quickly",
    "list_formats",
    "list_readers",
    "list_slide_files",
    "open_slide",
    "resample_box",
]
