// A problem: its checks and its one text form, which tests, benchmarks, logs and errors all print and read.
#include <locale.h>
#include <stdlib.h>

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cmath>
#include <limits>
#include <locale>
#include <sstream>
#include <stdexcept>
#include <utility>

#include "made_on_first_use.h"
#include "triconv/triconv.hpp"

namespace triconv {

namespace {

[[noreturn]] void fail(const std::string& message) {
    throw std::invalid_argument(message);
}

std::string axis_name(const Problem& p, int axis) {
    static const char* const names[] = {"depth", "height", "width"};
    return names[max_rank - p.rank + axis];
}

void check_range(const std::string& name, std::int64_t value, std::int64_t least) {
    // 2^40 along one axis is beyond any memory; keeping below it lets products of two sizes be formed safely.
    constexpr std::int64_t largest = std::int64_t{1} << 40;
    if (value < least || value > largest)
        fail(name + " is " + std::to_string(value) + ", expected " +
             (value < least ? "at least " + std::to_string(least) : "at most 2^40"));
}

constexpr const char* boundary_names[] = {"constant", "nearest", "reflect", "mirror", "wrap"};

// The shortest decimal that reads back as the same number.
std::string shortest(double value) {
    char text[32];
    return {text, std::to_chars(text, text + sizeof text, value).ptr};
}

// The whole text as a decimal number, "inf" or "nan", whatever the locale; false if it is none or too large. (libc++ before
// version 20 has std::from_chars for integers only.)
bool parse_number(const std::string& text, double& value) {
    static const MadeOnFirstUse<const locale_t> c_locale;
    if (text.empty() || text.find_first_not_of("+-.0123456789aefin") != std::string::npos) return false;
    char* rest = nullptr;
    value = strtod_l(text.c_str(), &rest, c_locale.get([] { return newlocale(LC_ALL_MASK, "C", nullptr); }));
    const bool overflows = std::isinf(value) && text.find('i') == std::string::npos;
    return rest == text.c_str() + text.size() && !overflows;
}

// The size in bytes of an array, checked: every offset into it must fit a signed 64-bit number with room to spare.
void check_bytes(const char* name, std::int64_t outer, std::int64_t inner, const std::int64_t* extent, int rank,
                 DType dtype) {
    std::vector<std::int64_t> shape{outer, inner};
    shape.insert(shape.end(), extent, extent + rank);
    const std::int64_t limit = std::numeric_limits<std::int64_t>::max() / 4;
    std::int64_t bytes = dtype == DType::f32 ? 4 : 8;
    for (std::int64_t size : shape) {
        if (size == 0) continue;
        if (bytes > limit / size) {
            std::string text;
            for (std::int64_t s : shape) {
                if (!text.empty()) text += 'x';
                text += std::to_string(s);
            }
            fail(std::string(name) + " of shape " + text +
                 " is too large: its size in bytes overflows, expected less than 2^61");
        }
        bytes *= size;
    }
}

}  // namespace

std::int64_t Problem::output(int axis) const {
    const std::int64_t span = dilation[axis] * (kernel[axis] - 1) + 1;
    const std::int64_t room = input[axis] + pad_lo[axis] + pad_hi[axis] - span;
    return room < 0 ? 0 : room / stride[axis] + 1;
}

const char* to_string(Boundary boundary) {
    return boundary_names[static_cast<std::size_t>(boundary)];
}

Boundary parse_boundary(const std::string& name) {
    for (std::size_t i = 0; i < std::size(boundary_names); ++i)
        if (name == boundary_names[i]) return static_cast<Boundary>(i);
    fail("boundary is '" + name + "', expected 'constant', 'nearest', 'reflect', 'mirror' or 'wrap'");
}

void validate(const Problem& p) {
    if (p.boundary != Boundary::constant && !(p.fill == 0))
        fail("fill is " + shortest(p.fill) + ", expected 0 with boundary '" + to_string(p.boundary) + "'");
    if (p.rank < 1 || p.rank > max_rank) fail("rank is " + std::to_string(p.rank) + ", expected 1, 2 or 3");
    check_range("batch", p.batch, 0);
    check_range("in_channels", p.in_channels, 0);
    check_range("out_channels", p.out_channels, 0);
    check_range("groups", p.groups, 1);
    for (auto [name, channels] : {std::pair{"in_channels", p.in_channels}, std::pair{"out_channels", p.out_channels}})
        if (channels % p.groups != 0)
            fail(std::string(name) + " is " + std::to_string(channels) +
                 ", expected a multiple of groups = " + std::to_string(p.groups));
    for (int axis = 0; axis < p.rank; ++axis) {
        const std::string where = " (" + axis_name(p, axis) + ")";
        check_range("input size" + where, p.input[axis], 1);
        check_range("kernel size" + where, p.kernel[axis], 1);
        check_range("stride" + where, p.stride[axis], 1);
        check_range("dilation" + where, p.dilation[axis], 1);
        check_range("padding" + where, p.pad_lo[axis], 0);
        check_range("padding" + where, p.pad_hi[axis], 0);
        const std::int64_t limit = std::int64_t{1} << 41;
        if (p.kernel[axis] > 1 && p.dilation[axis] > limit / (p.kernel[axis] - 1))
            fail("kernel size" + where + " is " + std::to_string(p.kernel[axis]) + " with dilation " +
                 std::to_string(p.dilation[axis]) + ", which spans more than 2^41 samples");
        const std::int64_t span = p.dilation[axis] * (p.kernel[axis] - 1) + 1;
        const std::int64_t padded = p.input[axis] + p.pad_lo[axis] + p.pad_hi[axis];
        if (span > padded) {
            std::string kernel = std::to_string(span);
            if (p.dilation[axis] > 1)
                kernel +=
                    " = " + std::to_string(p.dilation[axis]) + " * (" + std::to_string(p.kernel[axis]) + " - 1) + 1";
            fail("kernel is larger than the padded input" + where + ": kernel spans " + kernel + ", expected at most " +
                 std::to_string(padded) + " = " + std::to_string(p.input[axis]) + " + " +
                 std::to_string(p.pad_lo[axis]) + " + " + std::to_string(p.pad_hi[axis]));
        }
    }
    std::int64_t output[max_rank], padded[max_rank];
    for (int axis = 0; axis < p.rank; ++axis) {
        output[axis] = p.output(axis);
        padded[axis] = p.input[axis] + p.pad_lo[axis] + p.pad_hi[axis];
    }
    check_bytes("input (with padding)", p.batch, p.in_channels, padded, p.rank, p.dtype);
    check_bytes("weight", p.out_channels, p.in_channels / p.groups, p.kernel, p.rank, p.dtype);
    check_bytes("output", p.batch, p.out_channels, output, p.rank, p.dtype);
}

// ---- text -----------------------------------------------------------------------------------------------------------

namespace {

void write_axes(std::ostream& out, const char* key, const std::int64_t* values, int rank) {
    out << ' ' << key;
    for (int axis = 0; axis < rank; ++axis)
        out << (axis ? "x" : "") << values[axis];
}

bool all_equal_to(const std::int64_t* values, int rank, std::int64_t value) {
    for (int axis = 0; axis < rank; ++axis)
        if (values[axis] != value) return false;
    return true;
}

void write_padding(std::ostream& out, const Problem& p) {
    if (all_equal_to(p.pad_lo, p.rank, 0) && all_equal_to(p.pad_hi, p.rank, 0)) return;
    bool uniform = true;
    for (int axis = 0; axis < p.rank; ++axis)
        uniform = uniform && p.pad_lo[axis] == p.pad_lo[0] && p.pad_hi[axis] == p.pad_hi[0];
    out << " p";
    for (int axis = 0; axis < (uniform ? 1 : p.rank); ++axis) {
        out << (axis ? "x" : "") << p.pad_lo[axis];
        if (p.pad_hi[axis] != p.pad_lo[axis]) out << ':' << p.pad_hi[axis];
    }
}

void write_boundary(std::ostream& out, const Problem& p) {
    if (p.boundary == Boundary::constant && p.fill == 0) return;
    out << " b=" << to_string(p.boundary);
    if (p.boundary == Boundary::constant) out << ':' << shortest(p.fill);
}

void write_uniform(std::ostream& out, const char* key, const std::int64_t* values, int rank, std::int64_t normal) {
    if (all_equal_to(values, rank, normal)) return;
    write_axes(out, key, values, all_equal_to(values, rank, values[0]) ? 1 : rank);
}

// Reads "16", "16x8" or, with pairs, "1:2x0" from one word.
class WordReader {
public:
    WordReader(const std::string& text, std::size_t begin, std::size_t end) : text_(text), at_(begin), end_(end) {}
    bool done() const { return at_ >= end_; }
    bool take(char c) {
        if (done() || text_[at_] != c) return false;
        ++at_;
        return true;
    }
    char take_letter() {
        if (done() || !std::isalpha(static_cast<unsigned char>(text_[at_]))) bad();
        return text_[at_++];
    }
    std::int64_t number() {
        const std::size_t begin = at_;
        std::int64_t value = 0;
        while (!done() && std::isdigit(static_cast<unsigned char>(text_[at_])) && value < (std::int64_t{1} << 50))
            value = value * 10 + (text_[at_++] - '0');
        if (at_ == begin) bad();
        return value;
    }
    int axes(std::int64_t* lo, std::int64_t* hi = nullptr) {
        int count = 0;
        do {
            if (count == max_rank) bad();
            lo[count] = number();
            if (hi) hi[count] = take(':') ? number() : lo[count];
            ++count;
        } while (take('x'));
        if (!done()) bad();
        return count;
    }
    // "=mirror" or "=constant:2.5"
    void boundary(Problem& p) {
        if (!take('=')) bad();
        const std::string name = text_.substr(at_, std::min(text_.find(':', at_), end_) - at_);
        p.boundary = parse_boundary(name);
        at_ += name.size();
        if (take(':') && !parse_number(text_.substr(at_, end_ - at_), p.fill)) bad();
    }
    [[noreturn]] void bad() const {
        fail("problem text '" + text_ + "' cannot be read at position " + std::to_string(at_) +
             ", expected a form like 'n8c64k64 i56x56 r7x7 s1 p3 d1 g1 f32 fwd'");
    }

private:
    const std::string& text_;
    std::size_t at_, end_;
};

// One value given for all axes is spread over them.
void spread(std::int64_t* values, int count, int rank, const WordReader& reader) {
    if (count != 1 && count != rank) reader.bad();
    for (int axis = count; axis < rank; ++axis)
        values[axis] = values[0];
}

}  // namespace

const char* to_string(Pass pass) {
    switch (pass) {
        case Pass::forward:
            return "fwd";
        case Pass::input_grad:
            return "bwd_input";
        case Pass::weight_grad:
            return "bwd_weight";
    }
    return "";
}

std::string to_string(const Problem& p) {
    std::ostringstream out;
    out.exceptions(std::ios::badbit);  // or the text would be cut short without a word when memory runs out
    out.imbue(std::locale::classic());
    out << 'n' << p.batch << 'c' << p.in_channels << 'k' << p.out_channels;
    write_axes(out, "i", p.input, p.rank);
    write_axes(out, "r", p.kernel, p.rank);
    write_uniform(out, "s", p.stride, p.rank, 1);
    write_padding(out, p);
    write_uniform(out, "d", p.dilation, p.rank, 1);
    if (p.groups != 1) out << " g" << p.groups;
    write_boundary(out, p);
    out << (p.dtype == DType::f32 ? " f32" : " f64");
    return out.str();
}

std::string to_string(const Problem& p, Pass pass) {
    return to_string(p) + ' ' + to_string(pass);
}

ProblemAndPass parse_problem(const std::string& text) {
    ProblemAndPass result;
    Problem& p = result.problem;
    int strides = 1, paddings = 1, dilations = 1, kernels = 0, inputs = 0;
    std::size_t at = 0;
    while (at < text.size()) {
        if (text[at] == ' ') {
            ++at;
            continue;
        }
        const std::size_t end = std::min(text.find(' ', at), text.size());
        const std::string word = text.substr(at, end - at);
        WordReader reader(text, at, end);
        at = end;
        if (word == "f32" || word == "f64") {
            p.dtype = word == "f32" ? DType::f32 : DType::f64;
            continue;
        }
        bool is_pass = false;
        for (Pass pass : {Pass::forward, Pass::input_grad, Pass::weight_grad})
            if (word == to_string(pass)) {
                result.pass = pass;
                is_pass = true;
            }
        if (is_pass) continue;
        switch (reader.take_letter()) {
            case 'n':
                p.batch = reader.number();
                if (!reader.take('c')) reader.bad();
                p.in_channels = reader.number();
                if (!reader.take('k')) reader.bad();
                p.out_channels = reader.number();
                if (!reader.done()) reader.bad();
                break;
            case 'i':
                inputs = reader.axes(p.input);
                break;
            case 'r':
                kernels = reader.axes(p.kernel);
                break;
            case 's':
                strides = reader.axes(p.stride);
                break;
            case 'd':
                dilations = reader.axes(p.dilation);
                break;
            case 'p':
                paddings = reader.axes(p.pad_lo, p.pad_hi);
                break;
            case 'b':
                reader.boundary(p);
                break;
            case 'g':
                p.groups = reader.number();
                if (!reader.done()) reader.bad();
                break;
            default:
                reader.bad();
        }
    }
    const WordReader whole(text, text.size(), text.size());
    if (inputs == 0 || kernels == 0) whole.bad();
    p.rank = inputs;
    spread(p.kernel, kernels, p.rank, whole);
    spread(p.stride, strides, p.rank, whole);
    spread(p.dilation, dilations, p.rank, whole);
    spread(p.pad_lo, paddings, p.rank, whole);
    spread(p.pad_hi, paddings, p.rank, whole);
    validate(p);
    return result;
}

View::operator ConstView() const {
    ConstView view;
    view.data = data;
    for (int i = 0; i < 2 + max_rank; ++i)
        view.strides[i] = strides[i];
    return view;
}

}  // namespace triconv
