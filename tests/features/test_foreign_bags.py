"""Bags of AtlasPatch, Mussel, slide2vec and LazySlide, and embeddings of whole slides, are read as is meant."""

from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from lamella.errors import BagError
from lamella.features.layouts import load_bag, open_bag
from tests.features.foreign import (
    COORDS,
    FEATURES,
    OTHERS,
    SLIDE_SIZE,
    VECTOR,
    write_atlaspatch,
    write_atlaspatch_patient,
    write_lazyslide,
    write_mussel,
    write_slide2vec,
    write_slide2vec_slide,
    write_stamp_slide,
    write_trident_slide,
)

BOTH = {"uni_v1": FEATURES, "resnet50": OTHERS}


def test_a_slide_embedding_of_trident_is_a_bag_of_one_instance_named_by_its_folder(tmp_path: Path):
    bag = load_bag(write_trident_slide(tmp_path))
    assert (bag.layout, bag.encoder, bag.slide_id, bag.shape) == ("trident", "titan", "S-1", (1, 12))
    assert bag.is_slide_embedding
    assert (bag.features == VECTOR).all()
    assert bag.coords_l0 is None  # those in the file are of the tiles it was made from
    assert bag.slide_size == SLIDE_SIZE


@pytest.mark.parametrize("feat_type", ["slide", "patient"])
def test_a_slide_embedding_of_stamp_is_a_bag_of_one_instance(tmp_path: Path, feat_type: str):
    bag = load_bag(write_stamp_slide(tmp_path / "S-1.h5", feat_type=feat_type))
    assert (bag.layout, bag.encoder, bag.shape, bag.is_slide_embedding) == ("stamp", "chief", (1, 12), True)
    assert (bag.features == VECTOR).all()


def test_a_vector_alone_is_a_slide_embedding_of_no_stated_tool(tmp_path: Path):
    with h5py.File(tmp_path / "S-1.features.h5", "w") as file:  # Mussel's, of TITAN: no coords, no attributes
        file["features"] = VECTOR
    with h5py.File(tmp_path / "mean.h5", "w") as file:  # Mussel's, of the mean
        file["features"] = VECTOR[None]
    torch.save(torch.from_numpy(VECTOR), tmp_path / "S-1.pt")
    np.savez(tmp_path / "S-1.npz", features=VECTOR)
    for name in ("S-1.features.h5", "mean.h5", "S-1.pt", "S-1.npz"):
        bag = load_bag(tmp_path / name)
        assert (bag.shape, bag.is_slide_embedding, bag.encoder) == ((1, 12), True, None)
        assert (bag.features == VECTOR).all()
    assert load_bag(tmp_path / "S-1.features.h5").slide_id == "S-1"


def test_atlaspatch_is_read_by_encoder(tmp_path: Path):
    path = write_atlaspatch(tmp_path / "patches" / "S-1.h5", BOTH, slide=True)
    for encoder, rows in BOTH.items():
        for bag in (load_bag(Path(f"{path}#{encoder}")), load_bag(path, encoder=encoder)):
            assert (bag.layout, bag.encoder, bag.slide_id) == ("atlaspatch", encoder, "S-1")
            assert (bag.features == rows).all()
            assert (bag.coords_l0 == COORDS).all()
            assert (bag.tile_px, bag.tile_l0, bag.slide_size) == (256, (512, 512), SLIDE_SIZE)
            assert bag.mpp == pytest.approx(0.5)  # 512 px of 0.25 um, the slide's, seen as 256 px
    assert load_bag(path, encoder="uni_v1", slide_mpp=0.3).mpp == pytest.approx(0.6)


def test_an_encoder_must_be_named_where_several_are(tmp_path: Path):
    path = write_atlaspatch(tmp_path / "S-1.h5", BOTH)
    with pytest.raises(BagError, match=r"2 encoders: resnet50, uni_v1\. Name one after a #: 'S-1\.h5#resnet50'"):
        open_bag(path)
    with pytest.raises(BagError, match=r"no embeddings of encoder 'uni2'; it has resnet50, uni_v1"):
        open_bag(path, encoder="uni2")


def test_one_encoder_alone_is_taken_and_a_stopped_one_is_not_seen(tmp_path: Path):
    path = write_atlaspatch(tmp_path / "S-1.h5", {"uni_v1": FEATURES, "__tmp_resnet50": OTHERS[:2]})
    assert open_bag(path).encoder == "uni_v1"


