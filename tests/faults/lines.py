"""Command lines that nobody meant: every key of every command with values that no key has.

A case is one line: a command, one to three keys of its own, and a value each, from a list of nonsense or made up. It
must end with work or with 2 and a message that names the key or the value; a number that is none is never accepted.
"""

from __future__ import annotations

import dataclasses
import random
from functools import cache
from typing import Any

from bench import registry
from bench.compose import GROUPS
from bench.config import RunSpec
from bench.editing.options import KEYS, EditOptions
from bench.fid_doctor import KEYS as FID_KEYS
from bench.reporting.options import Options as ReportOptions
from bench.rules import rules_of
from bench.speed import Options as SpeedOptions
from bench.timing.claims import Options as ClaimOptions
from tests.faults.bed import Bed, Fault
from tests.faults.campaign import Part
from tests.faults.doors import call

NONSENSE = ["-1", "-0.5", "0", "1", "0.5", "nan", "inf", "-inf", "1e400", "99999999999999999999999999", "", "''", "' '",
            "[]", "[1]", "[nan]", "[[]]", "[a,b]", "{}", "{a: 1}", "{a: nan}", "true", "null", "text", "a/b", "../x",
            "a:b", "os:getcwd", ".:X", "/dev/zero", "/usr", "/", "glob(*)", "interval(0,1)", "range(0,100000)",
            "range(0,3,0)", "choice(1,2)", "shuffle(1,2)", "int(x)", "${nothing}", "${seed}", "${oc.env:HOME}",
            "\\${oc.env:HOME}", "'\u202e'", "é", "'=,()'", "????", "[" * 50]
NO_NUMBERS = ("nan", "inf", "-inf", "1e400", "[nan]", "{a: nan}")
ODDER = ["\x1b[2J", "a\nb", "\udcff", "0x10", "1_000", "١", "1e-400", "--help", "-", "=", ",", "1,2,,3", "1,1",
         "9" * 400, "a" * 5000, "~", "*", "validation:-1", "validation:x", "0x0", "16x", "1,2,3", "[0,0,9,9]",
         "2,2,1,1", "-5,-5,9,9", "None", "True", "{'a': }", "$(id)", "%s%n", "<b>", "[/x]", "a=b=c"]
PRIORS = ("absorbing", "autoregressive", "unigram", "uniform", "vq_diffusion", "any_order", "block_diffusion",
          "maskgit", "mdlm", "remdm", "flow_matching")
SMOKE = ["dataset=digits", "preset=smoke"]


class Lines:
    def __init__(self, bed: Bed | None = None):
        pass

    def part(self) -> Part:
        return Part("commands", "command lines of nonsense, in process",
                    ("a traceback", "a hang", "nonsense accepted", "a message that names neither key nor value"),
                    self.case)

    def case(self, draw: random.Random, number: int) -> str:
        door, base, keys = draw.choice(_doors())
        pairs = []
        for _ in range(draw.choice((1, 1, 1, 2, 3))):
            key = draw.choice(keys)
            pairs.append((key, _value(draw)))
        prior = [f"prior={draw.choice(PRIORS)}"] if "preset=smoke" in base else []
        line = [*prior, *base, *(f"{key}={value}" for key, value in pairs)]
        if draw.random() < 0.05:
            line += [draw.choice(ODDER)]
        code, said = call(door, line)
        if code == 0 and (odd := [pair for pair in pairs if pair[1] in NO_NUMBERS and pair[0] in _numbers()]):
            raise Fault("nonsense accepted", f"{door} {line}: {odd}")
        if code == 2 and not any(_names(said, key, value) for key, value in pairs) and len(line) == len(base) + 2:
            raise Fault("a message that names neither key nor value", f"{door} {line}: {said[-300:]!r}")
        if code not in (0, 1, 2) or code == 1 and door not in ("doctor", "report"):
            raise Fault("a traceback", f"{door} {line}: exit code {code}; {said[-300:]!r}")
        return f"{door}: {'refused' if code == 2 else 'accepted'}"


def _value(draw: random.Random) -> str:
    kind = draw.random()
    if kind < 0.6:
        return draw.choice(NONSENSE)
    if kind < 0.8:
        return draw.choice(ODDER)
    if kind < 0.9:
        return str(draw.choice((-1, 1)) * 10 ** draw.randrange(30)) + draw.choice(("", ".5", "e9", "x"))
    return ",".join(draw.choice(NONSENSE) for _ in range(2))


def _names(said: str, key: str, value: str) -> bool:
    flat = " ".join(said.split())
    return key.split(".")[-1] in flat or value.strip("'[]{}")[:20] in flat or "usage:" in flat


@cache
def _doors() -> list[tuple[str, list[str], list[str]]]:
    """(command, what every line of it begins with, its keys)."""
    keys = _keys_of_runs()
    edits = [("edit", ["task=" + task, *SMOKE, *_NEEDED.get(task, [])], [*names, "out", *keys[::5]])
             for task, names in KEYS.items()]
    names = lambda cls: [field.name for field in dataclasses.fields(cls)]   # noqa: E731
    return [*[("run", [*SMOKE, "plan=true"], keys)] * 4, ("run", SMOKE, [*keys, "rebuild", "config", "list", "json"]),
            *edits, ("report", ["figures=false"], [*names(ReportOptions), "x"]),
            ("export", [*SMOKE], ["samples", "statistics", "of", *keys[::7]]),
            ("encode", [*SMOKE, "out=tokens"], ["out", *keys[::7]]),
            ("doctor", ["fid"], [*FID_KEYS, "x"]), ("doctor", SMOKE, keys[::3]),
            ("speed", [], [*names(SpeedOptions), "x"]), ("speed", ["claims"], [*names(ClaimOptions), "x"]),
            ("store", [], ["gc", "work", "ls"]), ("assets", ["fetch"], ["x"])]


_NEEDED = {"inpaint": ["image=validation:0", "box=0,0,2,2"], "condition": ["image=validation:0", "box=0,0,2,2"],
           "stitch": ["image=validation:0,validation:1", "box=[0,0,2,2],[2,2,4,4]"],
           "enlarge": ["canvas=8x8"], "benchmark": ["masks=lower", "status=true"]}


@cache
def _keys_of_runs() -> list[str]:
    found = {key for key, _, _ in rules_of(RunSpec)} | set(GROUPS) | {"sampler.seed", "vq.training", "nothing", ""}
    for name in registry.names("priors"):
        cls = registry.resolve("priors", name)
        found |= {f"prior.{field.name}" for field in dataclasses.fields(cls.Options)}
        found |= {f"sampler.{field.name}" for field in dataclasses.fields(cls.Sampler)}
    found |= {f"vq.{field.name}" for field in dataclasses.fields(registry.resolve("tokenizers", "vqgan").Options)}
    return sorted(found)


@cache
def _numbers() -> set[str]:
    """Keys that hold a number, and nothing else."""
    def is_number(kind: Any) -> bool:
        return str(kind).replace("<class '", "").replace("'>", "").split(" | ")[0] in ("int", "float")

    found = {key for key, kind, _ in rules_of(RunSpec) if is_number(kind)}
    return found | {field.name for cls in (EditOptions, SpeedOptions) for field in dataclasses.fields(cls)
                    if is_number(field.type)}
