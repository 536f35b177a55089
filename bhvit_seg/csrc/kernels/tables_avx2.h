// Binary products of 32 tokens with AVX2, by table instead of by counting: a shuffle of bytes looks
// up how four inputs differ from four weights, for one token in each byte.
#pragma once

#include "lanes_avx2.h"
#include "vector_basics.h"

namespace bhvit {
namespace avx2 {
namespace {

// How many bits of four inputs differ from four weights, [weights][inputs].
struct Counts {
  alignas(16) uint8_t of[16][16] = {};
  constexpr Counts() {
    for (int weights = 0; weights < 16; ++weights)
      for (int inputs = 0; inputs < 16; ++inputs)
        for (int bit = 0; bit < 4; ++bit) of[weights][inputs] += (weights ^ inputs) >> bit & 1;
  }
};
constexpr Counts kCounts;

BHVIT_INLINE __m256i counts_of(const uint8_t* row) {
  return _mm256_broadcastsi128_si256(_mm_load_si128(reinterpret_cast<const __m128i*>(row)));
}

// The bytes of words of 32 tokens, from the lowest. Byte b of lane i is token 8b + i.
BHVIT_INLINE void split_bytes(const U& first, const U& second, __m256i (&bytes)[4]) {
  const __m256i low0 = _mm256_unpacklo_epi8(first.a, first.b);
  const __m256i low1 = _mm256_unpacklo_epi8(second.a, second.b);
  const __m256i high0 = _mm256_unpackhi_epi8(first.a, first.b);
  const __m256i high1 = _mm256_unpackhi_epi8(second.a, second.b);
  // four bytes of the same place together, a token each
  const __m256i token0 = _mm256_unpacklo_epi16(low0, low1);
  const __m256i token1 = _mm256_unpackhi_epi16(low0, low1);
  const __m256i token2 = _mm256_unpacklo_epi16(high0, high1);
  const __m256i token3 = _mm256_unpackhi_epi16(high0, high1);
  const __m256i a = _mm256_unpacklo_epi32(token0, token1);
  const __m256i b = _mm256_unpacklo_epi32(token2, token3);
  const __m256i c = _mm256_unpackhi_epi32(token0, token1);
  const __m256i d = _mm256_unpackhi_epi32(token2, token3);
  bytes[0] = _mm256_unpacklo_epi64(a, b);
  bytes[1] = _mm256_unpackhi_epi64(a, b);
  bytes[2] = _mm256_unpacklo_epi64(c, d);
  bytes[3] = _mm256_unpackhi_epi64(c, d);
}

// Of four outputs of 32 tokens, in 16 bits: tokens i and 16 + i in `even`, 8 + i and 24 + i in
// `odd`.
struct TableSums {
  __m256i even[kOutputs], odd[kOutputs];
  int32_t start;

  // Adds what bytes have counted.
  BHVIT_INLINE void add(int o, __m256i bytes) {
    const __m256i low = _mm256_set1_epi32(0x00ff00ff);
    even[o] = _mm256_add_epi16(even[o], _mm256_and_si256(bytes, low));
    odd[o] = _mm256_add_epi16(odd[o], _mm256_and_si256(_mm256_srli_epi32(bytes, 8), low));
  }
  // Accumulators of vector t of tokens.
  BHVIT_INLINE U from(int32_t begin, int o, int t) const {
    const __m256i low = _mm256_set1_epi32(0xffff), more = _mm256_set1_epi32(begin);
    const auto part = [&](__m256i x) BHVIT_HERE {
      return _mm256_add_epi32(t ? _mm256_srli_epi32(x, 16) : _mm256_and_si256(x, low), more);
    };
    return {part(even[o]), part(odd[o])};
  }
  BHVIT_INLINE U operator()(int o, int t) const { return from(start, o, t); }
};

// Products of 32 tokens by the method of four Russians: for each four inputs, how they differ from
// all 16 patterns of weights is tabulated once, so that an output costs one addition of 32 bytes.
class Tables {
 public:
  static constexpr int kMaxWords = 6;  // of 32 inputs: bytes hold 7, the nearest cache little more
  static constexpr int kMaxOutputs = 512;  // whose sums are kept from some words to the next
  using Sums = TableSums;

