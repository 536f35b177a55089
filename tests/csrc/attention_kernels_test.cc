// Attention of one head in one window.
#include <cmath>

#include "testing.h"

namespace bhvit {
namespace testing {
namespace {

Attention head_of(int words, float level_scale, float zero_point) {
  const float size = static_cast<float>(32 * words), exponent = 1.442695f / std::sqrt(size);
  return {words, 32 * words, -2.0f * exponent, size * exponent, level_scale, zero_point};
}

void test_attend(const Pair& k, Random& random) {
  const int key_numbers[] = {1, 2, 31, 32, 33, 63, 64, 65, 100, 1100};
  for (int keys : key_numbers)
    for (int words : {1, 2, 4, 31})
      for (int more : {0, kLanes}) {
        const int stride = round_up(keys, kLanes) + more, value_words = div_up(keys, 32);
        const Filled<uint32_t> queries(words * stride, random), key_bits(words * stride, random);
        // bits behind the last key count nothing, whatever they are
        const Filled<uint32_t> values(32 * words * value_words, random);
        Filled<float> scratch(attend_scratch(keys), random);
        Twin<int32_t> out(32 * words * stride, random);
        const float spread = 1.0f + random.below(5);  // from hardly ever 1 to mostly 3
        const Attention head = head_of(words, spread * static_cast<float>(keys),
                                       0.1f * static_cast<float>(random.between(-8, 8)));
        const int lane = random.below(stride / kLanes) * kLanes;
        Report::context("%s attend keys %d words %d stride %d lane %d", k.other.name, keys, words,
                        stride, lane);
        k.serial.attend(head, queries.data() + lane, key_bits.data(), values.data(), keys, stride,
                        scratch.data(), out.serial.data() + lane);
        k.other.attend(head, queries.data() + lane, key_bits.data(), values.data(), keys, stride,
                       scratch.data(), out.other.data() + lane);
        out.expect_equal("sums");
        if (!scratch.surroundings_untouched()) Report::failed("wrote behind the scratch");
      }
}

// All keys alike and every term 1, so that levels are exact: halves go to the even neighbour. With
// as many keys of one level as there are, counters count the most they may.
void test_exact_levels(const Pair& k, Random& random) {
  const float levels[] = {-0.5f, 0.0f, 0.5f, 1.0f, 1.5f, 2.5f, 3.5f};
  const int rounded[] = {0, 0, 0, 1, 2, 2, 3};
  for (int keys : {32, 2048})
    for (size_t i = 0; i < 7; ++i) {
      Report::context("%s attend keys %d level %g", k.other.name, keys,
                      static_cast<double>(levels[i]));
      Array<uint32_t> bits(keys, random), values(keys, random);
      for (int j = 0; j < keys; ++j) bits[j] = 0x12345678;
      for (int j = 0; j < keys; ++j) values[j] = ~0u;  // [32][keys / 32]
      Filled<float> scratch(attend_scratch(keys), random);
      Twin<int32_t> out(32 * keys, random);
      Attention head = head_of(1, 0.5f * static_cast<float>(keys), levels[i] - 0.5f);
      head.exponent_bias = 0.0f;
      k.serial.attend(head, bits.data(), bits.data(), values.data(), keys, keys, scratch.data(),
                      out.serial.data());
      k.other.attend(head, bits.data(), bits.data(), values.data(), keys, keys, scratch.data(),
                     out.other.data());
      out.expect_equal("sums");
      if (out.serial[0] != keys * rounded[i])
        Report::failed("a level is rounded to the wrong integer");
    }
}

}  // namespace

void test_attention_kernels(const Pair& kernels, Random& random) {
  test_attend(kernels, random);
  test_exact_levels(kernels, random);
}

}  // namespace testing
}  // namespace bhvit
