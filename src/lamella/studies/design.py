"""The design of a study: a small declared file, checked before anything runs.

preset: mine
tiles: {default: {tile_px: 224, mpp: 0.25}}
arms:
  - {encoders: [efficientnet-lite0], depths: [4, 3, 2], finetuned: [frozen]}
comparisons:
  - {name: IV, title: Truncated, rule: depth against 4}
margin: 0.05
"""

import itertools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from lamella.analysis.verdict import PlannedTable
from lamella.defaults import MARGIN, N_FOLDS, N_SEEDS, UNIT, UnitName
from lamella.encoders import find_encoder
from lamella.encoders.scale import find_own_tiles, fits, say_unfit
from lamella.errors import SettingsError
from lamella.files import read_yaml
from lamella.studies.arms import CHOSEN_ARMS, Arm
from lamella.studies.design_errors import Place, find_line, find_twice, say_mistake, say_nearest
from lamella.studies.design_parts import RULES, ArmBlock, Comparison, FinetuneDesign, Part, TileDesign, TrainDesign
from lamella.studies.own_tiles import merge_alike, settle_tiles

_COMMENTS = {
    "preset": "where this comes from; any word of your own",
    "tiles": "tile specs by name; arms name theirs. mpp is um per pixel, stride_px null is tile_px; "
    "auto is what the encoder was made for",
    "off_spec": "whether encoders may see another resolution than they were trained at",
    "arms": "blocks whose lists are multiplied. weights: auto, random or a file; finetuned: frozen, head, tuned; "
    "depths: blocks kept, 1 to 4; tiles_per_slide: most tiles a slide, such as [64, 256, all]; width: most numbers of "
    "an embedding, such as [full, 64]",
    "finetune_best": "whether in each fold the frozen arm best on that fold's validation patients is fine-tuned",
    "unit": "what is predicted: slide, or patient, whose slides are then one bag (frozen arms only)",
    "seeds": "heads trained in each round; their logits are averaged",
    "folds": "rounds, at least 3, where the cohort brings neither folds nor splits",
    "split": "folds, holdout (65/15/20 by patient) or given (the cohort's own)",
    "split_seed": "of the folds or the split",
    "train": "how heads are trained: Adam, stopped on validation log-loss",
    "finetune": "how encoder and head are trained on, on each slide's k most attended tiles; train_blocks null is all",
    "comparisons": f"tables: a rule ({'; '.join(RULES)}) or pairs of arms",
    "reference": "encoders whose depths are tested against the whole network; empty takes the first that has depths",
    "margin": "non-inferiority margin: how much AUC the recommended arm may give up",
    "permutations": "runs with permuted labels, everything retrained",
    "control_arm": "the frozen arm that is permuted; null is the one that is shown",
    "cka": "whether fine-tuned encoders are compared with frozen ones, block by block",
    "cam": "whether class activation maps are drawn and measured",
    "localise": "folder of lesion outlines, <slide_id>.geojson or .xml, or masks; null measures none",
    "lesion_class": "classes of outlines that are lesions; [] takes the only one there is",
    "lesion_value": "values of masks that are lesions; [] takes the only one besides the background",
    "costs": "table of arm and seconds_a_slide or gflops, of arms that are features; null takes GFLOPs of known names",
    "budget": "time that may be spent, such as 3h or 90m; null is no limit",
}