  // Of words of tokens [number][stride].
  BHVIT_INLINE void tabulate(const uint32_t* bits, int stride, int number) {
    const __m256i four = _mm256_set1_epi8(15);
    for (int k = 0; k < number; ++k, bits += stride) {
      __m256i bytes[4];
      split_bytes(load(bits), load(bits + kLanes), bytes);
      for (int i = 0; i < 8; ++i)
        tabulate(_mm256_and_si256(i % 2 ? _mm256_srli_epi16(bytes[i / 2], 4) : bytes[i / 2], four),
                 8 * k + i);
    }
  }
  // Of as many inputs as Nibbles has left them.
  BHVIT_INLINE void tabulate(const uint32_t* nibbles, int number) {
    const __m256i* from = reinterpret_cast<const __m256i*>(nibbles);
    for (int i = 0; i < 8 * number; ++i) tabulate(_mm256_loadu_si256(from + i), i);
  }

  // Of outputs whose weights [number][8] begin at `weights`; `more`: onto the sums that were kept
  // at `first`.
  BHVIT_INLINE void count(const uint32_t* weights, int number, int first, bool more,
                          Sums& sums) const {
    __m256i bytes[kOutputs];
    for (auto& x : bytes) x = _mm256_setzero_si256();
    const uint8_t* table = tables_;
    for (int k = 0; k < number; ++k, table += 8 * kTable, weights += 8) {
#pragma GCC unroll 4
      for (int o = 0; o < kOutputs; ++o) {
        const uint64_t word = weights[o];
#pragma GCC unroll 8
        for (int i = 0; i < 8; ++i) {
          // 32 bytes a pattern: addresses multiply by 8
          const uint64_t place = (i ? word >> (4 * i - 2) : word << 2) & 0x3c;
          const uint8_t* at = table + i * kTable + place * 8;
          bytes[o] =
              _mm256_add_epi8(bytes[o], _mm256_load_si256(reinterpret_cast<const __m256i*>(at)));
        }
      }
    }
    const __m256i zero = _mm256_setzero_si256();
    const __m256i* kept = reinterpret_cast<const __m256i*>(kept_ + first * kKept);
    for (int o = 0; o < kOutputs; ++o, kept += 2) {
      sums.even[o] = more ? _mm256_load_si256(kept) : zero;
      sums.odd[o] = more ? _mm256_load_si256(kept + 1) : zero;
      sums.add(o, bytes[o]);
    }
  }

  // Kernels::busy_count: tables and weights in the nearest cache, and nothing but counting.
  static int64_t busy_count(int rounds, uint32_t* sink) {
    constexpr int kWords = 4, kOf = 32;
    uint32_t bits[kWords * kTileLanes], weights[kWords * kOf];
    for (int i = 0; i < kWords * kTileLanes; ++i) bits[i] = sink[i % kLanes] * (2 * i + 1);
    for (int i = 0; i < kWords * kOf; ++i) weights[i] = 0x9e3779b9u * i;
    Tables tables;
    tables.tabulate(bits, kTileLanes, kWords);
    Sums sums;
    U all = load(sink);
    const int outputs = rounds / (2 * kWords);
    for (int i = 0; i < outputs; i += kOutputs) {
      const int first = i % kOf;
      tables.count(weights + first / kBlock * kWords * kBlock + first % kBlock, kWords, 0, false,
                   sums);
      for (int o = 0; o < kOutputs; ++o) all = add(all, U{sums.even[o], sums.odd[o]});
    }
    store(sink, all);
    return int64_t{outputs} * kWords * 32 * kTileLanes;
  }

  BHVIT_INLINE void keep(const Sums& sums, int first) {
    __m256i* to = reinterpret_cast<__m256i*>(kept_ + first * kKept);
    for (int o = 0; o < kOutputs; ++o) {
      _mm256_store_si256(to++, sums.even[o]);
      _mm256_store_si256(to++, sums.odd[o]);
    }
  }

 private:
  static constexpr int kTable = 16 * 32, kKept = 32;

  BHVIT_INLINE void tabulate(__m256i inputs, int place) {
    uint8_t* to = tables_ + place * kTable;
#pragma GCC unroll 16
    for (int weights = 0; weights < 16; ++weights, to += 32)
      _mm256_store_si256(reinterpret_cast<__m256i*>(to),
                         _mm256_shuffle_epi8(counts_of(kCounts.of[weights]), inputs));
  }

