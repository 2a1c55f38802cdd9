"""A module that is called as its own function of the same name, so that `bench.run` is both a door and a function.

    sys.modules["bench.run"].__class__ = CallableModule      # at the end of bench/run.py: bench.run(...) is run(...)

`python -m bench.run` needs a module of that name, and importing any `bench.run` binds that module to `bench`, over
whatever function stood there: in every order of imports only a module that can be called is right.
"""

from __future__ import annotations

import importlib
import inspect
from types import ModuleType
from typing import Any


class CallableModule(ModuleType):
    """A module whose last name is also the name of a function in it."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._function(*args, **kwargs)

    @property
    def __signature__(self) -> inspect.Signature:
        return inspect.signature(self._function)

    @property
    def _function(self) -> Any:
        return vars(self)[self.__name__.rpartition(".")[2]]

    def __reduce__(self) -> Any:   # pickled by reference, as cloudpickle does with modules of no class of their own
        return importlib.import_module, (self.__name__,)
