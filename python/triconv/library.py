"""The C and C++ library inside the package: where programs that build on it find its headers and CMake package."""

from __future__ import annotations

import os.path

from . import _core

__all__ = ["get_cmake_dir", "get_include"]


def _installed(*parts: str) -> str:
    """A directory beside the extension module, where the wheel puts the library."""
    path = os.path.join(os.path.dirname(os.path.abspath(_core.__file__)), *parts)
    if not os.path.isdir(path):
        raise FileNotFoundError(f"{path} does not exist: this copy of triconv was not installed from a wheel")
    return path


def get_include() -> str:
    """Return the directory of the C and C++ headers, ``triconv/triconv.h`` and ``triconv/triconv.hpp``.

    Raises
    ------
    FileNotFoundError
        If the package was copied from a build tree instead of installed.

    Examples
    --------
    >>> import os, triconv as tc
    >>> os.path.exists(os.path.join(tc.get_include(), "triconv", "triconv.hpp"))
    True
    """
    return _installed("include")


def get_cmake_dir() -> str:
    """Return the directory of the CMake package, which gives ``find_package(triconv)`` the target ``triconv::triconv``.

    Pass it to CMake as ``-Dtriconv_DIR=...``. The target is the shared library that this package itself uses, so that a
    process has one pool of threads. The loader finds it by its name once ``import triconv`` has loaded it: an extension
    module built on it imports triconv first, and needs no path to the library.

    Raises
    ------
    FileNotFoundError
        If the package was copied from a build tree instead of installed.

    Examples
    --------
    >>> import os, triconv as tc
    >>> os.path.exists(os.path.join(tc.get_cmake_dir(), "triconvConfig.cmake"))
    True
    """
    return _installed("lib", "cmake", "triconv")