def test_atlaspatch_s_slide_and_patient_embeddings_are_read(tmp_path: Path):
    path = write_atlaspatch(tmp_path / "S-1.h5", BOTH, slide=True)
    for name in ("titan", "slide_features/titan"):
        bag = load_bag(path, encoder=name)
        assert (bag.encoder, bag.shape, bag.is_slide_embedding, bag.coords_l0) == ("titan", (1, 12), True, None)
        assert (bag.features == VECTOR).all()
    bag = load_bag(write_atlaspatch_patient(tmp_path / "P-1.h5"))
    assert (bag.layout, bag.encoder, bag.shape) == ("atlaspatch", "moozy", (1, 12))


def test_atlaspatch_s_tiles_without_embeddings_are_no_bag(tmp_path: Path):
    path = write_atlaspatch(tmp_path / "S-1.h5", {})
    with pytest.raises(BagError, match="tiles and no embeddings"):
        open_bag(path)


def test_atlaspatch_s_boxes_must_be_five_wide(tmp_path: Path):
    path = write_atlaspatch(tmp_path / "S-1.h5", {"uni_v1": FEATURES})
    with h5py.File(path, "a") as file:
        del file["coords"]
        file["coords"] = COORDS
    with pytest.raises(BagError, match=r"shape \(5, 2\) and AtlasPatch's is \(tiles, 5\), pixels"):
        open_bag(path)


@pytest.mark.parametrize("inner", ["features", "features/uni_v1"])
def test_embeddings_that_lie_in_another_file_are_refused(tmp_path: Path, inner: str):
    other = write_atlaspatch(tmp_path / "other.h5", {"uni_v1": FEATURES})
    path = write_atlaspatch(tmp_path / "S-1.h5", {"uni_v1": FEATURES})
    with h5py.File(path, "a") as file:
        del file[inner]
        file[inner] = h5py.ExternalLink(str(other), inner)
    with pytest.raises(BagError, match=r"another file|no embeddings"):
        open_bag(path)


def test_mussel_states_the_slide_s_pixels_and_the_encoder_s(tmp_path: Path):
    bag = load_bag(write_mussel(tmp_path / "S-1.features.h5"))
    assert (bag.layout, bag.slide_id, bag.tile_px, bag.tile_l0) == ("mussel", "S-1", 224, (448, 448))
    assert (bag.mpp, bag.slide_size) == (0.5, SLIDE_SIZE)
    assert (bag.features == FEATURES).all()
    assert (bag.coords_l0 == COORDS).all()
    np.testing.assert_allclose(bag.coords_um, COORDS * 0.25)


def test_mussel_s_bfloat16_is_the_upper_half_of_a_float32(tmp_path: Path):
    path = write_mussel(tmp_path / "S-1.features.h5")
    with h5py.File(path, "a") as file:
        del file["features"]
        file["features"] = np.ascontiguousarray(FEATURES).view("<u2")[:, 1::2].copy().view("V2")
    bag = open_bag(path)
    np.testing.assert_allclose(bag.features, FEATURES, rtol=2**-7)
    assert bag.features.dtype == np.float32
    assert (bag.read_rows(1, 3) == bag.features[1:3]).all()


@pytest.mark.parametrize("suffix", [".npz", ".pt"])
def test_slide2vec_is_read_with_hs2p_s_tiles(tmp_path: Path, suffix: str):
    bag = load_bag(write_slide2vec(tmp_path, suffix=suffix))
    assert (bag.layout, bag.encoder, bag.slide_id, bag.shape) == ("slide2vec", "uni2", "S-1", (5, 8))
    assert (bag.tile_px, bag.mpp, bag.tile_l0, bag.slide_size) == (256, 0.5, (512, 512), SLIDE_SIZE)
    assert (bag.features == FEATURES).all()
    assert (bag.coords_l0 == COORDS).all()
    np.testing.assert_allclose(bag.coords_um, COORDS * 0.25)


def test_slide2vec_s_rows_are_of_the_tiles_that_its_index_names(tmp_path: Path):
    bag = load_bag(write_slide2vec(tmp_path, picked=[4, 1, 3]))
    assert (bag.features == FEATURES[[4, 1, 3]]).all()
    assert (bag.coords_l0 == COORDS[[4, 1, 3]]).all()


def test_slide2vec_without_its_tiles_has_no_corners(tmp_path: Path):
    bag = load_bag(write_slide2vec(tmp_path, tiles=False))
    assert (bag.coords_l0, bag.encoder) == (None, "uni2")


