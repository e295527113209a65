"""6. MIL: from bags to slide predictions. Sees arrays only, never a slide.

model = fit_model(bags, labels, train=train, val=val, classes=("benign", "malignant"))
prediction = model.predict(features)  # .probabilities, .attention
"""

from lamella.mil.heads import HEADS, SlideOutput
from lamella.mil.model import (
    EpochRecord,
    SlideModel,
    TrainingRecord,
    check_bag_fits,
    predict_ensemble,
)
from lamella.mil.prediction import SlidePrediction, Spread, Unlike, average_predictions
from lamella.mil.saving import load_model, save_model
from lamella.mil.settings import TrainSettings
from lamella.mil.standardise import Standardisation, find_standardisation
from lamella.mil.together import fit_model

__all__ = [
    "HEADS",
    "EpochRecord",
    "SlideModel",
    "SlideOutput",
    "SlidePrediction",
    "Spread",
    "Standardisation",
    "TrainSettings",
    "TrainingRecord",
    "Unlike",
    "average_predictions",
    "check_bag_fits",
    "find_standardisation",
    "fit_model",
    "load_model",
    "predict_ensemble",
    "save_model",
]
