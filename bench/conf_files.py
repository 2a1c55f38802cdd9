"""The files that a command line's words choose: those of conf/, and those of a folder of the user's (`config_dir=`).

    files, rest = split_off(["config_dir=cluster", "launcher=mysite"])
    files.find("launcher", "mysite")       # cluster/launcher/mysite.yaml
    files.names("launcher")                # ["debug", "local", "mysite", "slurm"]

So a cluster's profile, a protocol or a preset of one's own needs no change of the installed package.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig, ListConfig, OmegaConf

from bench.errors import InputError
from bench.printable import last_line
from bench.rules import Place, check, refuse_resolvers, shown
from bench.words import GROUPS, written_value

CONF = Path(__file__).parent / "conf"
KEY = "config_dir"
WAY = f"Expected a folder of <group>/<name>.yaml, with groups {', '.join(GROUPS)}, such as launcher/mysite.yaml."
MOST_BYTES, MOST_FILES = 1_000_000, 1_000
NAMED = {"dataset": "folder", "vq": "vqgan", "prior": "absorbing", "protocol": "ours", "launcher": "slurm"}
"""Groups whose files say what they are of, each with an example."""


@dataclass(frozen=True)
class ConfFiles:
    """own: the user's folder, whose sub-folders are named as those of conf/; None without one."""

    own: Path | None = None

    def names(self, group: str) -> list[str]:
        """All that `group=` may choose, the one that stands for plug-ins included."""
        return sorted(path.stem for folder in self._folders for path in (folder / group).glob("*.yaml"))

    def find(self, group: str, name: str) -> Path | None:
        """The file behind `group=name`, if there is one."""
        paths = (folder / group / f"{name}.yaml" for folder in self._folders)
        return next((path for path in paths if path.is_file()), None)

    def load(self, group: str, name: str) -> DictConfig:
        """What that file holds, on top of those of its group that it builds on; empty where there is none."""
        path = self.find(group, name)
        return self._with_defaults(path) if path else OmegaConf.create({})

    def _with_defaults(self, path: Path, above: tuple[Path, ...] = ()) -> DictConfig:
        """above: the files that build on it."""
        held, group = _load(path), path.parent.name
        if path in above:
            raise InputError(f"{path}: builds on itself. Take {group}={path.stem} out of the defaults of "
                             f"{above[-1].name}.")
        names = held.get("defaults", ListConfig([]))
        if not isinstance(names, ListConfig):
            raise InputError(f"{path}: defaults={names}: expected a list, such as [{path.stem}, _self_].")
        below = [found for name in names if isinstance(name, str) and (found := self.find(group, name))]
        merged = OmegaConf.merge(*(self._with_defaults(found, (*above, path)) for found in below), held)
        assert isinstance(merged, DictConfig)
        return merged

    @property
    def overrides(self) -> list[str]:
        """What tells Hydra of the user's folder."""
        return [f"hydra.searchpath=[{written_value(KEY, str(self.own))}]"] if self.own else []

    @property
    def _folders(self) -> tuple[Path, ...]:
        return (CONF, self.own) if self.own else (CONF,)


def whole() -> DictConfig:
    """conf/config.yaml: what a run is composed of."""
    return _load(CONF / "config.yaml")


def split_off(arguments: Sequence[str]) -> tuple[ConfFiles, list[str]]:
    """The files that count, and the arguments without `config_dir=`.

    Raises InputError where the folder, or a file in it, is not what a command could use.
    """
    given = [text.partition("=")[2].strip("'\"") for text in arguments if text.startswith(f"{KEY}=")]
    rest = [text for text in arguments if not text.startswith(f"{KEY}=")]
    if len(given) > 1:
        raise InputError(f"{KEY} is given {len(given)} times; give it once.")
    if not given:
        return ConfFiles(), rest
    check(KEY, given[0], Place(("folder",)))
    own = Path(given[0]).resolve()
    if not own.is_dir():
        raise InputError(f"{KEY}={given[0]}: nothing is there. {WAY}")
    files = ConfFiles(own)
    _check(files, own)
    return files, rest


def _check(known: ConfFiles, own: Path) -> None:
    groups = sorted(path for path in own.iterdir() if path.is_dir() and not path.name.startswith("."))
    files = [path for group in groups for path in sorted(group.glob("*.yaml"))]
    for group in groups:
        if group.name not in GROUPS:
            raise InputError(f"{KEY}={own}: {group.name}/ is no group. {WAY}")
    if not 0 < len(files) <= MOST_FILES:
        raise InputError(f"{KEY}={own}: holds {len(files)} files of settings. {WAY}")
    for path in files:
        if (CONF / path.parent.name / path.name).exists():
            raise InputError(f"{path}: {path.parent.name}={path.stem} is built in, and one name means one thing. Give "
                             "the file another name.")
        _check_file(path)
    for path in files:
        _check_name(path, known.load(path.parent.name, path.stem))


def _check_file(path: Path) -> None:
    if not path.is_file() or path.stat().st_size > MOST_BYTES:
        raise InputError(f"{path}: expected a file of at most {MOST_BYTES:,} bytes. Take it out of {KEY}.")
    try:
        refuse_resolvers(path.read_text(encoding="utf-8"))
        _load(path)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except Exception as error:   # whatever YAML and OmegaConf make of it
        raise InputError(f"{path}: cannot be read ({last_line(str(error))}). Write key: value, one a line.") from None


def _check_name(path: Path, held: DictConfig) -> None:
    """Raise InputError where a file of a kind that is known by its name has none, on its own or from below."""
    name = OmegaConf.to_container(held, resolve=False).get("name")   # type: ignore[union-attr]
    if path.parent.name in NAMED and not (isinstance(name, str) and name and "${" not in name):
        raise InputError(f"{path}: name={shown(name)}: expected one, such as name: "
                         f"{NAMED[path.parent.name]}.")


def _load(path: Path) -> DictConfig:
    loaded = OmegaConf.load(path)
    if not isinstance(loaded, DictConfig):
        raise InputError("expected key: value pairs, one a line.")
    return loaded