class StudyDesign(Part):
    """What a study compares, and how.

    Attributes:
        preset: Where the design came from; None for one's own.
        tiles: Tile specs by name; arms name theirs. Where `tile_px` or `mpp` is declared as `auto`, or not at all, it
            is what each encoder was made for, and here it is a number.
        off_spec: Whether encoders may see another resolution than their cards declare.
        arms: Blocks of arms.
        finetune_best: Whether in each fold the frozen arm that is best on its own validation patients is fine-tuned,
            beside its control.
        unit: What is predicted: `slide`, or `patient`, whose slides are then one bag.
        seeds: Heads trained in each round; their logits are averaged.
        folds: Rounds, at least 3, where the cohort brings neither folds nor splits.
        split: `folds`, `holdout` (65/15/20 by patient) or `given` (the cohort's own only).
        split_seed: Of the folds or splits.
        train: How heads are trained.
        finetune: How encoders are fine-tuned.
        comparisons: Declared tables.
        reference: Encoders whose depths are tested against their whole network; empty takes the first that has depths.
        margin: How much AUC the recommended arm may give up.
        permutations: Runs of the control with permuted labels.
        control_arm: The arm that is permuted; None takes the one that is shown.
        cka: Whether fine-tuned encoders are compared with frozen ones, block by block.
        cam: Whether class activation maps are computed.
        localise: Folder of outlines.
        lesion_class: Which classes of outlines are lesions.
        lesion_value: Which values of masks are lesions.
        budget: Time that may be spent, such as `3h`.
        costs: Table of `arm` and `seconds_a_slide` or `gflops`, of arms whose bags are there already.
    """

    preset: str | None = None
    tiles: dict[str, TileDesign] = Field(default_factory=lambda: {"default": TileDesign()})
    off_spec: bool = False
    arms: tuple[ArmBlock, ...] = Field(min_length=1)
    finetune_best: bool = False
    unit: UnitName = UNIT
    seeds: int = Field(default=N_SEEDS, ge=1)
    folds: int = Field(default=N_FOLDS, ge=3)
    split: Literal["folds", "holdout", "given"] = "folds"
    split_seed: int = Field(default=0, ge=0)
    train: TrainDesign = TrainDesign()
    finetune: FinetuneDesign = Field(default_factory=lambda: FinetuneDesign.model_validate({}))
    comparisons: tuple[Comparison, ...] = ()
    reference: tuple[str, ...] = ()
    margin: float = Field(default=MARGIN, gt=0, lt=0.5)
    permutations: int = Field(default=19, ge=0)
    control_arm: str | None = None
    cka: bool = False
    cam: bool = False
    localise: str | None = None
    lesion_class: tuple[str, ...] = ()
    lesion_value: tuple[str, ...] = ()
    budget: str | None = None
    costs: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _settle_tiles(cls, content: Any) -> Any:
        return settle_tiles(content)

    @field_validator("budget")
    @classmethod
    def _is_time(cls, text: str | None) -> str | None:
        if text is not None:
            try:
                parse_time(text)
            except SettingsError as error:
                raise ValueError(str(error)) from error
        return text

    def list_arms(self) -> tuple[Arm, ...]:
        """Return the arms, each once, in the order of the file.

        Raises:
            SettingsError: If an arm names tiles that are not declared, or two arms would have one name.
        """
        mistake = find_mistake(self)
        if mistake is not None:
            raise SettingsError(mistake[1])
        return _expand(self)

    def list_tables(self, arms: Sequence[Arm]) -> list[PlannedTable]:
        """Return the declared tables over the arms that ran."""
        return [{"name": table.name, "title": table.title, "rows": table.list_rows(arms)} for table in self.comparisons]

    def as_plain(self) -> dict[str, Any]:
        """Return it as plain data without folders: of what lies on this machine, names alone."""
        plain = self.model_dump(mode="json")
        plain["localise"] = None if self.localise is None else _strip(self.localise)
        if self.costs is None:
            del plain["costs"]
        else:
            plain["costs"] = _strip(self.costs)
        for block in plain["arms"]:
            block["encoders"] = [
                _strip(name) if ".py:" in name or _is_file(name) else name for name in block["encoders"]
            ]
            block["features"] = {name: _strip(path) for name, path in block["features"].items()}
            if not block["features"]:
                del block["features"]
            block["weights"] = [name if name in ("auto", "random") else _strip(name) for name in block["weights"]]
        return plain

    @property
    def budget_s(self) -> float | None:
        """Seconds that may be spent; None is no limit."""
        return None if self.budget is None else parse_time(self.budget)

    def with_changes(self, **changes: Any) -> "StudyDesign":
        """Return it with what the command line changes; None leaves a value as it is.

        `tile_px`, `stride_px`, `mpp` and `tissue` change every tile spec.
        """
        given = {key: value for key, value in changes.items() if value is not None}
        cut = {key: given.pop(key) for key in ("tile_px", "stride_px", "mpp", "tissue") if key in given}
        content = self.model_dump()
        tiles = {name: spec | cut for name, spec in content["tiles"].items()}
        return check_design(content | given | merge_alike(tiles, content["arms"]), "the command line")


