// Sums of products with all their digits, whatever the order: of the definition (reference.h), and of what a transform leaves
// out. To be compiled without contraction: a fused product hides what an addition rounds off.
#pragma once

#include <cmath>

namespace triconv {

// A sum with what its additions rounded off, and with what adding that up rounded off (Ogita, Rump, Oishi: SumK): terms may
// cancel to a number that has 1e-32 of their size.
template <class T>
struct CompensatedSum {
    T sum = 0, error = 0, rest = 0;

    void add(T term) { rest += add_to(error, add_to(sum, term)); }
    // `low`: what was rounded off in forming the term.
    void add(T term, T low) {
        add(term);
        rest += add_to(error, low);
    }
    // Once the sum is not finite, errors are NaN.
    T value() const {
        if (!std::isfinite(sum)) return sum;
        T total = sum;
        const T low = add_to(total, error);  // they may cancel
        return total + (low + rest);
    }

private:
    // total += term; what that rounded off (Knuth).
    static T add_to(T& total, T term) {
        const T before = total;
        total = before + term;
        const T added = total - before;
        return (before - (total - added)) + (term - added);
    }
};

// Once the sum is NaN, add returns false: no further term can change that.
template <class E>
class ProductSum;

// The products are exact.
template <>
class ProductSum<float> {
public:
    bool add(float a, float b) {
        sum_.add(static_cast<double>(a) * b);
        return !std::isnan(sum_.sum);
    }
    float value() const { return static_cast<float>(sum_.value()); }

private:
    CompensatedSum<double> sum_;
};

// From where partial sums overflow on, they are formed in long double, which has room for them: so the class of a sum does
// not depend on the order of its terms.
template <>
class ProductSum<double> {
public:
    bool add(double a, double b) {
        if (overflowed_) return add_wide(a, b);
        const double product = a * b;
        CompensatedSum<double> next = sum_;
        next.add(product, std::fma(a, b, -product));
        if (std::isfinite(next.error)) {  // it is not where a difference alone overflows, next to the largest number
            sum_ = next;
            return true;
        }
        overflowed_ = true;
        wide_.add(sum_.sum, sum_.error);
        wide_.add(sum_.rest);
        return add_wide(a, b);
    }
    double value() const { return overflowed_ ? static_cast<double>(wide_.value()) : sum_.value(); }

private:
    bool add_wide(double a, double b) {
        const long double product = static_cast<long double>(a) * b;
        if (std::isfinite(product))
            wide_.add(product, std::fma(static_cast<long double>(a), static_cast<long double>(b), -product));
        else
            wide_.add(product);
        return !std::isnan(wide_.sum);
    }

    CompensatedSum<double> sum_;
    CompensatedSum<long double> wide_;
    bool overflowed_ = false;
};

}  // namespace triconv
