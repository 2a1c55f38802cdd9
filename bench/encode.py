"""Encode a data set and keep its tokens in a folder of yours, with the names of the images they belong to.

    python -m bench.encode vq.path=vq_ds16_c2i.pt vq.layout=llamagen dataset=ffhq out=tokens
    python -m bench.encode vq=my_package:MyTokenizer dataset=folder dataset.path=photos out=tokens
    python -m bench.run    vq.path=vq_ds16_c2i.pt vq.layout=llamagen dataset=ffhq vq.tokens=tokens prior=absorbing

It takes what bench.run takes; a tokenizer that is not there is trained first. In the folder: train.npy and
validation.npy, (images, tokens) integers; train.csv and validation.csv, the images in the same order; tokens.json.
Given vq.tokens, a run compares number, names and pixels with its data set before it builds anything.

Exit codes: 0 done, 1 something failed while working (what was finished is kept), 2 the input was wrong, 130 Ctrl-C.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from bench.command import run_command
from bench.compose import compose
from bench.config import RunSpec
from bench.data.token_files import write_tokens
from bench.errors import InputError
from bench.needs import LAUNCHED, assets_of_models, check_present, prepare, refuse
from bench.rules import Place, check
from bench.stages.base import begun
from bench.stages.tokens import SPLITS, TOKENS, tokenizer_id


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    return run_command(arguments, doc=__doc__, work=encode, needs_arguments=True,
                       kept="what was finished is kept, the same command goes on from here.")


def encode(arguments: list[str]) -> int:
    """Encode what the arguments describe, and write the folder that `out=` names."""
    folder, spec = _asked(arguments)
    check_present([spec])
    prepare([spec], assets_of_models([spec]))
    run = begun(spec)
    arrays = dict(zip(SPLITS, run.open(TOKENS), strict=True))
    write_tokens(folder, {name: (arrays[name], getattr(run.splits, name)) for name in SPLITS},
                 tokenizer=tokenizer_id(run))
    sizes = ", ".join(f"{name}.npy of {len(array):,} x {array.num_tokens}" for name, array in arrays.items())
    print(f"{folder}: {sizes}; read them with vq.tokens={folder}")
    return 0


def _asked(arguments: list[str]) -> tuple[Path, RunSpec]:
    """The folder, and the run whose tokens are meant."""
    given = [argument.partition("=")[2] for argument in arguments if argument.startswith("out=")]
    if len(given) != 1:
        raise InputError("bench.encode needs one folder to write into: out=<folder>.")
    check("out", given[0], Place(("folder",), made=True))
    rest = [argument for argument in arguments if not argument.startswith("out=")]
    refuse(rest, (*LAUNCHED, "speed.", "metrics.names"))
    spec = compose(rest)
    if spec.vq.tokens:
        raise InputError(f"vq.tokens={spec.vq.tokens}: these are encoded already. Leave it out.")
    if spec.source != "prior":
        raise InputError(f"source={spec.source}: it has no tokens. Leave it out.")
    return Path(given[0]), spec


if __name__ == "__main__":
    sys.exit(main())
