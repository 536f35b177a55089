// Kernels between maps and tiles, and those that upsample maps. Maps that are written are compared
// whole: pads and borders, too.
#include <cmath>
#include <vector>

#include "resize.h"
#include "testing.h"

namespace bhvit {
namespace testing {
namespace {

// Calls test(height, width, channels, tokens, stride), the stride wide enough for the tokens.
template <typename Test>
void for_tokens(Random& random, const Test& test) {
  for_sizes([&](int height, int width) {
    for (int channels : kChannels) {
      const int stride = random.one_of(kStrides), most = stride < 32 ? stride : 32;
      test(height, width, channels, some_tokens(height, width, most, random), stride);
    }
  });
}

// Spans are written in whole vectors: what lies behind the last channel of a tile is written, too.
size_t tile_size(int channels, int stride) { return channels * stride + kLanes; }

void context(const Pair& k, const char* kernel, int height, int width, int channels, Tokens tokens,
             int stride) {
  Report::context("%s %s map %dx%d channels %d tokens %d+%d stride %d", k.other.name, kernel,
                  height, width, channels, tokens.token, tokens.count, stride);
}

void test_load(const Pair& k, Random& random) {
  for_tokens(random, [&](int height, int width, int channels, Tokens tokens, int stride) {
    context(k, "load_tile", height, width, channels, tokens, stride);
    const TwinMap map(height, width, channels, random);
    const Filled<float> scale(channels, random), bias(channels, random);
    const bool affine = random.below(2);
    Twin<float> tile(tile_size(channels, stride), random);
    k.serial.load_tile(map.serial_map, channels, tokens, affine ? scale.data() : nullptr,
                       affine ? bias.data() : nullptr, tile.serial.data(), stride);
    k.other.load_tile(map.other_map, channels, tokens, affine ? scale.data() : nullptr,
                      affine ? bias.data() : nullptr, tile.other.data(), stride);
    tile.expect_equal("tile", channels, stride, tokens.count);
  });
}

void test_store(const Pair& k, Random& random) {
  for_tokens(random, [&](int height, int width, int channels, Tokens tokens, int stride) {
    context(k, "store_tile", height, width, channels, tokens, stride);
    TwinMap map(height, width, channels, random);
    const Filled<float> tile(tile_size(channels, stride), random);
    const bool add = random.below(2), wrap = random.below(2);
    k.serial.store_tile(tile.data(), stride, channels, map.serial_map, tokens, add, wrap);
    k.other.store_tile(tile.data(), stride, channels, map.other_map, tokens, add, wrap);
    map.expect_equal(wrap ? "map with border" : "map");
  });
}

void test_embed(const Pair& k, Random& random) {
  for_tokens(random, [&](int height, int width, int channels, Tokens tokens, int stride) {
    context(k, "embed_tile", height, width, channels, tokens, stride);
    const TwinMap position(height, width, channels, random);
    TwinMap map(height, width, channels, random);
    Twin<float> tile(tile_size(channels, stride), random);
    const float widths[] = {1.0f, 0.01f, 5.0f};
    const float size = random.one_of(widths);
    for (size_t i = 0; i < tile.serial.size(); ++i) tile.serial[i] *= size;
    tile.copy();
    const bool gelu = random.below(2);
    k.serial.embed_tile(tile.serial.data(), stride, channels, gelu, position.serial_map,
                        map.serial_map, tokens);
    k.other.embed_tile(tile.other.data(), stride, channels, gelu, position.other_map, map.other_map,
                       tokens);
    tile.expect_equal("tile", channels, stride, tokens.count);
    map.expect_equal("map with border");
  });
}

void test_load_patches(const Pair& k, Random& random) {
  for_sizes([&](int height, int width) {
    const int channels = random.one_of(kChannels), stride = random.one_of(kStrides);
    const TwinMap map(height, width, channels, random);
    const Filled<float> scale(channels, random), bias(channels, random);
    for (int y = 0; y < div_up(height, 2); ++y) {
      const int x = random.below(div_up(width, 2)), left = div_up(width, 2) - x;
      Report::context("%s load_patches map %dx%d channels %d y %d x %d stride %d", k.other.name,
                      height, width, channels, y, x, stride);
      Twin<float> tile(4 * channels * stride, random);
      k.serial.load_patches(map.serial_map, channels, y, x, scale.data(), bias.data(),
                            tile.serial.data(), stride);
      k.other.load_patches(map.other_map, channels, y, x, scale.data(), bias.data(),
                           tile.other.data(), stride);
      tile.expect_equal("tile", 4 * channels, stride, left < kLanes ? left : kLanes);
    }
  });
}

void test_pool_rows(const Pair& k, Random& random) {
  for_sizes([&](int height, int width) {
    const int channels = 3, channel = random.below(channels);
    const int y0 = random.below(height), y1 = random.between(y0 + 1, height);
    Report::context("%s pool_rows map %dx%d rows %d to %d", k.other.name, height, width, y0, y1);
    const TwinMap map(height, width, channels, random);
    const float scale = random.value(), bias = random.value();
    Twin<float> highest(width, random), sum(width, random);
    k.serial.pool_rows(map.serial_map, channel, y0, y1, scale, bias, highest.serial.data(),
                       sum.serial.data());
    k.other.pool_rows(map.other_map, channel, y0, y1, scale, bias, highest.other.data(),
                      sum.other.data());
    highest.expect_equal("maximum");
    sum.expect_equal("sum");
  });
}

// A size to upsample to: what is wider than a vector has to grow, as in the engine.
int upsampled(int size, Random& random) {
  return size <= kLanes ? random.between(1, 5 * size) : random.between(2 * size - 1, 5 * size);
}

void test_upsample(const Pair& k, Random& random) {
  for_sizes([&](int height, int width) {
    const int to_height = upsampled(height, random), to_width = upsampled(width, random);
    const int channels = random.one_of(kChannels), stride = random.one_of(kStrides);
    const TwinMap map(height, width, channels, random);
    const Resize resize(height, width, to_height, to_width, random.below(2));
    for (int tile = 0; tile < div_up(to_width, kLanes); ++tile) {
      const int y = random.below(to_height);
      Report::context("%s upsample_tile map %dx%d to %dx%d channels %d row %d tile %d",
                      k.other.name, height, width, to_height, to_width, channels, y, tile);
      Twin<float> out(channels * stride, random);
      k.serial.upsample_tile(map.serial_map, channels, resize.view(), y, tile, out.serial.data(),
                             stride);
      k.other.upsample_tile(map.other_map, channels, resize.view(), y, tile, out.other.data(),
                            stride);
      out.expect_equal("tile");
    }
  });
}

void test_upsample_and_pack(const Pair& k, Random& random) {
  for_sizes([&](int height, int width) {
    const int to_height = upsampled(height, random), to_width = upsampled(width, random);
    const int channels = random.one_of(kChannels), stride = random.one_of(kStrides);
    const TwinMap map(height, width, channels, random);
    const Filled<float> bias(channels, random);
    const Resize resize(height, width, to_height, to_width, random.below(2));
    const int tiles = div_up(to_width, kLanes), y = random.below(to_height);
    for (int tile = 0; tile < tiles; ++tile) {
      const int most = tiles - tile < stride / kLanes ? tiles - tile : stride / kLanes;
      const int vectors = random.between(1, most);
      Report::context("%s upsample_and_pack map %dx%d to %dx%d channels %d row %d tiles %d+%d",
                      k.other.name, height, width, to_height, to_width, channels, y, tile, vectors);
      Twin<uint32_t> bits(channels / 32 * stride, random);
      Twin<float> means(channels / kAveraged * stride, random);
      k.serial.upsample_and_pack(map.serial_map, channels, resize.view(), y, tile, vectors,
                                 bias.data(), bits.serial.data(), means.serial.data(), stride);
      k.other.upsample_and_pack(map.other_map, channels, resize.view(), y, tile, vectors,
                                bias.data(), bits.other.data(), means.other.data(), stride);
      bits.expect_equal("bits");
      means.expect_equal("means");
    }
  });
}

void test_labels(const Pair& k, Random& random) {
  for_sizes([&](int height, int width) {
    const int class_numbers[] = {1, 2, 5, 19, 150, 256};
    const int classes = random.one_of(class_numbers);
    const int to_height = random.between(4 * height - 3, 4 * height);
    const int to_width = random.between(4 * width - 3, 4 * width);
    TwinMap logits(height, width, round_up(classes, kBlock), random);
    enum { kAny, kTies, kRounding, kNotFinite, kKinds };
    const int kind = random.below(kKinds);
    for (size_t i = 0; i < logits.serial.size(); ++i) {
      if (kind == kTies) logits.serial[i] = static_cast<float>(random.between(-1, 1));
      if (kind == kRounding)  // classes a few roundings apart, some far behind
        logits.serial[i] = random.below(3) ? 1.0f + random.below(4) * 0x1p-23f : -1.0f;
      if (kind == kNotFinite && random.below(4 * classes) == 0)
        logits.serial[i] = random.below(2) ? NAN : random.below(2) ? INFINITY : -INFINITY;
    }
    logits.copy();
    const Resize resize(height, width, to_height, to_width, random.below(2));
    const size_t stride = to_width + random.below(4);
    Twin<uint8_t> labels(to_height * stride, random);
    const std::vector<int>& runs = resize.runs();
    for (size_t r = 0; r + 1 < runs.size(); ++r) {
      Report::context("%s label_rows map %dx%d to %dx%d classes %d rows %d to %d", k.other.name,
                      height, width, to_height, to_width, classes, runs[r], runs[r + 1]);
      k.serial.label_rows(logits.serial_map, classes, resize.view(), runs[r], runs[r + 1], to_width,
                          labels.serial.data() + runs[r] * stride, stride);
      k.other.label_rows(logits.other_map, classes, resize.view(), runs[r], runs[r + 1], to_width,
                         labels.other.data() + runs[r] * stride, stride);
    }
    labels.expect_equal("labels");
  });
}

}  // namespace

void test_map_kernels(const Pair& kernels, Random& random) {
  test_load(kernels, random);
  test_store(kernels, random);
  test_embed(kernels, random);
  test_load_patches(kernels, random);
  test_pool_rows(kernels, random);
  test_upsample(kernels, random);
  test_upsample_and_pack(kernels, random);
  test_labels(kernels, random);
}

}  // namespace testing
}  // namespace bhvit
