// The extension module triconv._core: registers what the other files define.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "functions.h"
#include "geometry.h"
#include "plan.h"
#include "released_gil.h"
#include "result_memory.h"
#include "runs.h"
#include "triconv/triconv.hpp"

namespace triconv::python {

namespace {

// (problem, algorithm, isa, tiles, recomputed_tiles) of the calling thread's last run, or None.
py::object last_run_tuple() {
    const std::optional<LastRun>& run = last_run();
    if (!run) return py::none();
    const std::string problem = run->pass ? to_string(run->problem, *run->pass) : to_string(run->problem);
    return py::make_tuple(problem, run->info.algorithm, run->info.isa, run->info.tiles, run->info.recomputed_tiles);
}

py::tuple build_info_tuple() {
    const BuildInfo info = build_info();
    return py::make_tuple(info.version, info.compiler, info.flags, py::tuple(py::cast(info.isas)), info.isa);
}

// (cpu, l1d, l2, l3): what, with the ISA, timings depend on.
py::tuple machine_tuple() {
    const CpuInfo cpu = cpu_info();
    return py::make_tuple(cpu.model, cpu.l1d, cpu.l2, cpu.l3);
}

void set_threads(const py::object& count) {
    const std::int64_t number = read_int("n", count, 1);
    constexpr std::int64_t limit = 1 << 16;
    if (number > limit)
        throw py::value_error("n is " + std::to_string(number) + ", expected at most " + std::to_string(limit) +
                              " threads");
    const ReleasedGil released;
    set_num_threads(static_cast<int>(number));
}

}  // namespace

}  // namespace triconv::python

PYBIND11_MODULE(_core, module, pybind11::mod_gil_not_used()) {
    using namespace triconv::python;
    module.attr("__version__") = TRICONV_VERSION;
    register_functions(module);
    register_plan(module);
    module.def("last_run", &last_run_tuple);
    module.def("build_info", &build_info_tuple);
    module.def("set_num_threads", &set_threads);
    module.def("machine", &machine_tuple);
    module.def("get_num_threads", &triconv::num_threads);
    module.def("release_memory", &triconv::release_memory);
    module.def("empty", &empty_array);
}