def load_design(path: Path) -> StudyDesign:
    """Read a declared study.

    Raises:
        SettingsError: If it cannot be read, with the line and what to do.
    """
    content, node = read_yaml(Path(path), error=SettingsError)
    if not content:
        raise SettingsError(f"'{Path(path).name}' declares nothing. Begin with: lamella study --print-preset quick")
    twice = find_twice(node)
    if twice is not None:
        raise SettingsError(f"'{Path(path).name}', line {twice[1]}: '{twice[0]}' stands twice. Keep one of the two.")
    return check_design(content, f"'{Path(path).name}'", node)


def check_design(content: Mapping[str, Any], where: str, node: yaml.Node | None = None) -> StudyDesign:
    """Return a design from plain data.

    Raises:
        SettingsError: If a key or value is none that a design has, or what it names is not declared.
    """
    try:
        design = StudyDesign.model_validate(content)
    except ValidationError as error:
        place, said = say_mistake(StudyDesign, error.errors()[0])
        raise SettingsError(f"{_at(where, node, place)}: {said}") from error
    except UnicodeEncodeError as error:
        raise SettingsError(f"{where}: a text holds half a character (\\ud800 to \\udfff). Write it anew.") from error
    mistake = find_mistake(design)
    if mistake is not None:
        raise SettingsError(f"{_at(where, node, mistake[0])}: {mistake[1]}")
    return design


def add_features(design: StudyDesign | None, named: Sequence[str]) -> StudyDesign:
    """Return a design with arms whose bags are there already, each `NAME=DIR`; None begins a design of them alone.

    Raises:
        SettingsError: If one is no `NAME=DIR`, or a name stands twice.
    """
    features: dict[str, str] = {}
    for text in named:
        name, separator, folder = text.partition("=")
        if not (name and separator and folder):
            raise SettingsError(f"--features is '{text}' and must be a name and a folder, such as uni2=bags/uni2.")
        if features.setdefault(name, folder) != folder:
            raise SettingsError(f"--features names '{name}' twice. Give each folder a name of its own.")
    if design is None:
        return check_design({"arms": [{"features": features}]}, "the command line")
    if not features:
        return design
    content = design.model_dump()
    return check_design(content | {"arms": [*content["arms"], {"features": features}]}, "the command line")


def find_mistake(design: StudyDesign) -> tuple[Place, str] | None:
    """Return where parts of a design do not fit together, and what to do; None where all do."""
    wrong_tiles = [_find_wrong_tiles(design, number) for number in range(len(design.arms))]
    if any(wrong_tiles):
        return next(filter(None, wrong_tiles))
    arms = _expand(design)
    names = [arm.name for arm in arms]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        said = "two blocks call their features so" if "@" not in twice else "their weights' files have one name"
        return ("arms",), f"two arms would be called '{twice}': {said}. Rename one."
    if design.finetune_best and all(arm.features for arm in arms):
        return ("finetune_best",), "only encoders can be fine-tuned, and every arm is features. Drop it."
    frozen = [arm.name for arm in arms if arm.finetuned == "frozen"]
    if design.control_arm is not None and design.control_arm not in frozen:
        said = f"'{design.control_arm}' is no frozen arm of the study."
        return ("control_arm",), f"{said} {say_nearest(design.control_arm, frozen)}"
    for key, find_wrong in (("unit", _find_wrong_unit), ("reference", _find_wrong_reference)):
        wrong = find_wrong(design, arms)
        if wrong is not None:
            return (key,), wrong
    mistakes = (_find_wrong_table(design, table, arms) for table in design.comparisons)
    found = next(((number, mistake) for number, mistake in enumerate(mistakes) if mistake is not None), None)
    return None if found is None else (("comparisons", found[0], found[1][0]), found[1][1])


def _find_wrong_unit(design: StudyDesign, arms: Sequence[Arm]) -> str | None:
    """Return what to do about work that reads the bag of one slide, where a patient's slides are one bag."""
    if design.unit == "slide":
        return None
    tuned = [arm.name for arm in arms if arm.finetuned != "frozen"]
    if tuned or design.finetune_best:
        name = tuned[0] if tuned else CHOSEN_ARMS[-1].name
        return f"'{name}' trains on the tiles of one slide, and a patient's bag is of several. Write unit: slide."
    if design.cam or design.localise is not None:
        return "cam and localise map one slide's bag, and a patient's bag is of several. Leave them out."
    return None


