// Sixteen lanes in four NEON registers (arm64).
#pragma once

#include <arm_neon.h>

#include <cstdint>

#include "../maps.h"

namespace bhvit {
namespace neon {

struct F {
  float32x4_t v[4];
};
struct U {
  uint32x4_t v[4];
};
struct M {
  uint32x4_t v[4];
};  // all bits of a lane
constexpr int kOutputs = 4;
constexpr int kTokens = 1;
constexpr int kChains = 2;       // vectors whose polynomials are evaluated together
constexpr int kTableTokens = 0;  // products are counted
class Tables;
class Nibbles;
class GroupedLookup;
class LevelTables;

#define BHVIT_EACH(type, expression)                 \
  type r;                                            \
  for (int i = 0; i < 4; ++i) r.v[i] = (expression); \
  return r

BHVIT_INLINE M below(int n) {
  const uint32_t first[4] = {0, 1, 2, 3};
  const int32x4_t lane = vreinterpretq_s32_u32(vld1q_u32(first)), limit = vdupq_n_s32(n);
  BHVIT_EACH(M, vcgtq_s32(limit, vaddq_s32(lane, vdupq_n_s32(4 * i))));
}
BHVIT_INLINE M or_(M x, M y) { BHVIT_EACH(M, vorrq_u32(x.v[i], y.v[i])); }
BHVIT_INLINE M and_(M x, M y) { BHVIT_EACH(M, vandq_u32(x.v[i], y.v[i])); }
BHVIT_INLINE M not_(M x) { BHVIT_EACH(M, vmvnq_u32(x.v[i])); }
BHVIT_INLINE bool any(M x) {
  return vmaxvq_u32(vorrq_u32(vorrq_u32(x.v[0], x.v[1]), vorrq_u32(x.v[2], x.v[3]))) != 0;
}

BHVIT_INLINE F load(const float* p) { BHVIT_EACH(F, vld1q_f32(p + 4 * i)); }
BHVIT_INLINE F load_first(const float* p, int n) {
  float all[kLanes] = {};
  for (int i = 0; i < n && i < kLanes; ++i) all[i] = p[i];
  return load(all);
}
BHVIT_INLINE void store(float* p, F x) {
  for (int i = 0; i < 4; ++i) vst1q_f32(p + 4 * i, x.v[i]);
}
BHVIT_INLINE void store_first(float* p, F x, int n) {
  if (n >= kLanes) return store(p, x);
  float all[kLanes];
  store(all, x);
  for (int i = 0; i < n; ++i) p[i] = all[i];
}
BHVIT_INLINE F broadcast(float x) { BHVIT_EACH(F, vdupq_n_f32(x)); }
BHVIT_INLINE F add(F x, F y) { BHVIT_EACH(F, vaddq_f32(x.v[i], y.v[i])); }
BHVIT_INLINE F subtract(F x, F y) { BHVIT_EACH(F, vsubq_f32(x.v[i], y.v[i])); }
BHVIT_INLINE F multiply(F x, F y) { BHVIT_EACH(F, vmulq_f32(x.v[i], y.v[i])); }
BHVIT_INLINE F divide(F x, F y) { BHVIT_EACH(F, vdivq_f32(x.v[i], y.v[i])); }
BHVIT_INLINE F fma(F x, F y, F z) { BHVIT_EACH(F, vfmaq_f32(z.v[i], x.v[i], y.v[i])); }
BHVIT_INLINE F sqrt(F x) { BHVIT_EACH(F, vsqrtq_f32(x.v[i])); }
BHVIT_INLINE F max(F x, F y) {
  BHVIT_EACH(F, vbslq_f32(vcgtq_f32(x.v[i], y.v[i]), x.v[i], y.v[i]));
}
BHVIT_INLINE F min(F x, F y) {
  BHVIT_EACH(F, vbslq_f32(vcltq_f32(x.v[i], y.v[i]), x.v[i], y.v[i]));
}
BHVIT_INLINE M greater_equal(F x, F y) { BHVIT_EACH(M, vcgeq_f32(x.v[i], y.v[i])); }
BHVIT_INLINE M greater(F x, F y) { BHVIT_EACH(M, vcgtq_f32(x.v[i], y.v[i])); }
BHVIT_INLINE F select(M m, F yes, F no) { BHVIT_EACH(F, vbslq_f32(m.v[i], yes.v[i], no.v[i])); }
BHVIT_INLINE F prelu(F x, F slope) {
  return select(greater(x, broadcast(0.0f)), x, multiply(x, slope));
}
BHVIT_INLINE F permute(F x, U lanes) {
  uint8x16x4_t table;
  for (int i = 0; i < 4; ++i) table.val[i] = vreinterpretq_u8_f32(x.v[i]);
  // byte numbers of a lane: 4 * lane + (0, 1, 2, 3)
  const uint32x4_t bytes = vdupq_n_u32(0x03020100);
  BHVIT_EACH(F, vreinterpretq_f32_u8(vqtbl4q_u8(
                    table, vreinterpretq_u8_u32(vmlaq_n_u32(bytes, lanes.v[i], 0x04040404)))));
}
constexpr int kPermuted = kLanes;  // whole vectors at once
BHVIT_INLINE F load_halves(const float* p, int) { return load(p); }
BHVIT_INLINE F permute_halves(F x, U lanes) { return permute(x, lanes); }
BHVIT_INLINE void load_pairs(const float* p, F& even, F& odd) {
  for (int i = 0; i < 4; ++i) {
    const float32x4x2_t pair = vld2q_f32(p + 8 * i);
    even.v[i] = pair.val[0];
    odd.v[i] = pair.val[1];
  }
}

// Values one and two places before and behind what p points to.
struct Neighbours {
  F before2, before1, after1, after2;
  BHVIT_INLINE Neighbours(const float* p, F)
      : before2(load(p - 2)), before1(load(p - 1)), after1(load(p + 1)), after2(load(p + 2)) {}
};

BHVIT_INLINE U load(const uint32_t* p) { BHVIT_EACH(U, vld1q_u32(p + 4 * i)); }
BHVIT_INLINE U load(const int32_t* p) {
  BHVIT_EACH(U, vreinterpretq_u32_s32(vld1q_s32(p + 4 * i)));
}
BHVIT_INLINE void store(uint32_t* p, U x) {
  for (int i = 0; i < 4; ++i) vst1q_u32(p + 4 * i, x.v[i]);
}
BHVIT_INLINE void store(int32_t* p, U x) {
  for (int i = 0; i < 4; ++i) vst1q_s32(p + 4 * i, vreinterpretq_s32_u32(x.v[i]));
}
BHVIT_INLINE U broadcast(uint32_t x) { BHVIT_EACH(U, vdupq_n_u32(x)); }
BHVIT_INLINE U broadcast(int32_t x) { return broadcast(static_cast<uint32_t>(x)); }
BHVIT_INLINE U xor_(U x, U y) { BHVIT_EACH(U, veorq_u32(x.v[i], y.v[i])); }
BHVIT_INLINE U and_(U x, U y) { BHVIT_EACH(U, vandq_u32(x.v[i], y.v[i])); }
BHVIT_INLINE U or_(U x, U y) { BHVIT_EACH(U, vorrq_u32(x.v[i], y.v[i])); }
BHVIT_INLINE U shift_left(U x, int n) { BHVIT_EACH(U, vshlq_u32(x.v[i], vdupq_n_s32(n))); }
BHVIT_INLINE U shift_right(U x, int n) { BHVIT_EACH(U, vshlq_u32(x.v[i], vdupq_n_s32(-n))); }
BHVIT_INLINE U shift_left_2(U x) { BHVIT_EACH(U, vshlq_n_u32(x.v[i], 2)); }
BHVIT_INLINE F lookup(F table, U index) {  // index modulo 16
  return permute(table, and_(index, broadcast(15u)));
}
BHVIT_INLINE F lookup_8(F table, U index) { return permute(table, index); }
BHVIT_INLINE U add(U x, U y) { BHVIT_EACH(U, vaddq_u32(x.v[i], y.v[i])); }
BHVIT_INLINE U subtract(U x, U y) { BHVIT_EACH(U, vsubq_u32(x.v[i], y.v[i])); }
BHVIT_INLINE U add_where(M m, U x, U y) {
  BHVIT_EACH(U, vaddq_u32(x.v[i], vandq_u32(m.v[i], y.v[i])));
}
BHVIT_INLINE U or_where(M m, U x, U bits) {
  BHVIT_EACH(U, vorrq_u32(x.v[i], vandq_u32(m.v[i], bits.v[i])));
}
BHVIT_INLINE U select(M m, U yes, U no) { BHVIT_EACH(U, vbslq_u32(m.v[i], yes.v[i], no.v[i])); }
BHVIT_INLINE F to_float(U x) { BHVIT_EACH(F, vcvtq_f32_s32(vreinterpretq_s32_u32(x.v[i]))); }
BHVIT_INLINE U round_to_words(F x) { BHVIT_EACH(U, vcvtnq_u32_f32(x.v[i])); }  // halves to even
BHVIT_INLINE U as_words(F x) { BHVIT_EACH(U, vreinterpretq_u32_f32(x.v[i])); }
BHVIT_INLINE F as_floats(U x) { BHVIT_EACH(F, vreinterpretq_f32_u32(x.v[i])); }
// One bit of each lane.
BHVIT_INLINE uint16_t column_bits(U x, int bit) {
  const uint32_t places[4] = {1, 2, 4, 8};
  const uint32x4_t place = vld1q_u32(places), mask = vdupq_n_u32(1u << bit);
  uint32_t bits = 0;
  for (int i = 0; i < 4; ++i)
    bits |= vaddvq_u32(vandq_u32(vtstq_u32(x.v[i], mask), place)) << (4 * i);
  return static_cast<uint16_t>(bits);
}
BHVIT_INLINE void store_bytes(uint8_t* p, U x, int n) {
  uint32_t words[kLanes];
  store(words, x);
  for (int i = 0; i < n; ++i) p[i] = static_cast<uint8_t>(words[i]);
}

// Counts set bits of words, lane by lane, in bytes.
class Counter {
 public:
  static constexpr int kMaxWords = 31;  // 31 words of at most 8 bits a byte fit a byte
  BHVIT_INLINE Counter() {
    for (auto& bytes : sum_) bytes = vdupq_n_u8(0);
  }
  BHVIT_INLINE void add_bits(U x) {
    for (int i = 0; i < 4; ++i) {
      sum_[i] = vaddq_u8(sum_[i], vcntq_u8(vreinterpretq_u8_u32(x.v[i])));
    }
  }
  BHVIT_INLINE void add_differences(U a, U b) { add_bits(xor_(a, b)); }
  // Counting that goes on from `sum`; finish takes the same.
  BHVIT_INLINE void start(U) {}
  BHVIT_INLINE U finish(U sum) const { return add(sum, read()); }
  BHVIT_INLINE void twice() {
    for (auto& bytes : sum_) bytes = vaddq_u8(bytes, bytes);
  }
  BHVIT_INLINE U read() const { BHVIT_EACH(U, vpaddlq_u16(vpaddlq_u8(sum_[i]))); }

 private:
  uint8x16_t sum_[4];
};

#undef BHVIT_EACH

}  // namespace neon
}  // namespace bhvit
