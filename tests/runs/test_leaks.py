"""A patient that was learned from is known again however it is spelt."""

import hashlib
from pathlib import Path

import pytest

from lamella.cohort import Cohort, CohortSlide
from lamella.encoders.tuned import SeenSlides, hash_id
from lamella.errors import LeakageError
from lamella.progress import SilentProgress
from lamella.runs.bags import load_bag_folder
from lamella.runs.facts import BagFacts
from lamella.runs.leaks import refuse_seen_by_encoder
from lamella.runs.predictor import Predictor, SeenBefore, refuse_seen
from lamella.runs.record import SettingsRecord

SPELLINGS = ["P-07", "p-07", "P-7", "P 7", "P-07 ", "\uff30-07"]


def make_predictor(seen: SeenBefore) -> Predictor:
    return Predictor(
        called="run", folder=Path("run"), classes=("a", "b"), positive="b", settings=SettingsRecord.model_construct(),
        members=(), threshold=None, seen=seen,
    )  # fmt: skip


def make_cohort(patient_id: str) -> Cohort:
    return Cohort(slides=(CohortSlide(slide_id="new", path=Path("none.svs"), patient_id=patient_id, label="a"),))


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_predict_refuses_a_learned_patient_in_any_spelling(spelling: str) -> None:
    names = SeenBefore(patients=frozenset({"P-07", "P-12"}), images=frozenset())
    with pytest.raises(LeakageError) as error:
        refuse_seen(make_predictor(names), make_cohort(spelling), labelled=True, progress=SilentProgress())
    assert ("spelt 'P-07' in training" in str(error.value)) == (spelling != "P-07")
    hashed = SeenBefore(patients=frozenset({hash_id("P-07", "salt")}), images=frozenset(), salt="salt")
    with pytest.raises(LeakageError):
        refuse_seen(make_predictor(hashed), make_cohort(spelling), labelled=True, progress=SilentProgress())
    facts = BagFacts(slide_id="new", seen_salt="salt", seen_patients=(hash_id("P-07", "salt"),))
    with pytest.raises(LeakageError, match="its patient was among those"):
        refuse_seen_by_encoder(["new"], {"new": facts}, make_cohort(spelling))


@pytest.mark.parametrize("patient_id", ["P-70", "P-8", "Q-07", "P07"])
def test_another_patient_is_external(patient_id: str) -> None:
    for seen in (
        SeenBefore(patients=frozenset({"P-07"}), images=frozenset()),
        SeenBefore(patients=frozenset({hash_id("P-07", "salt")}), images=frozenset(), salt="salt"),
    ):
        refuse_seen(make_predictor(seen), make_cohort(patient_id), labelled=True, progress=SilentProgress())


def test_hashes_of_earlier_versions_still_count() -> None:
    earlier = hashlib.sha256(b"salt:P-07").hexdigest()[:16]
    assert SeenBefore(patients=frozenset({earlier}), images=frozenset(), salt="salt").has_patient("P-07")
    assert SeenSlides("salt").knows("P-07", {earlier})


def save_bag(path: Path) -> None:
    import torch

    torch.save(torch.ones(3, 5), path)


@pytest.mark.parametrize(
    ("slide_id", "file"),
    [
        ("TCGA-AB-1234-01Z-00-DX1", "TCGA-AB-1234-01Z-00-DX1.0F3B-9C.pt"),
        ("TCGA-AB-1234", "TCGA-AB-1234-01Z-00-DX1.0F3B-9C.pt"),
        ("TCGA-AB-1234-01Z-00-DX1.0F3B-9C", "TCGA-AB-1234-01Z-00-DX1.pt"),
        ("S-1", "S-1.svs.pt"),
        ("M\u00fcller", "Mu\u0308ller.pt"),
    ],
)
def test_a_bag_is_taken_where_only_it_can_be_the_slides(tmp_path: Path, slide_id: str, file: str) -> None:
    save_bag(tmp_path / file)
    save_bag(tmp_path / "TCGA-AB-1299-01Z-00-DX1.1A.pt")
    assert load_bag_folder(tmp_path, [slide_id]).features[slide_id].shape == (3, 5)


def test_a_bag_that_could_be_two_slides_or_two_that_could_be_ones_are_refused(tmp_path: Path) -> None:
    from lamella.errors import BagError

    save_bag(tmp_path / "TCGA-AB-1234-01Z-00-DX1.0F.pt")
    with pytest.raises(BagError, match=r"both go by the bag 'TCGA-AB-1234-01Z-00-DX1.0F.pt'"):
        load_bag_folder(tmp_path, ["TCGA-AB-1234-01Z-00-DX1", "TCGA-AB-1234"])
    save_bag(tmp_path / "TCGA-AB-1234-01Z-00-DX2.1A.pt")
    with pytest.raises(BagError, match=r"2 bags that could be of slide 'TCGA-AB-1234': .*DX1.0F.pt' and .*DX2.1A.pt"):
        load_bag_folder(tmp_path, ["TCGA-AB-1234"])