  alignas(32) uint8_t tables_[kMaxWords * 8 * kTable];
  alignas(32) uint16_t kept_[kMaxOutputs * kKept];
};

// Products of convolutions whose groups have too few outputs for tables of their inputs: each four
// inputs of 32 tokens are looked up in the row of their weights.
class GroupedLookup {
 public:
  using Sums = TableSums;

  // Words of scratch for `gathered` and `rows`.
  static BHVIT_INLINE int inputs_size(const Convolution& layer) {
    return layer.groups * layer.words * 8 * 8;
  }
  static BHVIT_INLINE int weights_size(const Convolution& layer) {
    return layer.outputs * layer.words * 2;
  }

  // Offsets of rows, a byte for each four weights: [outputs / 8][words][8][8].
  static BHVIT_INLINE void unpack_weights(const Convolution& layer, uint32_t* rows) {
    const __m256i high = _mm256_set1_epi8(-16);
    __m256i* to = reinterpret_cast<__m256i*>(rows);
    for (int i = 0; i < layer.outputs * layer.words; i += 8) {
      const __m256i words = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(layer.weights + i));
      const __m256i even = _mm256_and_si256(_mm256_slli_epi16(words, 4), high);
      const __m256i odd = _mm256_and_si256(words, high);
      const __m256i a = _mm256_unpacklo_epi8(even, odd), b = _mm256_unpackhi_epi8(even, odd);
      _mm256_storeu_si256(to++, _mm256_permute2x128_si256(a, b, 0x20));
      _mm256_storeu_si256(to++, _mm256_permute2x128_si256(a, b, 0x31));
    }
  }

  // Inputs of all groups for 32 outputs of a row from x on: [groups][8 * words][32 bytes].
  static BHVIT_INLINE void gather(const Convolution& layer, const TapRows& taps, int x,
                                  uint32_t* gathered) {
    const __m256i four = _mm256_set1_epi8(15);
    const int of_group = layer.inputs / layer.groups / 8;  // bytes
    for (int plane = 0; plane < layer.inputs / 32; ++plane)
      for (int tap = 0; tap < layer.kernel * layer.kernel; ++tap) {
        const uint32_t* row = taps.rows[tap];
        __m256i bytes[4] = {};
        if (row) {
          row += plane * taps.plane + x;
          split_bytes(load(row), load(row + kLanes), bytes);
        }
        for (int i = 0; i < 4; ++i) {
          const int byte = 4 * plane + i, group = byte / of_group;
          const int place = tap * of_group + byte % of_group;
          __m256i* to = reinterpret_cast<__m256i*>(gathered) + group * layer.words * 8 + 2 * place;
          _mm256_storeu_si256(to, _mm256_and_si256(bytes[i], four));
          _mm256_storeu_si256(to + 1, _mm256_and_si256(_mm256_srli_epi16(bytes[i], 4), four));
        }
      }
  }

  // Of outputs from `output` on.
  static BHVIT_INLINE void count(const Convolution& layer, const uint32_t* gathered,
                                 const uint32_t* rows, int output, Sums& sums) {
    const int group = output / (layer.outputs / layer.groups);
    const __m256i* inputs = reinterpret_cast<const __m256i*>(gathered) + group * layer.words * 8;
    const uint8_t* offsets =
        reinterpret_cast<const uint8_t*>(rows + output / 8 * layer.words * 16 + output % 8 * 2);
    const int number = layer.kernel * layer.kernel * layer.inputs / layer.groups / 4;
    for (int o = 0; o < kOutputs; ++o) sums.even[o] = sums.odd[o] = _mm256_setzero_si256();
    for (int from = 0; from < number;) {
      const int to = number - from < kMost ? number : from + kMost;
      __m256i bytes[kOutputs];
      for (auto& x : bytes) x = _mm256_setzero_si256();
      for (; from + 8 <= to; from += 8, inputs += 8, offsets += 64)
        repeat<8>([&](int i) BHVIT_HERE { add_row(inputs + i, offsets + i, bytes); });
      for (; from < to; from += 2, inputs += 2, offsets += 2)
        repeat<2>([&](int i) BHVIT_HERE { add_row(inputs + i, offsets + i, bytes); });
      for (int o = 0; o < kOutputs; ++o) sums.add(o, bytes[o]);
    }
  }

 private:
  static constexpr int kMost = 56;  // that bytes hold, in whole words

