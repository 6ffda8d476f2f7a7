// The ISA in use is the one asked for, every table is complete and is that of its ISA, and wrong requests are errors.
#include "dispatch.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <vector>

#include "cpu.h"

namespace triconv {
namespace {

TEST(Dispatch, BaselineIsFirstAndAlwaysThere) {
    ASSERT_FALSE(compiled_isas().empty());
    EXPECT_EQ(compiled_isas().front(), "baseline");
    ASSERT_FALSE(supported_isas().empty());
    EXPECT_EQ(supported_isas().front(), "baseline");
}

TEST(Dispatch, SupportedFollowsTheMachine) {
    const std::vector<std::string> isas = supported_isas();
    const auto has = [&](const char* name) { return std::find(isas.begin(), isas.end(), name) != isas.end(); };
    EXPECT_EQ(has("avx2"), cpu_has_avx2());
    EXPECT_EQ(has("avx512"), cpu_has_avx512());
    EXPECT_TRUE(cpu_has_avx2() || !cpu_has_avx512());
}

// Ran by CI once per ISA with TRICONV_MAX_ISA set: shows that the run used the kernels it was meant to.
TEST(Dispatch, KernelsInUseAreThoseAskedFor) {
    const char* asked = std::getenv("TRICONV_MAX_ISA");
    EXPECT_EQ(kernels().f32.isa, asked != nullptr ? std::string(asked) : supported_isas().back());
    EXPECT_STREQ(kernels().f64.isa, kernels().f32.isa);
}

TEST(Dispatch, MaxIsaLowers) {
    EXPECT_EQ(choose_isa(nullptr), supported_isas().back());
    for (const std::string& isa : supported_isas()) {
        EXPECT_EQ(choose_isa(isa.c_str()), isa);
    }
}

TEST(Dispatch, UnknownIsaIsAnErrorThatListsTheKnown) {
    for (const char* name : {"", "AVX2", "avx", "sse2", "avx512 "}) {
        EXPECT_THROW(choose_isa(name), std::invalid_argument) << name;
        EXPECT_THROW(kernels(name), std::invalid_argument) << name;
    }
    try {
        choose_isa("mmx");
        FAIL();
    } catch (const std::invalid_argument& error) {
        const std::string message = error.what();
        EXPECT_NE(message.find("TRICONV_MAX_ISA is \"mmx\""), std::string::npos) << message;
        EXPECT_NE(message.find("\"baseline\""), std::string::npos) << message;
    }
}

template <class E>
void expect_complete(const KernelTable<E>& table, const std::string& isa) {
    EXPECT_EQ(table.isa, isa);
    EXPECT_GE(table.lanes, 16 / static_cast<int>(sizeof(E)));
    for (int kind = 0; kind < product_kind_count; ++kind) {
        EXPECT_GE(table.product[kind].mr, 1);
        EXPECT_GE(table.product[kind].nr, 1);
        EXPECT_NE(table.product[kind].run, nullptr);
        EXPECT_NE(table.lanewise[kind], nullptr);
    }
    EXPECT_NE(table.rotate, nullptr);
    EXPECT_NE(table.read_row, nullptr);
    EXPECT_NE(table.write_row, nullptr);
    EXPECT_NE(table.depthwise_forward, nullptr);
    EXPECT_NE(table.depthwise_weight_grad, nullptr);
    EXPECT_NE(table.fft_line, nullptr);
    EXPECT_NE(table.winograd_line, nullptr);
    EXPECT_NE(table.codelets_of_line, nullptr);
}

TEST(Dispatch, EveryTableIsComplete) {
    for (const std::string& isa : supported_isas()) {
        expect_complete(kernels(isa).f32, isa);
        expect_complete(kernels(isa).f64, isa);
        EXPECT_EQ(kernels(isa).f32.lanes, 2 * kernels(isa).f64.lanes);
    }
}

TEST(Cpu, CacheSizesAreOrdered) {
    const CacheSizes& sizes = cache_sizes();
    EXPECT_GE(sizes.l1d, 4 << 10);
    EXPECT_GE(sizes.l2, sizes.l1d);
    EXPECT_GE(sizes.l3, sizes.l2);
}

}  // namespace
}  // namespace triconv
