"""1. Slides: one way to open every format, and pixels at any resolution.

`open_slide` gives a `Slide`; its `read_box` reads at exactly the resolution asked for. Resolution comes from the file
or from the user and is never guessed.
"""

from lamella.slide.frame import Bounds, describe_frame, find_scan_part, move_to_canvas, to_canvas, to_scan
from lamella.slide.hashing import hash_fully, hash_quickly, hash_readable, list_slide_files
from lamella.slide.listing import list_slides
from lamella.slide.opening import ReaderInfo, list_formats, list_readers
from lamella.slide.resampling import ReadLevel, SourceBlock, find_halo, resample_box
from lamella.slide.resolution import Resolution
from lamella.slide.slide import MAX_UPSAMPLE, Slide, open_slide

__all__ = [
    "MAX_UPSAMPLE",
    "Bounds",
    "ReadLevel",
    "ReaderInfo",
    "Resolution",
    "Slide",
    "SourceBlock",
    "describe_frame",
    "find_halo",
    "find_scan_part",
    "hash_fully",
    "hash_quickly",
    "hash_readable",
    "list_formats",
    "list_readers",
    "list_slide_files",
    "list_slides",
    "move_to_canvas",
    "open_slide",
    "resample_box",
    "to_canvas",
    "to_scan",
]
