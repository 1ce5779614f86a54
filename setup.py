"""What pyproject.toml can't say: the shipped studies, which lie beside the package, are installed inside of it."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

STUDIES = Path("studies")


class WithStudies(build_py):
    """Also copies `studies/` to `ablate/studies`, where `ablate.study.shipped` looks for it."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:  # then the package is that of the clone, beside which they lie
            return
        into = Path(self.build_lib, "ablate", STUDIES)
        shutil.rmtree(into, ignore_errors=True)
        into.mkdir(parents=True)
        for path in sorted((*STUDIES.glob("*.yaml"), *STUDIES.glob("*.py"))):
            shutil.copy(path, into)


setup(cmdclass={"build_py": WithStudies})