def _find_wrong_tiles(design: StudyDesign, number: int) -> tuple[Place, str] | None:
    """Return where a block of arms names tiles that are not declared, or that an encoder is not made for."""
    block = design.arms[number]
    for name in block.tiles:
        if name not in design.tiles:
            said = f"an arm's tiles are called '{name}' and are not declared."
            return ("arms", number, "tiles"), f"{said} {say_nearest(name, list(design.tiles))}"
    for name, encoder in itertools.product(() if design.off_spec else block.tiles, block.encoders):
        card, tiles = find_encoder(encoder), design.tiles[name]
        if not fits(card, tiles.tile_px, tiles.mpp):
            own = find_own_tiles(card)
            remedy = "" if own is None else f"tile_px: {own[0]} and mpp: {own[1]:g}, or "
            said = say_unfit(card, tiles.tile_px, tiles.mpp, sees="would see")
            return ("arms", number, "encoders"), f"{said}. Write {remedy}off_spec: true to insist."
    return None


def _find_wrong_reference(design: StudyDesign, arms: Sequence[Arm]) -> str | None:
    """Return what to do about a reference encoder that no arm has, or that is not cut."""
    encoders = list(dict.fromkeys(arm.encoder for arm in arms if not arm.features))
    for name in design.reference:
        if name not in encoders:
            return f"no arm has the reference encoder '{name}'. {say_nearest(name, encoders)}"
        depths = {arm.depth for arm in arms if arm.encoder == name and not arm.features}
        if 4 not in depths or len(depths) < 2:
            return f"reference encoder '{name}' needs depth 4 and at least one other. Add it to depths."
    return None


def _find_wrong_table(design: StudyDesign, table: Comparison, arms: Sequence[Arm]) -> tuple[str, str] | None:
    """Return the key of a table that does not fit, and what to do."""
    if (table.rule is None) == (not table.pairs):
        return "name", f"table '{table.name}' needs a rule or pairs, one of the two. Write rule: {RULES[0]}"
    encoders = list(dict.fromkeys(arm.encoder for arm in arms))
    for name in table.encoders or ():
        if name not in encoders:
            return "encoders", f"table '{table.name}' names '{name}' and no arm has it. {say_nearest(name, encoders)}"
    known = [arm.name for arm in arms]
    if design.finetune_best:
        known += [arm.name for arm in CHOSEN_ARMS]
    for name in (name for pair in table.pairs for name in pair):
        if name not in known:
            return "pairs", f"table '{table.name}' names '{name}', which is no arm. {say_nearest(name, known)}"
    return None


def dump_design(design: StudyDesign) -> str:
    """Return a design as YAML with comments that `load_design` reads back to the same."""
    content = design.model_dump(mode="json")
    for block in content["arms"]:
        del block["features" if block["encoders"] else "encoders"]
    text = yaml.safe_dump(content, sort_keys=False, width=100, default_flow_style=None)
    for key, comment in _COMMENTS.items():
        text = re.sub(rf"^(?={key}:)", f"\n# {comment}\n", text, flags=re.MULTILINE)
    return f"# A study for `lamella study FILE --cohort TABLE`; docs/study.md tells more of every key.\n{text}"


def parse_time(text: str) -> float:
    """Return seconds.

    Raises:
        SettingsError: If it is no time.

    Example:
        >>> parse_time("90m"), parse_time("1.5h"), parse_time("1h30m")
        (5400.0, 5400.0, 5400.0)
    """
    parts = re.fullmatch(r"(?:([\d.]+)\s*h)?\s*(?:([\d.]+)\s*m(?:in)?)?\s*(?:([\d.]+)\s*s)?", text.strip())
    seconds = 0.0
    if parts is not None:
        try:
            seconds = sum(float(part or 0) * unit for part, unit in zip(parts.groups(), (3600, 60, 1), strict=True))
        except ValueError:  # 1.2.3h
            seconds = 0.0
    if seconds <= 0:
        raise SettingsError(f"'{text}' is no time. Write it such as 3h, 90m or 1h30m.")
    return seconds


def _expand(design: StudyDesign) -> tuple[Arm, ...]:
    return tuple(dict.fromkeys(arm for block in design.arms for arm in block.expand()))


def _at(where: str, node: yaml.Node | None, place: Place) -> str:
    line = find_line(node, place)
    return where if line is None else f"{where}, line {line}"


def _is_file(name: str) -> bool:
    return name.endswith((".py", ".safetensors"))


def _strip(path: str) -> str:
    """Return a path's last part, whichever system wrote it."""
    return path.replace("\\", "/").rstrip("/").rsplit("/", 1)[-1]
