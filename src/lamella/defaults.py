"""What may be chosen, and what is taken where nothing is said: each once, for settings, options and study files."""

from typing import Final, Literal

TissueName = Literal["glass", "otsu"]
HeadName = Literal["attention", "ilse", "gated", "mean", "max", "clam-sb", "transmil", "additive"]
DeviceName = Literal["auto", "cpu", "cuda", "mps"]
PrecisionName = Literal["auto", "fp32", "bf16", "fp16", "int8"]
FinetunedName = Literal["tuned", "head"]
TrainPrecision = Literal["fp32", "bf16"]
Evaluation = Literal["all", "top-k"]
CamMethod = Literal["exact", "grad"]
CamArm = Literal["frozen", "tuned"]
UnitName = Literal["slide", "patient"]
MeasureName = Literal["relative", "rank"]

# Encoders
WEIGHTS: Final = "auto"
DEVICE: Final = "auto"
PRECISION: Final = "auto"

# Tissue and tiles
TILE_PX: Final = 512
MPP: Final = 0.5
MIN_TISSUE: Final = 0.5
MAX_UPSAMPLE: Final = 1.10
TISSUE: Final = "glass"
DTYPE: Final = "float16"

# Heads
HEAD: Final = "attention"
EPOCHS: Final = 40
PATIENCE: Final = 10
LR: Final = 1e-3
WEIGHT_DECAY: Final = 1e-4
N_SEEDS: Final = 3
N_FOLDS: Final = 5
UNIT: Final = "slide"

# Fine-tuning
TOP_K: Final = 64
FINETUNE_EPOCHS: Final = 20
FINETUNE_PATIENCE: Final = 5
FINETUNE_SEEDS: Final = 1
ENCODER_LR: Final = 1e-5
HEAD_LR: Final = 1e-4
STAIN_JITTER: Final = 0.0
TRAIN_PRECISION: Final = "fp32"
EVALUATE: Final = "all"

# Comparing
MARGIN: Final = 0.05

# Explaining and showing
CAM_METHOD: Final = "exact"
CAM_ARM: Final = "frozen"
LOCALISED_TILES: Final = 10
SMALLEST_UM: Final = 275.0
CKA_TILES: Final = 64
COLOURS: Final = "inferno"
OPACITY: Final = 0.55
PANEL_PX: Final = 900
MEASURE: Final = "relative"

# Trying it
DEMO_SLIDES: Final = 44
