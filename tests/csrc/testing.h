// What the tests of kernels share: reproducible data, arrays that end at memory nobody may touch,
// and pairs of them for the serial kernel and another one.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <initializer_list>

#include "kernels/kernels.h"

namespace bhvit {
namespace testing {

// The same numbers on every processor and with every standard library (splitmix64).
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}

  uint32_t word() {
    uint64_t x = state_ += 0x9e3779b97f4a7c15u;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return static_cast<uint32_t>((x ^ x >> 31) >> 32);
  }
  int below(int end) { return static_cast<int>(word() % static_cast<uint32_t>(end)); }
  int between(int first, int last) { return first + below(last - first + 1); }
  template <typename T, size_t N>
  T one_of(const T (&values)[N]) {
    return values[below(N)];
  }
  // Mostly between -2 and 2; now and then a zero of either sign, a subnormal, or far away.
  float value() {
    constexpr float special[] = {0.0f, -0.0f, 1e-40f, -1e-40f, 1e-20f, -1e-20f, 3e4f, -3e4f};
    if (below(16) == 0) return one_of(special);
    return static_cast<float>(static_cast<int32_t>(word())) * 0x1p-30f;
  }

 private:
  uint64_t state_;
};

// What is being tested now, for reports.
class Report {
 public:
  __attribute__((format(printf, 1, 2))) static void context(const char* format, ...) {
    va_list arguments;
    va_start(arguments, format);
    std::vsnprintf(text(), kSize, format, arguments);
    va_end(arguments);
    ++checks();
  }
  static void failed(const char* what) {
    if (++failures() <= 20) std::fprintf(stderr, "FAILED %s: %s\n", text(), what);
  }
  static char* text() {
    static char text[kSize] = "";
    return text;
  }
  static int& checks() {
    static int number = 0;
    return number;
  }
  static int& failures() {
    static int number = 0;
    return number;
  }

 private:
  static constexpr size_t kSize = 512;
};

