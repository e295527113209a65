"""The model hub: one file of a model, and whether this account may have it. What goes wrong there is one line.

The hub's own package downloads, asks again after a broken transfer from where it stopped, and keeps what came in its
cache. It speaks to the network through a client that differs between its versions, so errors are told by the answer
that they carry (status, headers), not by their classes alone. It is imported when it is used, for its weight.
"""

import os
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lamella.encoders.snapshots import find_blob, refuse_damaged_blob
from lamella.errors import WeightsError
from lamella.machine import refuse_passing

_AGAIN = "run the same command again"
_UNKNOWN, _FORBIDDEN, _ABSENT, _TOO_MANY = 401, 403, 404, 429


class NotOnHubError(WeightsError):
    """The hub has the model but not that file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HubAccess:
    """Whether the account of this machine may download a model.

    Attributes:
        hub_id: `OWNER/NAME`.
        granted: True, False, or None where the hub could not be asked.
        detail: What the hub says, in words.
        remedy: What to do; empty where access is granted.
    """

    hub_id: str
    granted: bool | None
    detail: str
    remedy: str = ""


def download_from_hub(name: str, hub_id: str, file: str, revision: str | None = None) -> Path:
    """Download one file of a model of the hub, or take it from the hub's cache; return where it lies there.

    A transfer that breaks is taken up where it stopped, some times; it must have the checksum that the hub
    states.

    Args:
        name: The encoder, for the errors.
        hub_id: `OWNER/NAME`.
        file: Its path in the model's folder.
        revision: Branch, tag or commit; None is the newest.

    Raises:
        NotOnHubError: If the model has no such file.
        WeightsError: If the account may not have it, the model is not there, the hub cannot be reached or asks to wait,
            or the file did not come whole; one line that says which and what to do.
        MachineError: If the disk is full.
    """
    hub = _import_hub(name)
    try:
        path = Path(hub.hf_hub_download(repo_id=hub_id, filename=file, **_revision(revision)))
    except Exception as error:  # the hub's package lets through whatever its HTTP client raises
        refuse_passing(error, file)
        raise _explain(error, name, hub_id, file, revision) from error
    # The hub keeps a file under its checksum, and hands out a link to it.
    refuse_damaged_blob(name, path, f"Remove '{find_blob(path)}' and run the same command again.")
    return path


def check_access(hub_id: str) -> HubAccess:
    """Ask the hub whether the account of this machine may download a model. It uses the network.

    Raises:
        WeightsError: If the hub's package is not installed.
    """
    hub = _import_hub(hub_id)
    try:
        hub.HfApi().auth_check(hub_id)
    except Exception as error:  # noqa: BLE001 - as above
        return _refuse_access(error, hub_id)
    return HubAccess(hub_id=hub_id, granted=True, detail="this account may download it")


def _refuse_access(error: Exception, hub_id: str) -> HubAccess:
    status, _ = _find_answer(error)
    is_gated, is_known, page = "GatedRepoError" in _kinds(error), _is_logged_in(), _page(hub_id)
    granted: bool | None = False
    if is_gated and (status == _FORBIDDEN or is_known):
        detail, remedy = "gated; this account has no access yet", f"ask for it at {page} and wait until it is granted"
    elif is_gated or (status == _UNKNOWN and not is_known):
        detail, remedy = "not logged in", f"accept the terms at {page}, then run: hf auth login"
    elif status in (_UNKNOWN, _FORBIDDEN):
        detail, remedy = "the hub does not accept this machine's login", "hf auth login"
    elif status == _ABSENT:
        detail, remedy = "not on the hub, or private", f"look at {page}"
    else:
        granted = None
        detail = f"not known: the hub answers {status}" if status else "not known: the hub cannot be reached"
        remedy = "check the network and ask again"
    return HubAccess(hub_id=hub_id, granted=granted, detail=detail, remedy=remedy)


def _import_hub(name: str) -> Any:
    try:
        os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
        import huggingface_hub
    except ModuleNotFoundError as error:
        raise WeightsError(
            f"weights of '{name}' lie on the hub, whose package is not installed. Run: pip install huggingface_hub"
        ) from error
    return huggingface_hub


def _revision(revision: str | None) -> dict[str, str]:
    return {} if revision is None else {"revision": revision}


def _explain(error: Exception, name: str, hub_id: str, file: str, revision: str | None) -> WeightsError:
    """Turn what the hub's package raised into one line."""
    kinds, (status, headers) = _kinds(error), _find_answer(error)
    if "GatedRepoError" in kinds:
        return WeightsError(_say_gated(name, hub_id, status))
    if "RevisionNotFoundError" in kinds:
        return WeightsError(
            f"the hub's '{hub_id}' has no revision '{revision or 'main'}', which '{name}' is. Look at {_page(hub_id)}."
        )
    if "EntryNotFoundError" in kinds and "LocalEntryNotFoundError" not in kinds:
        return NotOnHubError(
            f"the hub's '{hub_id}' has no file '{file}', which '{name}' needs. Look at {_page(hub_id)}, or get its "
            f"weights by hand and run: lamella weights add {shlex.quote(name)} FILE"
        )
    if status is not None:
        return WeightsError(_say_status(name, hub_id, status, headers))
    if "OfflineModeIsEnabled" in kinds:
        return WeightsError(f"weights of '{name}' are not fetched: HF_HUB_OFFLINE is set. Unset it and {_AGAIN}.")
    if "LocalEntryNotFoundError" in kinds:
        return WeightsError(
            f"the hub cannot be reached for '{name}' ({_find_reason(error)}). Check the network, or get the file by "
            f"other means and run: lamella weights add {shlex.quote(name)} FILE"
        )
    return WeightsError(
        f"the transfer of '{file}' of '{name}' broke off ({_find_reason(error)}). Check the network, and {_AGAIN}."
    )


