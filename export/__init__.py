"""The artefact: an ONNX file that describes itself; its export from a run, and the runtime that needs this file alone.

`attunet.export(run, out)` writes an artefact. Python makes a subpackage an attribute of its package, and this one has
the function's name; so the package itself can be called, and calls `attunet.export.build.export_run.export_run`.
"""

import sys
from types import ModuleType
from typing import Any


class _CallablePackage(ModuleType):
    def __call__(self, *arguments: Any, **options: Any) -> object:
        from attunet.export.build.export_run import export_run

        return export_run(*arguments, **options)


sys.modules[__name__].__class__ = _CallablePackage
