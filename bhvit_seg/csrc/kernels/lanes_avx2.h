// Sixteen lanes in two AVX2 registers.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "../maps.h"

namespace bhvit {
namespace avx2 {

struct F {
  __m256 a, b;
};
struct U {
  __m256i a, b;
};
struct M {
  __m256i a, b;
};  // all bits of a lane
constexpr int kOutputs = 4;
constexpr int kTokens = 1;
constexpr int kChains = 3;       // vectors whose polynomials are evaluated together
constexpr int kTableTokens = 2;  // vectors that products by table take together: tables_avx2.h

#define BHVIT_EACH(type, operation) \
  return type { operation(x.a), operation(x.b) }
#define BHVIT_BOTH(type, operation) \
  return type { operation(x.a, y.a), operation(x.b, y.b) }

BHVIT_INLINE __m256i float_bits(__m256 x) { return _mm256_castps_si256(x); }
BHVIT_INLINE __m256 float_mask(__m256i x) { return _mm256_castsi256_ps(x); }

BHVIT_INLINE M below(int n) {
  const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7), limit = _mm256_set1_epi32(n);
  return {_mm256_cmpgt_epi32(limit, lane),
          _mm256_cmpgt_epi32(limit, _mm256_add_epi32(lane, _mm256_set1_epi32(8)))};
}
BHVIT_INLINE M or_(M x, M y) { BHVIT_BOTH(M, _mm256_or_si256); }
BHVIT_INLINE M and_(M x, M y) { BHVIT_BOTH(M, _mm256_and_si256); }
BHVIT_INLINE M not_(M x) {
  const __m256i ones = _mm256_set1_epi32(-1);
  return {_mm256_xor_si256(x.a, ones), _mm256_xor_si256(x.b, ones)};
}
BHVIT_INLINE bool any(M x) { return _mm256_movemask_epi8(_mm256_or_si256(x.a, x.b)) != 0; }

BHVIT_INLINE F load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
BHVIT_INLINE F load_first(const float* p, int n) {
  const M m = below(n);
  return {_mm256_maskload_ps(p, m.a), _mm256_maskload_ps(p + 8, m.b)};
}
BHVIT_INLINE void store(float* p, F x) {
  _mm256_storeu_ps(p, x.a);
  _mm256_storeu_ps(p + 8, x.b);
}
// In parts of 8, 4, 2 and 1: a masked store takes some processors as long as twenty others.
BHVIT_INLINE void store_first(float* p, F x, int n) {
  if (n >= kLanes) return store(p, x);
  if (n <= 0) return;
  __m256 eight = x.a;
  if (n & 8) {
    _mm256_storeu_ps(p, x.a);
    p += 8;
    eight = x.b;
  }
  __m128 four = _mm256_castps256_ps128(eight);
  if (n & 4) {
    _mm_storeu_ps(p, four);
    p += 4;
    four = _mm256_extractf128_ps(eight, 1);
  }
  if (n & 2) {
    _mm_storel_pi(reinterpret_cast<__m64*>(p), four);
    p += 2;
    four = _mm_movehl_ps(four, four);
  }
  if (n & 1) _mm_store_ss(p, four);
}
BHVIT_INLINE F broadcast(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
BHVIT_INLINE F add(F x, F y) { BHVIT_BOTH(F, _mm256_add_ps); }
BHVIT_INLINE F subtract(F x, F y) { BHVIT_BOTH(F, _mm256_sub_ps); }
BHVIT_INLINE F multiply(F x, F y) { BHVIT_BOTH(F, _mm256_mul_ps); }
BHVIT_INLINE F divide(F x, F y) { BHVIT_BOTH(F, _mm256_div_ps); }
BHVIT_INLINE F fma(F x, F y, F z) {
  return {_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b)};
}
BHVIT_INLINE F sqrt(F x) { BHVIT_EACH(F, _mm256_sqrt_ps); }
BHVIT_INLINE F max(F x, F y) { BHVIT_BOTH(F, _mm256_max_ps); }
BHVIT_INLINE F min(F x, F y) { BHVIT_BOTH(F, _mm256_min_ps); }
BHVIT_INLINE M greater_equal(F x, F y) {
  return {float_bits(_mm256_cmp_ps(x.a, y.a, _CMP_GE_OQ)),
          float_bits(_mm256_cmp_ps(x.b, y.b, _CMP_GE_OQ))};
}
BHVIT_INLINE M greater(F x, F y) {
  return {float_bits(_mm256_cmp_ps(x.a, y.a, _CMP_GT_OQ)),
          float_bits(_mm256_cmp_ps(x.b, y.b, _CMP_GT_OQ))};
}
BHVIT_INLINE F select(M m, F yes, F no) {
  return {_mm256_blendv_ps(no.a, yes.a, float_mask(m.a)),
          _mm256_blendv_ps(no.b, yes.b, float_mask(m.b))};
}
BHVIT_INLINE F prelu(F x, F slope) {
  return select(greater(x, broadcast(0.0f)), x, multiply(x, slope));
}
BHVIT_INLINE __m256 permute_half(F x, __m256i lanes) {
  const __m256 low = _mm256_permutevar8x32_ps(x.a, lanes);
  const __m256 high = _mm256_permutevar8x32_ps(x.b, lanes);
  return _mm256_blendv_ps(low, high, float_mask(_mm256_slli_epi32(lanes, 28)));
}
BHVIT_INLINE F permute(F x, U lanes) {
  return {permute_half(x, lanes.a), permute_half(x, lanes.b)};
}
// Halves of vectors, each permuted within itself: one instruction for each instead of three.
constexpr int kPermuted = 8;
BHVIT_INLINE F load_halves(const float* first, int second) {
  return {_mm256_loadu_ps(first), _mm256_loadu_ps(first + second)};
}
BHVIT_INLINE F permute_halves(F x, U lanes) {
  return {_mm256_permutevar8x32_ps(x.a, lanes.a), _mm256_permutevar8x32_ps(x.b, lanes.b)};
}
BHVIT_INLINE F lookup(F table, U index) { return permute(table, index); }  // index modulo 16
BHVIT_INLINE F lookup_8(F table, U index) {                                // index below 8
  return permute_halves({table.a, table.a}, index);
}
BHVIT_INLINE void load_pairs(const float* p, F& even, F& odd) {
  const F first = load(p), second = load(p + 16);
  const auto split = [](__m256 x, __m256 y, __m256& e, __m256& o) {
    e = _mm256_castpd_ps(
        _mm256_permute4x64_pd(_mm256_castps_pd(_mm256_shuffle_ps(x, y, 0x88)), 0xd8));
    o = _mm256_castpd_ps(
        _mm256_permute4x64_pd(_mm256_castps_pd(_mm256_shuffle_ps(x, y, 0xdd)), 0xd8));
  };
  split(first.a, first.b, even.a, odd.a);
  split(second.a, second.b, even.b, odd.b);
}

// Values one and two places before and behind what p points to.
struct Neighbours {
  F before2, before1, after1, after2;
  BHVIT_INLINE Neighbours(const float* p, F)
      : before2(load(p - 2)), before1(load(p - 1)), after1(load(p + 1)), after2(load(p + 2)) {}
};

BHVIT_INLINE U load_words(const void* p) {
  const __m256i* q = static_cast<const __m256i*>(p);
  return {_mm256_loadu_si256(q), _mm256_loadu_si256(q + 1)};
}
BHVIT_INLINE void store_words(void* p, U x) {
  __m256i* q = static_cast<__m256i*>(p);
  _mm256_storeu_si256(q, x.a);
  _mm256_storeu_si256(q + 1, x.b);
}
BHVIT_INLINE U load(const uint32_t* p) { return load_words(p); }
BHVIT_INLINE U load(const int32_t* p) { return load_words(p); }
BHVIT_INLINE void store(uint32_t* p, U x) { store_words(p, x); }
BHVIT_INLINE void store(int32_t* p, U x) { store_words(p, x); }
BHVIT_INLINE U broadcast(int32_t x) { return {_mm256_set1_epi32(x), _mm256_set1_epi32(x)}; }
BHVIT_INLINE U broadcast(uint32_t x) { return broadcast(static_cast<int32_t>(x)); }
BHVIT_INLINE U xor_(U x, U y) { BHVIT_BOTH(U, _mm256_xor_si256); }
BHVIT_INLINE U and_(U x, U y) { BHVIT_BOTH(U, _mm256_and_si256); }
BHVIT_INLINE U or_(U x, U y) { BHVIT_BOTH(U, _mm256_or_si256); }
BHVIT_INLINE U shift_left(U x, int n) {
  const __m128i by = _mm_cvtsi32_si128(n);
  return {_mm256_sll_epi32(x.a, by), _mm256_sll_epi32(x.b, by)};
}
BHVIT_INLINE U shift_right(U x, int n) {
  const __m128i by = _mm_cvtsi32_si128(n);
  return {_mm256_srl_epi32(x.a, by), _mm256_srl_epi32(x.b, by)};
}
BHVIT_INLINE U shift_left_2(U x) { return {_mm256_slli_epi32(x.a, 2), _mm256_slli_epi32(x.b, 2)}; }
BHVIT_INLINE U add(U x, U y) { BHVIT_BOTH(U, _mm256_add_epi32); }
BHVIT_INLINE U subtract(U x, U y) { BHVIT_BOTH(U, _mm256_sub_epi32); }
BHVIT_INLINE U as_words(M m) { return {m.a, m.b}; }
BHVIT_INLINE U add_where(M m, U x, U y) { return add(x, and_(as_words(m), y)); }
BHVIT_INLINE U or_where(M m, U x, U bits) { return or_(x, and_(as_words(m), bits)); }
BHVIT_INLINE U select(M m, U yes, U no) {
  return {_mm256_blendv_epi8(no.a, yes.a, m.a), _mm256_blendv_epi8(no.b, yes.b, m.b)};
}
BHVIT_INLINE F to_float(U x) { BHVIT_EACH(F, _mm256_cvtepi32_ps); }
BHVIT_INLINE U round_to_words(F x) { BHVIT_EACH(U, _mm256_cvtps_epi32); }  // halves to even
BHVIT_INLINE U as_words(F x) { BHVIT_EACH(U, _mm256_castps_si256); }
BHVIT_INLINE F as_floats(U x) { BHVIT_EACH(F, _mm256_castsi256_ps); }
// One bit of each lane.
BHVIT_INLINE uint16_t column_bits(U x, int bit) {
  const int a = _mm256_movemask_ps(float_mask(_mm256_slli_epi32(x.a, 31 - bit)));
  const int b = _mm256_movemask_ps(float_mask(_mm256_slli_epi32(x.b, 31 - bit)));
  return static_cast<uint16_t>(b << 8 | a);
}
BHVIT_INLINE void store_bytes(uint8_t* p, U x, int n) {
  uint32_t words[kLanes];
  store(words, x);
  for (int i = 0; i < n; ++i) p[i] = static_cast<uint8_t>(words[i]);
}

// Counts set bits of words, lane by lane: a table lookup for each nibble, summed in bytes.
class Counter {
 public:
  static constexpr int kMaxWords = 31;  // 31 words of at most 8 bits a byte fit a byte
  BHVIT_INLINE Counter() : a_(_mm256_setzero_si256()), b_(_mm256_setzero_si256()) {}
  BHVIT_INLINE void add_bits(U x) {
    a_ = _mm256_add_epi8(a_, bytes(x.a));
    b_ = _mm256_add_epi8(b_, bytes(x.b));
  }
  BHVIT_INLINE void add_differences(U a, U b) { add_bits(xor_(a, b)); }
  // Counting that goes on from `sum`; finish takes the same.
  BHVIT_INLINE void start(U) {}
  BHVIT_INLINE U finish(U sum) const { return add(sum, read()); }
  BHVIT_INLINE void twice() {
    a_ = _mm256_add_epi8(a_, a_);
    b_ = _mm256_add_epi8(b_, b_);
  }
  BHVIT_INLINE U read() const { return {sum(a_), sum(b_)}; }

 private:
  static BHVIT_INLINE __m256i bytes(__m256i x) {
    const __m256i table = _mm256_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4, 0, 1, 1,
                                           2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4);
    const __m256i nibble = _mm256_set1_epi8(15);
    return _mm256_add_epi8(
        _mm256_shuffle_epi8(table, _mm256_and_si256(x, nibble)),
        _mm256_shuffle_epi8(table, _mm256_and_si256(_mm256_srli_epi16(x, 4), nibble)));
  }
  static BHVIT_INLINE __m256i sum(__m256i x) {
    return _mm256_madd_epi16(_mm256_maddubs_epi16(x, _mm256_set1_epi8(1)), _mm256_set1_epi16(1));
  }
  __m256i a_, b_;
};

#undef BHVIT_EACH
#undef BHVIT_BOTH

}  // namespace avx2
}  // namespace bhvit