// Elements of which the first or the last lies next to a page that may not be touched, or up to
// three elements away, so that pointers are aligned to elements alone. What is written between
// them and the page is found later.
template <typename T>
class Array {
 public:
  Array(size_t number, Random& random) : number_(number) {
    const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    const size_t slack = static_cast<size_t>(random.below(4)), bytes = (number + slack) * sizeof(T);
    inner_ = (bytes + page - 1) / page * page;
    whole_ = inner_ + 2 * page;
    mapping_ =
        static_cast<uint8_t*>(mmap(nullptr, whole_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    if (mapping_ == MAP_FAILED || mprotect(mapping_ + page, inner_, PROT_READ | PROT_WRITE)) {
      std::perror("memory of a test");
      std::abort();
    }
    first_ = mapping_ + page;
    std::memset(first_, kUntouched, inner_);
    const bool at_end = random.below(2) == 0;
    data_ = reinterpret_cast<T*>(first_ + (at_end ? inner_ - bytes : slack * sizeof(T)));
  }
  ~Array() { munmap(mapping_, whole_); }
  Array(const Array&) = delete;
  Array& operator=(const Array&) = delete;

  T* data() { return data_; }
  const T* data() const { return data_; }
  size_t size() const { return number_; }
  T& operator[](size_t i) { return data_[i]; }
  const T& operator[](size_t i) const { return data_[i]; }

  bool surroundings_untouched() const {
    const uint8_t* const begin = reinterpret_cast<const uint8_t*>(data_);
    const uint8_t* const end = begin + number_ * sizeof(T);
    for (const uint8_t* p = first_; p < begin; ++p)
      if (*p != kUntouched) return false;
    for (const uint8_t* p = end; p < first_ + inner_; ++p)
      if (*p != kUntouched) return false;
    return true;
  }

 private:
  static constexpr uint8_t kUntouched = 0xa5;  // as floats small and finite
  size_t number_, inner_, whole_;
  uint8_t *mapping_, *first_;
  T* data_;
};

inline void fill(Array<float>& array, Random& random) {
  for (size_t i = 0; i < array.size(); ++i) array[i] = random.value();
}
// Bits: mostly random, else all alike, which is what counters have to have room for.
inline void fill(Array<uint32_t>& array, Random& random) {
  const int kind = random.below(6);
  for (size_t i = 0; i < array.size(); ++i)
    array[i] = kind == 0 ? 0 : kind == 1 ? ~0u : random.word();
}
inline void fill(Array<int32_t>& array, Random& random) {
  for (size_t i = 0; i < array.size(); ++i) array[i] = random.between(-5000, 5000);
}
inline void fill(Array<uint8_t>& array, Random& random) {
  for (size_t i = 0; i < array.size(); ++i) array[i] = static_cast<uint8_t>(random.word());
}
inline void fill(Array<BranchChannel>& array, Random& random) {
  for (size_t i = 0; i < array.size(); ++i)
    array[i] = {random.value(), random.value(), random.value()};
}
inline void fill(Array<BitChannel>& array, Random& random) {
  for (size_t i = 0; i < array.size(); ++i)
    array[i] = {random.value(), random.value(), random.value(), random.value()};
}
inline void fill(Array<OutputChannel>& array, Random& random) {
  for (size_t i = 0; i < array.size(); ++i)
    array[i] = {random.value(), random.value(), random.value(), random.value(), random.value()};
}

template <typename T>
struct Filled : Array<T> {
  Filled(size_t number, Random& random) : Array<T>(number, random) { fill(*this, random); }
};

// The same contents twice, at addresses of their own: one for the serial kernel, one for the other.
template <typename T>
struct Twin {
  Array<T> serial, other;

  Twin(size_t number, Random& random) : serial(number, random), other(number, random) {
    fill(serial, random);
    copy();
  }
  void copy() { std::memcpy(other.data(), serial.data(), serial.size() * sizeof(T)); }

  // Compares the first `valid` elements of `rows` that are `stride` apart, to the bit.
  void expect_equal(const char* what, int rows, int stride, size_t valid) const {
    for (int row = 0; row < rows; ++row) {
      const size_t from = static_cast<size_t>(row) * stride;
      if (std::memcmp(&serial[from], &other[from], valid * sizeof(T)) == 0) continue;
      size_t i = from;
      while (std::memcmp(&serial[i], &other[i], sizeof(T)) == 0) ++i;
      char text[160];
      std::snprintf(text, sizeof(text), "%s differs at %zu: %.9g instead of %.9g", what, i,
                    static_cast<double>(other[i]), static_cast<double>(serial[i]));
      return Report::failed(text);
    }
    if (!serial.surroundings_untouched() || !other.surroundings_untouched())
      Report::failed("wrote before or behind an array");
  }
  void expect_equal(const char* what) const { expect_equal(what, 1, 0, serial.size()); }
};

// Float maps with the circular border that the engine keeps, and what it puts elsewhere: anything.
struct TwinMap : Twin<float> {
  Map serial_map, other_map;

  TwinMap(int height, int width, int channels, Random& random)
      : Twin(planes_size(height, width, channels), random),
        serial_map(make_planes(serial.data(), height, width, channels)),
        other_map(make_planes(other.data(), height, width, channels)) {
    const int borders[] = {-2, -1, width, width + 1};
    for (int y = 0; y < height; ++y)
      for (int c = 0; c < channels; ++c)
        for (int border : borders)
          *serial_map.at(y, c, border) = *serial_map.at(y, c, (border + 2 * width) % width);
    copy();
  }
};

// Bit maps: zeros wherever no token lies.
struct TwinBitMap : Twin<uint32_t> {
  BitMap serial_map, other_map;

  TwinBitMap(int height, int width, int words, Random& random)
      : Twin(planes_size(height, width, words), random),
        serial_map(make_planes(serial.data(), height, width, words)),
        other_map(make_planes(other.data(), height, width, words)) {
    const Filled<uint32_t> tokens(static_cast<size_t>(height) * words * width, random);
    const uint32_t* next = tokens.data();
    std::memset(serial.data(), 0, serial.size() * sizeof(uint32_t));
    for (int y = 0; y < height; ++y)
      for (int w = 0; w < words; ++w)
        for (int x = 0; x < width; ++x) *serial_map.at(y, w, x) = *next++;
    copy();
  }
};

struct Pair {
  const Kernels &serial, &other;
};

constexpr int kWidths[] = {1, 2, 3, 5, 7, 8, 15, 16, 17, 31, 32, 33, 50, 64, 65};
constexpr int kMaxHeight = 9;
constexpr int kChannels[] = {32, 64, 96, 128};
constexpr int kStrides[] = {kLanes, 2 * kLanes, 3 * kLanes};

// Calls test(height, width) for all sizes of maps.
template <typename Test>
void for_sizes(const Test& test) {
  for (int width : kWidths)
    for (int height = 1; height <= kMaxHeight; ++height) test(height, width);
}

// Up to `most` tokens of a map from anywhere on.
inline Tokens some_tokens(int height, int width, int most, Random& random) {
  const int token = random.below(height * width), left = height * width - token;
  const int count = left < most ? left : most;
  return {token, random.below(3) ? count : random.between(1, count)};
}

void test_tile_kernels(const Pair& kernels, Random& random);
void test_map_kernels(const Pair& kernels, Random& random);
void test_product_kernels(const Pair& kernels, Random& random);
void test_attention_kernels(const Pair& kernels, Random& random);

}  // namespace testing
}  // namespace bhvit
