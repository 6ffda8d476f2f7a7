#include "dispatch.h"

#include <algorithm>
#include <cstdlib>
#include <iterator>
#include <stdexcept>

#include "cpu.h"
#include "made_on_first_use.h"

// The functions that kernels/table.cpp defines. Only one of an ISA that the machine has may be called.
#define TRICONV_ISA(name, test) extern "C" void triconv_kernels_##name(triconv::IsaKernels*);
#include "isa.def"
#undef TRICONV_ISA

namespace triconv {
namespace {

struct Isa {
    const char* name;
    bool (*supported)();
    void (*fill)(IsaKernels*);
};

#define TRICONV_ISA(name, test) {#name, [] { return test; }, triconv_kernels_##name},
constexpr Isa isas[] = {
#include "isa.def"
};
#undef TRICONV_ISA

std::string quoted_list(const std::vector<std::string>& names) {
    std::string text;
    for (const std::string& name : names) {
        text += (text.empty() ? "\"" : ", \"") + name + "\"";
    }
    return text;
}

// `what` names the value in errors. A supported ISA or an exception.
const Isa& find_isa(const std::string& name, const std::string& what) {
    const auto* isa = std::find_if(std::begin(isas), std::end(isas), [&](const Isa& i) { return i.name == name; });
    if (isa == std::end(isas) || !isa->supported()) {
        const char* reason = isa == std::end(isas) ? "is not compiled in" : "is not supported by this machine";
        throw std::invalid_argument(what + " is \"" + name + "\", which " + reason + "; expected one of " +
                                    quoted_list(supported_isas()));
    }
    return *isa;
}

}  // namespace

std::vector<std::string> compiled_isas() {
    std::vector<std::string> names;
    for (const Isa& isa : isas) {
        names.push_back(isa.name);
    }
    return names;
}

std::vector<std::string> supported_isas() {
    std::vector<std::string> names;
    for (const Isa& isa : isas) {
        if (isa.supported()) { names.push_back(isa.name); }
    }
    return names;
}

std::string choose_isa(const char* max_isa) {
    return max_isa == nullptr ? supported_isas().back() : find_isa(max_isa, "TRICONV_MAX_ISA").name;
}

const IsaKernels& kernels(const std::string& name) {
    static const MadeOnFirstUse<const IsaKernels> made[std::size(isas)];
    const Isa& isa = find_isa(name, "isa");
    return made[&isa - isas].get([&] {
        IsaKernels kernels;
        isa.fill(&kernels);
        return kernels;
    });
}

const IsaKernels& kernels() {
    static const MadeOnFirstUse<const IsaKernels* const> chosen;
    return *chosen.get([] { return &kernels(choose_isa(std::getenv("TRICONV_MAX_ISA"))); });
}

}  // namespace triconv
