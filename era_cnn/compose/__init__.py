"""How a run is asked for: the only package that knows Hydra."""

import sys
from types import ModuleType
from typing import Any

from era_cnn.compose.hydra_versions import check_versions

check_versions()  # before hydra_door imports names that another Hydra may not have


class _Package(ModuleType):
    """Makes the package callable: the function `era_cnn.compose` has its name, and is hidden once it is imported."""

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        from era_cnn.api import compose

        return compose(*arguments, **options)


sys.modules[__name__].__class__ = _Package
