// Decisions from a fuzzer's input while it lasts, then from a generator that the input seeds: short inputs, with which
// libFuzzer begins, draw whole cases, too.
#pragma once

#include <fuzzer/FuzzedDataProvider.h>

#include <bit>
#include <cstdint>
#include <iterator>
#include <random>
#include <string>
#include <string_view>

namespace triconv::test {

class Draw {
public:
    Draw(const std::uint8_t* data, std::size_t size)
        : bytes_(data, size), rest_(std::hash<std::string_view>()({reinterpret_cast<const char*>(data), size})) {}

    template <class T>
    T between(T least, T most) {
        if (bytes_.remaining_bytes() > 0) return bytes_.ConsumeIntegralInRange<T>(least, most);
        return static_cast<T>(std::uniform_int_distribution<std::int64_t>(static_cast<std::int64_t>(least),
                                                                          static_cast<std::int64_t>(most))(rest_));
    }
    // True once in `times`.
    bool one_in(int times) { return between(1, times) == times; }
    std::int64_t any_integer() {
        return between(std::numeric_limits<std::int64_t>::min(), std::numeric_limits<std::int64_t>::max());
    }
    double any_float() { return std::bit_cast<double>(any_integer()); }
    template <class T, std::size_t Count>
    const T& one_of(const T (&values)[Count]) {
        return values[between<std::size_t>(0, Count - 1)];
    }
    std::string text(int longest) {
        std::string result(static_cast<std::size_t>(between(0, longest)), ' ');
        for (char& c : result)
            c = static_cast<char>(between(0, 255));
        return result;
    }

private:
    FuzzedDataProvider bytes_;
    std::mt19937_64 rest_;
};

}  // namespace triconv::test
