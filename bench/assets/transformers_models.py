"""Models of the user's folders through the package transformers (the extra `text`): whole, in float32, and quietly.

    net = loaded("CLIPTextModel", Path("/models/clip"), kind="clip", asked="condition.encoder=/models/clip")

Nothing is downloaded, and no code of the folder is run.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from bench.assets.torchvision_compat import ensure_torchvision
from bench.errors import InputError


def check_installed(asked: str) -> None:
    """Raise InputError, in a moment, where the package is missing. asked: the `key=value` that needs it."""
    if importlib.util.find_spec("transformers") is None:
        raise InputError(f"{asked} needs the package transformers: pip install transformers (the extra `text`), or "
                         "leave it out.")


def transformers_package(asked: str) -> Any:
    """Raises InputError as `check_installed`."""
    check_installed(asked)
    ensure_torchvision()   # which transformers imports
    import transformers

    return transformers


def loaded(cls: str, folder: Path, *, kind: str, asked: str) -> Any:
    """A model for evaluation, every weight from the folder.  Raises InputError for a folder of another model.

    Weights of the folder that the class has no use for are left alone: a whole CLIP holds those of both its halves.
    """
    package = transformers_package(asked)
    said = package.logging.get_verbosity()
    package.logging.set_verbosity_error()   # else it lists the weights left alone, a line each
    package.logging.disable_progress_bar()
    try:
        net, report = getattr(package, cls).from_pretrained(folder, local_files_only=True, use_safetensors=True,
                                                            output_loading_info=True)
    except (OSError, ValueError, RuntimeError) as error:
        raise InputError(f"{folder} is no {kind} model of transformers: {' '.join(str(error).split())[:300]}") from None
    finally:
        package.logging.set_verbosity(said)
        package.logging.enable_progress_bar()
    if missing := sorted(report["missing_keys"]):
        raise InputError(f"{folder} is no {kind} model of transformers: {len(missing)} weights are missing, such as "
                         f"{missing[0]}.")
    return net.float().eval().requires_grad_(False)   # float32, whatever it was saved in