  static BHVIT_INLINE void add_row(const __m256i* inputs, const uint8_t* offsets,
                                   __m256i (&bytes)[kOutputs]) {
    const __m256i index = _mm256_loadu_si256(inputs);
    repeat<kOutputs>([&](int o) BHVIT_HERE {
      const __m256i row = counts_of(kCounts.of[0] + offsets[8 * o]);
      // Compilers look up a whole block ahead and run out of registers.
      __m256i differences;
      asm("vpshufb %[index], %[row], %[differences]\n\t"
          "vpaddb %[differences], %[bytes], %[bytes]"
          : [differences] "=&x"(differences), [bytes] "+x"(bytes[o])
          : [index] "x"(index), [row] "x"(row));
    });
  }
};

// Sums of the levels that one vector of queries gives to keys, over those whose bits are set: for
// each four keys they are tabulated for all 16 patterns of bits.
class LevelTables {
 public:
  static constexpr int kMost = 255 / 3;  // keys whose levels, at most 3 each, fit bytes

  // level(j): those of key j < number <= kMost.
  template <typename Level>
  BHVIT_INLINE void tabulate(int number, const Level& level) {
    groups_ = div_up(number, 4);
    __m128i* to = tables_;
    for (int from = 0; from < number; from += 4) {
      to[0] = _mm_setzero_si128();
      for (int i = 0, size = 1; i < 4; ++i, size *= 2) {
        const __m128i more = from + i < number ? narrow(level(from + i)) : _mm_setzero_si128();
        for (int pattern = 0; pattern < size; ++pattern)
          to[size + pattern] = _mm_add_epi8(to[pattern], more);
      }
      to += 16;
    }
  }
  // Of keys whose bits are set in words of 32 keys.
  BHVIT_INLINE U sum(const uint32_t* bits) const {
    __m128i bytes = _mm_setzero_si128();
    const __m128i* table = tables_;
    int left = groups_;
    for (; left >= 8; left -= 8, table += 8 * 16, ++bits) {
      const uint32_t word = *bits;
      repeat<8>([&](int i) BHVIT_HERE { add_entry(table + 16 * i, word >> 4 * i, bytes); });
    }
    for (uint32_t word = left ? *bits : 0; left; --left, table += 16, word >>= 4)
      add_entry(table, word, bytes);
    const __m128i order = _mm_setr_epi8(0, 1, 2, 3, 8, 9, 10, 11, 4, 5, 6, 7, 12, 13, 14, 15);
    bytes = _mm_shuffle_epi8(bytes, order);
    return {_mm256_cvtepu8_epi32(bytes), _mm256_cvtepu8_epi32(_mm_srli_si128(bytes, 8))};
  }

 private:
  // Lanes 0 to 3, 8 to 11, 4 to 7, 12 to 15.
  static BHVIT_INLINE __m128i narrow(U level) {
    const __m256i x = _mm256_packs_epi32(level.a, level.b);
    return _mm_packus_epi16(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1));
  }
  static BHVIT_INLINE void add_entry(const __m128i* table, uint32_t pattern, __m128i& bytes) {
    bytes = _mm_add_epi8(bytes, _mm_load_si128(table + (pattern & 15)));
  }

  int groups_;
  __m128i tables_[(kMost + 3) / 4 * 16];
};

// The bits of 32 tokens for Tables, collected output by output: 32 bytes for each four outputs.
class Nibbles {
 public:
  static constexpr int kWords = 2;  // that a bit of each token takes, of what it does in words
  // Bits of output `o` behind the last four.
  BHVIT_INLINE void set(int, int o, const M (&where)[2]) {
    const __m256i first = _mm256_packs_epi32(where[0].a, where[0].b);
    const __m256i second = _mm256_packs_epi32(where[1].a, where[1].b);
    const __m256i all = _mm256_packs_epi16(first, second);  // -1 where a bit is set
    bits_ = _mm256_or_si256(o ? bits_ : _mm256_setzero_si256(),
                            _mm256_and_si256(all, _mm256_set1_epi8(static_cast<char>(1 << o))));
  }
  BHVIT_INLINE void flush(int first, uint32_t* out, int) {
    static_assert(kOutputs == 4, "four bits are tabulated together");
    // from groups of four tokens to their bytes side by side
    const __m256i order = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out) + first / 4,
                        _mm256_shuffle_epi8(bits_, order));
  }

 private:
  __m256i bits_;
};

}  // namespace
}  // namespace avx2
}  // namespace bhvit