def _say_gated(name: str, hub_id: str, status: int | None) -> str:
    if status != _FORBIDDEN and not _is_logged_in():
        return (
            f"'{name}' is gated and this machine is not logged in to the hub. Accept its terms at {_page(hub_id)}, "
            "then run: hf auth login"
        )
    return (
        f"'{name}' is gated and this account has no access yet. Ask for it at {_page(hub_id)}, wait until its "
        f"publisher grants it, and {_AGAIN}."
    )


def _say_status(name: str, hub_id: str, status: int, headers: dict[str, str]) -> str:
    """Say what the hub's answer means, and what to do."""
    is_known = _is_logged_in()
    if status == _UNKNOWN and is_known:
        return f"the hub does not accept the login of this machine for '{name}' (401). Run: hf auth login"
    if status in (_UNKNOWN, _ABSENT):
        login = "" if is_known else " If it is private, run: hf auth login"
        return f"the hub shows no model '{hub_id}' ({status}). Check the name at {_page(hub_id)}.{login}"
    if status == _FORBIDDEN:
        return (
            f"the hub forbids '{hub_id}' to the login of this machine (403). Give its token the right to read gated "
            f"models, and {_AGAIN}."
        )
    if status == _TOO_MANY:
        login = "" if is_known else " A login (hf auth login) raises the limit."
        return f"the hub takes no more requests for now (429). Wait {_find_wait(headers)} and {_AGAIN}.{login}"
    return f"the hub answers {status} for '{name}'. Wait some minutes and {_AGAIN}."


def _is_logged_in() -> bool:
    import huggingface_hub

    return bool(huggingface_hub.get_token())


def _chain(error: BaseException) -> list[BaseException]:
    """Return an error and those behind it, the outermost first."""
    chain: list[BaseException] = []
    inner: BaseException | None = error
    while inner is not None and inner not in chain:
        chain.append(inner)
        inner = inner.__cause__ or inner.__context__
    return chain


def _kinds(error: BaseException) -> frozenset[str]:
    return frozenset(kind.__name__ for inner in _chain(error) for kind in type(inner).__mro__)


def _find_answer(error: BaseException) -> tuple[int | None, dict[str, str]]:
    """Find the hub's answer behind an error: its status and headers; `(None, {})` where there was none."""
    for inner in _chain(error):
        response = getattr(inner, "response", None)
        status = getattr(response, "status_code", None)
        if isinstance(status, int) and status >= 400:
            headers = {str(key).lower(): str(value) for key, value in dict(getattr(response, "headers", {})).items()}
            return status, headers
    return None, {}


def _find_wait(headers: dict[str, str]) -> str:
    """Return for how long the hub asks to wait, in words."""
    stated = re.fullmatch(r"\d+", headers.get("retry-after", "").strip()) or re.search(
        r"(?<=t=)\d+", headers.get("ratelimit", "")
    )
    return "some minutes" if stated is None else f"{int(stated[0])} s"


def _find_reason(error: BaseException) -> str:
    """Return the innermost reason, on one line."""
    said = [" ".join(str(inner).split()) for inner in _chain(error)]
    reason = next((text for text in reversed(said) if text), type(error).__name__)
    return reason.rstrip(".")[:120]


def _page(hub_id: str) -> str:
    """Return the address of a model's page."""
    from huggingface_hub import constants

    return f"{constants.ENDPOINT.rstrip('/')}/{hub_id}"
