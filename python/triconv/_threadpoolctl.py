"""What threadpoolctl calls: imported by `runtime.register_threadpoolctl` only, since threadpoolctl is optional."""

from __future__ import annotations

import ctypes

import threadpoolctl


class _BuildInfo(ctypes.Structure):
    """triconv_build_info of triconv.h."""

    _fields_ = (
        ("struct_size", ctypes.c_size_t),
        *((name, ctypes.c_char_p) for name in ("version", "compiler", "flags", "isas", "isa")),
    )


class Controller(threadpoolctl.LibController):  # type: ignore[misc]  # threadpoolctl has no types
    """The threads of a loaded libtriconv, by its C interface: one that another package has loaded counts, too."""

    user_api = "triconv"
    internal_api = "triconv"
    filename_prefixes = ("libtriconv",)
    check_symbols = ("triconv_num_threads", "triconv_set_num_threads")

    def get_num_threads(self) -> int:
        count = ctypes.c_int32()
        self._check(self.dynlib.triconv_num_threads(ctypes.byref(count)))
        return count.value

    def set_num_threads(self, num_threads: int) -> None:
        self._check(self.dynlib.triconv_set_num_threads(ctypes.c_int32(num_threads)))

    def get_version(self) -> str:
        info = _BuildInfo()
        self._check(self.dynlib.triconv_build_info_init(ctypes.byref(info), ctypes.c_size_t(ctypes.sizeof(info))))
        self._check(self.dynlib.triconv_get_build_info(ctypes.byref(info)))
        version: bytes = info.version
        return version.decode()

    def _check(self, status: int) -> None:
        if status:
            last_error = self.dynlib.triconv_last_error
            last_error.restype = ctypes.c_char_p
            raise ValueError(last_error().decode())


threadpoolctl.register(Controller)
