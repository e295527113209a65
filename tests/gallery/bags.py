"""Feature bags that are missing, damaged, mixed or another tool's."""

from pathlib import Path

from tests.gallery.case import CUT, TRAIN, Case, Step
from tests.gallery.scenes.bags import (
    change_bag,
    claim_features,
    drop_coordinates,
    extract_once,
    link_features,
    save_bags,
    save_cohort_bags,
    save_other_h5,
    save_two_encoders,
)
from tests.gallery.scenes.encoders import save_pickled, write_encoder
from tests.gallery.scenes.slides import draw_slide
from tests.gallery.scenes.tables import cut_short, write_cohort

STEP = Step(
    title="Feature bags",
    cases=(
        Case(
            heading="A finished bag was made otherwise",
            command=f"extract S-0412.tif {CUT} --encoder mine.py:build --slide-mpp 0.52 --out bags",
            scene=extract_once,
            names="S-0412",
            why="Bags are kept when slide, tiles and encoder are the same, and never overwritten when they are not.",
        ),
        Case(
            heading="Embeddings too large for float16",
            command=f"extract S-0412.tif {CUT} --encoder mine.py:build --precision fp32 --out bags",
            scene=lambda: (draw_slide("S-0412.tif"), write_encoder("mine.py", factor="0 + 1e6")),
            names="float16",
            why="float16 ends at 65,504. float32 takes twice the disk.",
        ),
        Case(
            heading="A bag is damaged",
            command="inspect bags/S-0412.h5",
            scene=lambda: (save_bags("bags", ["S-0412"]), cut_short("bags/S-0412.h5", 700)),
            names="S-0412.h5",
            why="Lamella leaves no half bag behind; a copy that was broken off does.",
        ),
        Case(
            heading="A file is no bag",
            command="inspect S-0412.h5",
            scene=lambda: save_other_h5("S-0412.h5"),
            names="S-0412.h5",
            why="Bags of TRIDENT, CLAM, STAMP, AtlasPatch, slide2vec, LazySlide and Mussel are known too.",
        ),
        Case(
            heading="A bag's features are no table",
            command=TRAIN,
            scene=lambda: (write_cohort("slides.csv", n_slides=12), save_cohort_bags("bags", 12, flat=True)),
            names="S-0412.h5",
            why="Features have a row a tile and a column for each number of the embedding.",
        ),
        Case(
            heading="A file holds embeddings of several encoders",
            command="bag export S-0412.h5 --out S-0412.h5ad",
            scene=lambda: save_two_encoders("S-0412.h5"),
            names="S-0412.h5",
            why="AtlasPatch and LazySlide keep a slide's embeddings of all encoders in one file.",
        ),
        Case(
            heading="A bag is missing",
            command=TRAIN,
            scene=lambda: (write_cohort("slides.csv", n_slides=12), save_cohort_bags("bags", 11)),
            names="S-0412",
            why="Bags are found by slide id.",
        ),
        Case(
            heading="The bags lie deeper",
            command=TRAIN,
            scene=lambda: (
                write_cohort("slides.csv", n_slides=12),
                save_cohort_bags("bags/64px_0.5mpp_64px/features_resnet18", 12),
            ),
            names="features_resnet18",
            why="`lamella extract` makes a folder for each way of cutting, and in it one for each encoder.",
        ),
        Case(
            heading="A bag holds NaN",
            command=TRAIN,
            scene=lambda: (write_cohort("slides.csv", n_slides=12), save_cohort_bags("bags", 12, nan=True)),
            names="S-0412",
            why="One such number would spoil every model. Ours never hold any; another tool's may.",
        ),
        Case(
            heading="Bags of two encoders",
            command=TRAIN,
            scene=lambda: (write_cohort("slides.csv", n_slides=12), save_cohort_bags("bags", 12, mixed=True)),
            names="bags",
            why="The numbers of two encoders mean different things.",
        ),
        Case(
            heading="There is no such bag",
            command="inspect bags/S-0412.h5",
            scene=lambda: None,
            names="S-0412.h5",
            why="Bags are named by slide id.",
        ),
        Case(
            heading="The bag is no HDF5",
            command="inspect S-0412.h5",
            scene=lambda: Path("S-0412.h5").write_text("moved\n", encoding="utf-8"),
            names="S-0412.h5",
            why="Torch files end in .pt.",
        ),
        Case(
            heading="A bag was changed after it was written",
            command="inspect S-0412.h5",
            scene=lambda: change_bag("S-0412.h5"),
            names="S-0412.h5",
            why="Each bag that Lamella writes carries the SHA-256 of its content.",
        ),
        Case(
            heading="A bag takes its numbers from another file",
            command="inspect bags/S-0412.h5",
            scene=lambda: (save_bags("bags", ["S-0587"]), link_features("bags/S-0412.h5")),
            names="S-0412.h5",
            why="Through such a link, any file of this machine could be read.",
        ),
        Case(
            heading="A bag claims more than its file can hold",
            command="inspect bags/S-0412.h5",
            scene=lambda: claim_features("bags/S-0412.h5"),
            names="S-0412.h5",
            why="Nothing is allocated for such a claim.",
        ),
        Case(
            heading="Coordinates and features of a bag differ in number",
            command="inspect bags/S-0412.h5",
            scene=lambda: drop_coordinates("bags/S-0412.h5"),
            names="S-0412.h5",
            why="Attention could not be placed on the slide.",
        ),
        Case(
            heading="A torch file holds Python objects",
            command="inspect S-0412.pt",
            scene=lambda: save_pickled("S-0412.pt"),
            names="S-0412.pt",
            why="Unpickling objects runs code, so only plain tensors are loaded.",
        ),
    ),
)
