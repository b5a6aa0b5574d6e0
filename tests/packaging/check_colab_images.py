"""Installing on one of Colab's images changes none of the packages there.

Invariant: an install, with the extras of use in a notebook or without, only
adds packages, and only those named in `IMAGES`.

The registry is asked what it would install today, so this is a check of its
own and not one of the tests. It needs uv, which resolves for a Python that is
not here::

    pip install uv
    python tests/packaging/check_colab_images.py

An image is played by an empty package folder with one name and version for
each line of its file in `constraints/`. What is missing there would count as
added, so that the files need no more than what we require.
"""

import configparser
import dataclasses
import pathlib
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence

HERE = pathlib.Path(__file__).parent
SETUP_CFG = HERE.parents[1] / "setup.cfg"
NOTEBOOK_EXTRAS = ("drive", "gpu", "report")


@dataclasses.dataclass(frozen=True)
class Image:
    """One of Colab's images.

    Attributes:
        name: The name of its file in `constraints/`.
        python: Its version of Python.
        adds: What an install without extras may add.
        extras_add: What the extras may add to that.
    """

    name: str
    python: str
    adds: frozenset[str] = frozenset()
    extras_add: frozenset[str] = frozenset()

    def pins(self) -> dict[str, str]:
        """Returns the packages of the image, name to version."""
        lines = (HERE / "constraints" / f"{self.name}.txt").read_text()
        return dict(re.findall(r"^([\w.-]+)==(\S+)$", lines, re.MULTILINE))


IMAGES = (
    Image("gpu", python="3.13"),
    Image(
        "tpu",
        python="3.13",
        adds=frozenset({"tensorboard", "tensorboard-data-server", "werkzeug"}),
        extras_add=frozenset(
            {
                "google-api-python-client",
                "google-auth-httplib2",
                "nvidia-ml-py",
                "uritemplate",
            }
        ),
    ),
    Image("2025.10", python="3.12"),
)


def requirements(extras: Sequence[str]) -> list[str]:
    """Returns what an install with `extras` requires, from setup.cfg."""
    setup = configparser.ConfigParser()
    setup.read_string(SETUP_CFG.read_text())
    texts = [setup["options"]["install_requires"]]
    texts += [setup["options.extras_require"][extra] for extra in extras]
    return [line for text in texts for line in text.split("\n") if line]


def play(pins: Mapping[str, str], folder: pathlib.Path) -> None:
    """Makes `folder` look as if the packages of `pins` were installed."""
    for name, version in pins.items():
        package = folder / f"{name.replace('-', '_')}-{version}.dist-info"
        package.mkdir()
        package.joinpath("METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        )
        package.joinpath("RECORD").touch()


def dry_run(image: Image, required: Sequence[str]) -> str:
    """Returns what uv says that an install on `image` would do."""
    with tempfile.TemporaryDirectory() as folder:
        play(image.pins(), pathlib.Path(folder))
        command = [sys.executable, "-m", "uv", "pip", "install", "--dry-run"]
        command += ["--color=never", "--target", folder]
        command += ["--python-version", image.python]
        command += ["--python-platform", "x86_64-manylinux_2_35"]
        done = subprocess.run(
            [*command, *required], capture_output=True, text=True, check=False
        )
    if done.returncode:
        sys.exit(f"No answer for the image {image.name}:\n{done.stderr}")
    return done.stderr


def faults(
    image: Image, required: Sequence[str], may_add: frozenset[str]
) -> list[str]:
    """Returns what an install on `image` would do and must not."""
    answer = dry_run(image, required)
    removed = re.findall(r"^ [-~] (\S+)==(\S+)", answer, re.MULTILINE)
    added = dict(re.findall(r"^ [+~] (\S+)==(\S+)", answer, re.MULTILINE))
    changed = {name for name, _ in removed}
    return [
        f"{name} {old} would become {added.get(name, 'nothing')}"
        for name, old in removed
    ] + [
        f"{name} {new} would be added: if the image has it, put it into "
        f"constraints/{image.name}.txt, else think, and name it in IMAGES"
        for name, new in added.items()
        if name not in changed and name not in may_add
    ]


def would_notice(image: Image, name: str) -> bool:
    """Returns whether a requirement that `image` does not meet is reported."""
    pin = image.pins()[name]
    required = [*requirements(()), f"{name}!={pin}"]
    return any(
        fault.startswith(f"{name} {pin} would become")
        for fault in faults(image, required, image.adds)
    )


def main(more_required: Sequence[str]) -> int:
    """Checks every image.

    Args:
        more_required: Requirements to try, beside those of setup.cfg.

    Returns:
        The exit status: 0 if nothing would be changed.
    """
    status = 0
    for image in IMAGES:
        if not would_notice(image, "keras"):
            sys.exit(f"The check is blind: it finds no fault in {image.name}.")
        for extras, may_add in (
            ((), image.adds),
            (NOTEBOOK_EXTRAS, image.adds | image.extras_add),
        ):
            required = [*requirements(extras), *more_required]
            found = faults(image, required, may_add)
            what = f"{image.name} [{','.join(extras)}]"
            print(f"{what}: {'FAULTS' if found else 'nothing changed'}")
            for fault in found:
                print(f"  {fault}")
            status = status or int(bool(found))
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
