"""DICOM whole-slide files, written by pydicom: one file a level, as scanners' converters write them."""

import io

import numpy as np
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import JPEGBaseline8Bit, generate_uid

TILE = 256
STORAGE = "1.2.840.10008.5.1.4.1.1.77.1.6"


def write_series(folder, levels, spacings_mm, *, prefix="i", sparse=False, kind="VOLUME"):
    """Write one slide: a file `<prefix><k>.dcm` a level; return its SeriesInstanceUID.

    Args:
        folder: Where to.
        levels: `(h, w, 3)` uint8 each, finest first.
        spacings_mm: Of each level; None states none.
        prefix: What file names begin with.
        sparse: Whether empty tiles are left out (TILED_SPARSE).
        kind: Third value of ImageType.
    """
    folder.mkdir(parents=True, exist_ok=True)
    uids = [generate_uid() for _ in range(3)]
    for k, (level, spacing) in enumerate(zip(levels, spacings_mm, strict=True)):
        image = _describe(level, uids, k + 1, kind)
        _add_frames(image, level, spacing, sparse=sparse)
        image.save_as(folder / f"{prefix}{k}.dcm", enforce_file_format=True)
    return str(uids[0])


def _describe(level, uids, number, kind):
    image, meta = Dataset(), FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = STORAGE, generate_uid()
    meta.TransferSyntaxUID = JPEGBaseline8Bit
    image.file_meta = meta
    image.SOPClassUID, image.SOPInstanceUID = STORAGE, meta.MediaStorageSOPInstanceUID
    image.SeriesInstanceUID, image.StudyInstanceUID, image.FrameOfReferenceUID = uids
    image.Modality, image.InstanceNumber, image.PatientID, image.PatientName = "SM", number, "x", "x"
    image.ImageType = ["DERIVED", "PRIMARY", kind, "RESAMPLED" if number > 1 else "NONE"]
    image.TotalPixelMatrixRows, image.TotalPixelMatrixColumns = level.shape[:2]
    image.Rows = image.Columns = TILE
    image.SamplesPerPixel, image.PhotometricInterpretation, image.PlanarConfiguration = 3, "YBR_FULL_422", 0
    image.BitsAllocated = image.BitsStored = 8
    image.HighBit, image.PixelRepresentation = 7, 0
    image.ImagedVolumeWidth, image.ImagedVolumeHeight, image.ImagedVolumeDepth = 1.0, 0.75, 0.001
    image.TotalPixelMatrixFocalPlanes = image.NumberOfOpticalPaths = 1
    path = Dataset()
    path.OpticalPathIdentifier, path.ObjectiveLensPower = "1", 20
    image.OpticalPathSequence = Sequence([path])
    return image


def _add_frames(image, level, spacing, *, sparse):
    tiles = _cut(level)
    kept = [tile for tile in tiles if not (sparse and tile[2].std() < 4)]
    shared = Dataset()
    if spacing is not None:
        measures = Dataset()
        measures.PixelSpacing, measures.SliceThickness = [spacing, spacing], 0.001
        shared.PixelMeasuresSequence = Sequence([measures])
    image.SharedFunctionalGroupsSequence = Sequence([shared])
    image.DimensionOrganizationType = "TILED_SPARSE" if sparse else "TILED_FULL"
    if sparse:
        groups = []
        for x, y, _ in kept:
            frame, position, content = Dataset(), Dataset(), Dataset()
            position.ColumnPositionInTotalImagePixelMatrix = x * TILE + 1
            position.RowPositionInTotalImagePixelMatrix = y * TILE + 1
            for axis in "XYZ":
                setattr(position, f"{axis}OffsetInSlideCoordinateSystem", 0)
            content.DimensionIndexValues = [x + 1, y + 1]
            frame.PlanePositionSlideSequence, frame.FrameContentSequence = Sequence([position]), Sequence([content])
            groups.append(frame)
        image.PerFrameFunctionalGroupsSequence = Sequence(groups)
    image.NumberOfFrames = len(kept)
    image.PixelData = encapsulate([_jpeg(tile) for *_, tile in kept], has_bot=True)
    image["PixelData"].VR = "OB"
    image["PixelData"].is_undefined_length = True


def _cut(level):
    rows, columns = (-(-n // TILE) for n in level.shape[:2])
    whole = np.full((rows * TILE, columns * TILE, 3), 243, np.uint8)
    whole[: level.shape[0], : level.shape[1]] = level
    return [
        (x, y, whole[y * TILE : (y + 1) * TILE, x * TILE : (x + 1) * TILE]) for y in range(rows) for x in range(columns)
    ]


def _jpeg(tile):
    stream = io.BytesIO()
    Image.fromarray(tile).save(stream, "JPEG", quality=92, subsampling=0)
    return stream.getvalue()
