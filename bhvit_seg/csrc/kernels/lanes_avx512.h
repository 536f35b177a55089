// Sixteen lanes in one AVX-512 register. See lanes_avx2.h and lanes_neon.h for the same operations.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "../maps.h"

namespace bhvit {
namespace avx512 {

using F = __m512;            // floats
using U = __m512i;           // 32-bit words
using M = __mmask16;         // a truth value for each lane
constexpr int kOutputs = 8;  // of a micro-kernel with two vectors of tokens
constexpr int kTokens = 2;
constexpr int kChains = 8;       // vectors whose polynomials are evaluated together
constexpr int kTableTokens = 0;  // products are counted
class Tables;
class Nibbles;
class GroupedLookup;
class LevelTables;

BHVIT_INLINE M below(int n) { return n >= 16 ? 0xffff : n <= 0 ? 0 : (1u << n) - 1; }
BHVIT_INLINE M or_(M a, M b) { return a | b; }
BHVIT_INLINE M and_(M a, M b) { return a & b; }
BHVIT_INLINE M not_(M a) { return ~a; }
BHVIT_INLINE bool any(M a) { return a != 0; }

BHVIT_INLINE F load(const float* p) { return _mm512_loadu_ps(p); }
BHVIT_INLINE F load_first(const float* p, int n) { return _mm512_maskz_loadu_ps(below(n), p); }
BHVIT_INLINE void store(float* p, F x) { _mm512_storeu_ps(p, x); }
BHVIT_INLINE void store_first(float* p, F x, int n) { _mm512_mask_storeu_ps(p, below(n), x); }
BHVIT_INLINE F broadcast(float x) { return _mm512_set1_ps(x); }
BHVIT_INLINE F add(F a, F b) { return _mm512_add_ps(a, b); }
BHVIT_INLINE F subtract(F a, F b) { return _mm512_sub_ps(a, b); }
BHVIT_INLINE F multiply(F a, F b) { return _mm512_mul_ps(a, b); }
BHVIT_INLINE F divide(F a, F b) { return _mm512_div_ps(a, b); }
BHVIT_INLINE F fma(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
// gcc 12 warns of _mm512_sqrt_ps itself
BHVIT_INLINE F sqrt(F a) { return _mm512_maskz_sqrt_ps(0xffff, a); }
BHVIT_INLINE F max(F a, F b) { return _mm512_max_ps(a, b); }  // b where either is NaN
BHVIT_INLINE F min(F a, F b) { return _mm512_min_ps(a, b); }  // likewise
BHVIT_INLINE M greater_equal(F a, F b) { return _mm512_cmp_ps_mask(a, b, _CMP_GE_OQ); }
BHVIT_INLINE M greater(F a, F b) { return _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ); }
BHVIT_INLINE F select(M m, F yes, F no) { return _mm512_mask_blend_ps(m, no, yes); }
// x where it is positive, else slope * x: without a mask, which only one unit makes.
BHVIT_INLINE F prelu(F x, F slope) {
  // a digit for each kind of number: 1, take x, for one, infinity and other positive values
  const U kinds = _mm512_set1_epi32(0x10101000);
  return _mm512_fixupimm_ps(_mm512_mul_ps(x, slope), x, kinds, 0);
}
BHVIT_INLINE F permute(F x, U lanes) { return _mm512_permutexvar_ps(lanes, x); }
constexpr int kPermuted = kLanes;  // whole vectors at once
BHVIT_INLINE F load_halves(const float* p, int) { return load(p); }
BHVIT_INLINE F permute_halves(F x, U lanes) { return permute(x, lanes); }
BHVIT_INLINE F lookup(F table, U index) { return permute(table, index); }  // index modulo 16
BHVIT_INLINE F lookup_8(F table, U index) { return permute(table, index); }
BHVIT_INLINE void load_pairs(const float* p, F& even, F& odd) {
  const F a = load(p), b = load(p + 16);
  const U pick = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
  even = _mm512_permutex2var_ps(a, pick, b);
  odd = _mm512_permutex2var_ps(a, _mm512_add_epi32(pick, _mm512_set1_epi32(1)), b);
}

// Values one and two places before and behind `centre`, which was loaded from p: out of registers,
// since every load across a cache line counts twice.
struct Neighbours {
  F before2, before1, after1, after2;
  BHVIT_INLINE Neighbours(const float* p, F centre) {
    const __m512i left = _mm512_castps_si512(load(p - kLanes));
    const __m512i right = _mm512_castps_si512(load(p + kLanes));
    const __m512i middle = _mm512_castps_si512(centre);
    before2 = _mm512_castsi512_ps(_mm512_alignr_epi32(middle, left, 14));
    before1 = _mm512_castsi512_ps(_mm512_alignr_epi32(middle, left, 15));
    after1 = _mm512_castsi512_ps(_mm512_alignr_epi32(right, middle, 1));
    after2 = _mm512_castsi512_ps(_mm512_alignr_epi32(right, middle, 2));
  }
};

BHVIT_INLINE U load(const uint32_t* p) { return _mm512_loadu_si512(p); }
BHVIT_INLINE void store(uint32_t* p, U x) { _mm512_storeu_si512(p, x); }
BHVIT_INLINE void store(int32_t* p, U x) { _mm512_storeu_si512(p, x); }
BHVIT_INLINE U load(const int32_t* p) { return _mm512_loadu_si512(p); }
BHVIT_INLINE U broadcast(uint32_t x) { return _mm512_set1_epi32(static_cast<int>(x)); }
BHVIT_INLINE U broadcast(int32_t x) { return _mm512_set1_epi32(x); }
BHVIT_INLINE U xor_(U a, U b) { return _mm512_xor_si512(a, b); }
BHVIT_INLINE U and_(U a, U b) { return _mm512_and_si512(a, b); }
BHVIT_INLINE U or_(U a, U b) { return _mm512_or_si512(a, b); }
BHVIT_INLINE U shift_left(U a, int n) { return _mm512_sll_epi32(a, _mm_cvtsi32_si128(n)); }
BHVIT_INLINE U shift_right(U a, int n) { return _mm512_srl_epi32(a, _mm_cvtsi32_si128(n)); }
BHVIT_INLINE U shift_left_2(U a) { return _mm512_slli_epi32(a, 2); }
BHVIT_INLINE U add(U a, U b) { return _mm512_add_epi32(a, b); }
BHVIT_INLINE U subtract(U a, U b) { return _mm512_sub_epi32(a, b); }
BHVIT_INLINE U add_where(M m, U a, U b) { return _mm512_mask_add_epi32(a, m, a, b); }
BHVIT_INLINE U or_where(M m, U a, U bits) { return _mm512_mask_or_epi32(a, m, a, bits); }
BHVIT_INLINE U select(M m, U yes, U no) { return _mm512_mask_blend_epi32(m, no, yes); }
BHVIT_INLINE F to_float(U x) { return _mm512_cvtepi32_ps(x); }
BHVIT_INLINE U round_to_words(F x) { return _mm512_cvtps_epi32(x); }  // halves to even
BHVIT_INLINE U as_words(F x) { return _mm512_castps_si512(x); }
BHVIT_INLINE F as_floats(U x) { return _mm512_castsi512_ps(x); }
// One bit of each lane.
BHVIT_INLINE uint16_t column_bits(U x, int bit) {
  return static_cast<uint16_t>(_mm512_test_epi32_mask(x, broadcast(1u << bit)));
}
BHVIT_INLINE void store_bytes(uint8_t* p, U x, int n) {
  _mm_mask_storeu_epi8(p, below(n), _mm512_cvtepi32_epi8(x));
}

// Counts set bits of words, lane by lane.
class Counter {
 public:
  static constexpr int kMaxWords = 1 << 30;  // words that may be added before reading
  BHVIT_INLINE Counter() : sum_(_mm512_setzero_si512()) {}
  // Counting that goes on from `sum`; finish takes the same.
  BHVIT_INLINE void start(U sum) { sum_ = sum; }
  BHVIT_INLINE U finish(U) const { return sum_; }
  BHVIT_INLINE void add_bits(U x) { sum_ = _mm512_add_epi32(sum_, _mm512_popcnt_epi32(x)); }
  // add_bits(a xor b). Compilers compute all differences of a block ahead and run out of
  // registers for the sums, which costs a fifth of the speed; this keeps the three together.
  BHVIT_INLINE void add_differences(U a, U b) {
    U difference;
    asm("vpxord %[b], %[a], %[difference]\n\t"
        "vpopcntd %[difference], %[difference]\n\t"
        "vpaddd %[difference], %[sum], %[sum]"
        : [difference] "=&v"(difference), [sum] "+v"(sum_)
        : [a] "v"(a), [b] "v"(b));
  }
  BHVIT_INLINE void twice() { sum_ = _mm512_add_epi32(sum_, sum_); }
  BHVIT_INLINE U read() const { return sum_; }

 private:
  U sum_;
};

}  // namespace avx512
}  // namespace bhvit