@pytest.mark.parametrize("suffix", [".npz", ".pt"])
def test_slide2vec_s_slide_embedding_is_read(tmp_path: Path, suffix: str):
    bag = load_bag(write_slide2vec_slide(tmp_path, suffix=suffix))
    assert (bag.layout, bag.encoder, bag.shape, bag.is_slide_embedding) == ("slide2vec", "titan", (1, 12), True)
    assert (bag.features == VECTOR).all()


def test_slide2vec_s_metadata_of_another_run_are_told(tmp_path: Path):
    path = write_slide2vec(tmp_path)
    np.savez_compressed(path, features=FEATURES[:3])
    with pytest.raises(BagError, match=r"num_tiles 3 and 'S-1\.meta\.json' states 5"):
        open_bag(path)


def test_a_tile_index_beyond_the_tiles_is_told(tmp_path: Path):
    path = write_slide2vec(tmp_path)
    np.savez_compressed(path, features=FEATURES, tile_index=np.array([0, 1, 2, 3, 5]))
    with pytest.raises(BagError, match="tiles that are not among the 5"):
        open_bag(path)


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_lazyslide_is_read_by_encoder(tmp_path: Path, zarr_format: int):
    pytest.importorskip("zarr")
    path = write_lazyslide(tmp_path / "S-1.zarr", {"uni2": FEATURES, "resnet50": OTHERS}, zarr_format=zarr_format)
    for name, encoder, rows in (("uni2", "uni2", FEATURES), ("resnet50_tiles", "resnet50", OTHERS)):
        bag = load_bag(Path(f"{path}#{name}"))
        assert (bag.layout, bag.encoder, bag.slide_id) == ("lazyslide", encoder, "S-1")
        assert (bag.tile_px, bag.mpp, bag.tile_l0, bag.slide_size) == (224, 0.5, (448, 448), SLIDE_SIZE)
        assert (bag.features == rows).all()
        assert (bag.coords_l0 == COORDS).all()
        np.testing.assert_allclose(bag.coords_um, COORDS * 0.25)
    with pytest.raises(BagError, match="2 encoders: resnet50_tiles, uni2_tiles"):
        open_bag(path)


def test_lazyslide_s_rows_are_of_the_tiles_that_their_ids_name(tmp_path: Path):
    pytest.importorskip("zarr")
    path = write_lazyslide(tmp_path / "S-1.zarr", {"uni2": FEATURES}, tile_ids=[5, 2, 4, 1, 3])
    assert (load_bag(path).coords_l0 == COORDS[[4, 1, 3, 0, 2]]).all()


def test_lazyslide_s_rows_of_tiles_that_are_gone_are_told(tmp_path: Path):
    pytest.importorskip("zarr")
    path = write_lazyslide(tmp_path / "S-1.zarr", {"uni2": FEATURES}, tile_ids=[1, 2, 3, 4, 9])
    with pytest.raises(BagError, match="'tiles' does not hold"):
        open_bag(path)


def test_ids_of_tiles_whose_chunk_is_missing_are_no_zeros(tmp_path: Path):
    pytest.importorskip("zarr")
    path = write_lazyslide(tmp_path / "S-1.zarr", {"uni2": FEATURES})
    (path / "tables" / "uni2_tiles" / "obs" / "tile_id" / "c" / "0").unlink()
    with pytest.raises(
        BagError, match=r"^'S-1\.zarr' is damaged or of another layout \('tile_id' names a tile twice\)"
    ):
        open_bag(path)


def test_a_store_that_lacks_a_chunk_is_refused(tmp_path: Path):
    pytest.importorskip("zarr")
    path = write_lazyslide(tmp_path / "S-1.zarr", {"uni2": FEATURES})
    (path / "tables" / "uni2_tiles" / "X" / "c" / "1" / "0").unlink()
    with pytest.raises(BagError, match=r"lacks 1 of its 3 chunks, which would be read as zeros"):
        open_bag(path)


def test_a_codec_that_is_no_compression_is_refused(tmp_path: Path):
    pytest.importorskip("zarr")
    path = write_lazyslide(tmp_path / "S-1.zarr", {"uni2": FEATURES}, zarr_format=2)
    metadata = path / "tables" / "uni2_tiles" / "X" / ".zarray"
    text = metadata.read_text()
    metadata.write_text(text.replace('"filters": null', '"filters": [{"id": "pickle"}]'))
    assert metadata.read_text() != text
    with pytest.raises(BagError, match=r"^'X' of 'S-1\.zarr' is encoded by 'pickle'"):
        open_bag(path)


