"""Programs that use triconv as their users would: each is built apart from its source tree and must run.

Two against a build tree installed somewhere else (static or shared, as it was built), which the environment variable
TRICONV_BUILD_DIR names; two against the wheel of the running interpreter. `embed` is built by .ci/run.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pybind11
import pytest
import triconv

HERE = Path(__file__).parent


def run(*command: object, **environment: object) -> str:
    """Output of a command that must succeed; the test shows it if it does not."""
    done = subprocess.run(
        [str(part) for part in command],
        env={**os.environ, **{name: str(value) for name, value in environment.items()}},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    print(done.stdout)
    assert done.returncode == 0, command
    return done.stdout


def build(source: Path, binary: Path, **settings: object) -> None:
    definitions = [f"-D{name}={value}" for name, value in settings.items()]
    run("cmake", "-S", source, "-B", binary, "-G", "Ninja", "-DCMAKE_BUILD_TYPE=Release", *definitions)
    run("cmake", "--build", binary)


@pytest.fixture(scope="module")
def prefix(tmp_path_factory) -> Path:
    """The build tree, installed and then moved: an installed package does not know where it lies."""
    first = tmp_path_factory.mktemp("install") / "first"
    run("cmake", "--install", os.environ["TRICONV_BUILD_DIR"], "--prefix", first)
    return first.rename(first.with_name("moved"))


def test_installed_files(prefix):
    names = {path.name for path in prefix.rglob("*") if path.is_file()}
    assert {"triconv.hpp", "triconvConfig.cmake", "triconv.pc", "LICENSE", "LICENSE.pocketfft.txt"} <= names
    assert {path.parent.name for path in prefix.rglob("*.h*")} == {"triconv"}


def test_cmake_program_trains(prefix, tmp_path):
    build(HERE / "cmake_train", tmp_path, CMAKE_PREFIX_PATH=prefix)
    assert "learned" in run(tmp_path / "train")


@pytest.mark.parametrize("standard", ["c99", "c17"])
def test_c_program_by_pkg_config(prefix, tmp_path, standard):
    is_static = not list(prefix.glob("lib*/libtriconv.so*"))
    (package,) = prefix.rglob("pkgconfig")
    options = ["--cflags", "--libs", *(["--static"] if is_static else [])]
    flags = run("pkg-config", *options, "triconv", PKG_CONFIG_PATH=package).split()
    program = tmp_path / "gradients"
    source = HERE / "pkgconfig_c/gradients.c"
    run("cc", f"-std={standard}", "-Wall", "-Wextra", "-Wpedantic", "-Werror", source, "-o", program, *flags, "-lm")
    assert "refused" in run(program, LD_LIBRARY_PATH=package.parent)


def test_ctypes_program():
    (library,) = Path(triconv.get_cmake_dir()).parents[1].glob("libtriconv.*")
    assert "refused" in run(sys.executable, HERE / "ctypes_user.py", library)


def test_extension_on_the_wheels_library(tmp_path):
    build(
        HERE / "wheel_extension",
        tmp_path,
        triconv_DIR=triconv.get_cmake_dir(),
        pybind11_DIR=pybind11.get_cmake_dir(),
        Python_EXECUTABLE=sys.executable,
    )
    assert "one library" in run(sys.executable, HERE / "wheel_extension/check.py", PYTHONPATH=tmp_path)