def test_a_folder_of_zarr_without_tables_is_no_bag(tmp_path: Path):
    (tmp_path / "S-1.zarr").mkdir()
    (tmp_path / "S-1.zarr" / ".zgroup").write_text('{"zarr_format": 2}')
    with pytest.raises(BagError, match="no SpatialData store"):
        open_bag(tmp_path / "S-1.zarr")


def test_an_encoder_is_checked_where_a_file_is_of_one(tmp_path: Path):
    path = write_slide2vec(tmp_path)
    assert open_bag(Path(f"{path}#uni2")).encoder == "uni2"
    with pytest.raises(BagError, match="of encoder 'uni2' and 'virchow' is asked for"):
        open_bag(path, encoder="virchow")
    with pytest.raises(BagError, match="does not state its encoder"):
        open_bag(write_mussel(tmp_path / "S-2.h5"), encoder="uni2")


def test_a_name_with_a_number_sign_is_a_name(tmp_path: Path):
    path = write_mussel(tmp_path / "S#1.h5")
    assert open_bag(path).shape == (5, 8)


@pytest.mark.parametrize(
    "layout", ["atlaspatch", "mussel", "npz", "npz, columns first", "batch of one", "lazyslide", "pt"]
)
def test_rows_are_read_by_slices(tmp_path: Path, layout: str):
    path = tmp_path / "S-1.h5"
    if layout == "atlaspatch":
        write_atlaspatch(path, {"uni_v1": FEATURES})
    elif layout == "mussel":
        write_mussel(path)
    elif layout == "lazyslide":
        pytest.importorskip("zarr")
        path = write_lazyslide(tmp_path / "S-1.zarr", {"uni2": FEATURES})
    elif layout == "batch of one":
        with h5py.File(path, "w") as file:
            file["features"] = FEATURES[None]
    elif layout == "pt":
        path = tmp_path / "S-1.pt"
        torch.save({"feats": torch.from_numpy(FEATURES)[None]}, path)
    else:
        path = tmp_path / "S-1.npz"
        np.savez_compressed(path, features=np.asfortranarray(FEATURES) if "columns" in layout else FEATURES)
    bag = open_bag(path)
    assert (bag.read_rows(1, 4) == FEATURES[1:4]).all()
    assert (bag.read_rows(3, 99) == FEATURES[3:]).all()
    assert bag.read_rows(5, 9).shape == (0, 8)
    assert bag.read_rows(0, 2).dtype == np.float32
    assert (bag.features == FEATURES).all()


def test_a_slice_reads_no_other_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = write_atlaspatch(tmp_path / "S-1.h5", {"uni_v1": FEATURES})
    bag = open_bag(path)
    keys: list[object] = []
    read = h5py.Dataset.__getitem__

    def note(dataset: h5py.Dataset, key: object, **options: object) -> object:
        keys.append((dataset.name, key))
        return read(dataset, key, **options)

    monkeypatch.setattr(h5py.Dataset, "__getitem__", note)
    bag.read_rows(1, 3)
    assert keys == [("/features/uni_v1", slice(1, 3))]


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_store_of_bombs_or_with_a_chunk_lost_is_refused(tmp_path: Path, zarr_format: int):
    store = write_lazyslide(tmp_path / "S-1.zarr", {"uni": FEATURES}, zarr_format=zarr_format)
    assert load_bag(store).shape == FEATURES.shape
    table = store / "tables" / "uni_tiles" / "X"
    chunk = next(path for path in sorted(table.rglob("*")) if path.is_file() and path.name in ("0", "0.0"))
    whole = chunk.read_bytes()
    at = 4 if zarr_format == 2 and whole[:4] != b"\x28\xb5\x2f\xfd" else None
    grown = bytearray(whole)
    if at is None:
        grown[4:6] = b"\xe0\xff"  # Zstandard: a size of eight bytes follows
    else:
        grown[at : at + 4] = b"\xff\xff\xff\x7f"  # blosc
    chunk.write_bytes(bytes(grown))
    with pytest.raises(BagError, match="is damaged or of another layout"):
        load_bag(store)
    chunk.unlink()
    (chunk.parent / ".DS_Store").write_bytes(whole)  # no chunk, though a file as good as it
    with pytest.raises(BagError, match="lacks 1 of its"):
        load_bag(store)
