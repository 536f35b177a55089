// The stem and the downsampling between stages, each with its position embedding.
#include <algorithm>
#include <cstring>

#include "run.h"

namespace bhvit {
namespace {

// Adds the position embedding to tokens of a stage, after their GELU if that is asked for, stores
// them, and packs what its first block convolves.
void finish_tokens(const Run& run, int stage, bool gelu, float* tile, int stride, Tokens tokens,
                   float* scratch) {
  const StagePlan& plan = run.plan.stages[stage];
  const int channels = plan.x.planes;
  run.kernels.embed_tile(tile, stride, channels, gelu, plan.position, plan.x, tokens);
  const auto& blocks = run.parameters.stages[stage];
  if (stage > 1 || blocks.empty()) return;
  uint32_t* bits = reinterpret_cast<uint32_t*>(scratch);
  const Affine& in = blocks[0].msgdc.in;
  run.kernels.pack_tile(tile, stride, channels, tokens.vectors(), in.scale.data(), in.bias.data(),
                        bits);
  store_bits(bits, stride, plan.bits, tokens);
}

// Words of four bytes, `step` bytes apart.
void copy_words(const uint8_t* from, ptrdiff_t step, int number, float* to) {
  for (; number >= 4; number -= 4, from += 4 * step, to += 4) {
    uint32_t words[4];
    std::memcpy(words, from, 4);
    std::memcpy(words + 1, from + step, 4);
    std::memcpy(words + 2, from + 2 * step, 4);
    std::memcpy(words + 3, from + 3 * step, 4);
    std::memcpy(to, words, 16);
  }
  for (; number > 0; --number, from += step) std::memcpy(to++, from, 4);
}

// Normalised values of the pixels below patches of a map, [(ky, kx, channel)][stride]: `read` all
// spans of a tile, then `finish` it.
class PatchReader {
 public:
  PatchReader(const Run& run, const Image& image)
      : run_(run), image_(image), channels_(run.parameters.arch.in_channels) {}

  void read(const Span& span, float* tile, int stride) const {
    float* to = tile + span.lane;
    const int end = std::min(4 * span.y + 4, image_.height);
    for (int row = 4 * span.y; row < end; ++row, to += 4 * channels_ * stride) {
      const int values = columns_inside(row, 4 * span.x, 4 * span.count) * channels_;
      const size_t first = (static_cast<size_t>(row) * image_.width + 4 * span.x) * channels_;
      if (image_.bytes)
        read_bytes(image_.bytes + first, values, to, stride);
      else
        read_floats(image_.floats + first, values, to, stride);
    }
  }

  void finish(const Span* spans, int number, int vectors, float* tile, int stride) const {
    const Parameters& parameters = run_.parameters;
    if (image_.bytes)
      run_.kernels.normalize_bytes(tile, stride, channels_, vectors, parameters.mean.data(),
                                   parameters.deviation.data());
    for (int s = 0; s < number; ++s) clear_outside(spans[s], tile, stride);
  }

 private:
  int columns_inside(int row, int column, int number) const {
    return row < image_.height ? std::clamp(image_.width - column, 0, number) : 0;
  }

  // Words of four bytes, each to the first of the rows that normalize_bytes makes of it.
  void read_bytes(const uint8_t* from, int values, float* to, int stride) const {
    const int words = values / 4;
    for (int j = 0; j < channels_; ++j)
      copy_words(from + 4 * j, 4 * channels_, div_up(words - j, channels_), to + 4 * j * stride);
    std::memcpy(to + 4 * (words % channels_) * stride + words / channels_, from + 4 * words,
                values % 4);
  }

  void read_floats(const float* from, int values, float* to, int stride) const {
    const int step = 4 * channels_;
    for (int k = 0; k < step; ++k)
      for (int i = 0; i * step + k < values; ++i)
        to[k * stride + i] = run_.parameters.normalized(from[i * step + k], k % channels_);
  }

  void clear_outside(const Span& span, float* tile, int stride) const {
    if (4 * span.y + 4 <= image_.height && 4 * (span.x + span.count) <= image_.width) return;
    float* to = tile + span.lane;
    for (int row = 4 * span.y; row < 4 * span.y + 4; ++row) {
      const int values = columns_inside(row, 4 * span.x, 4 * span.count) * channels_;
      for (int k = 0; k < 4 * channels_; ++k, to += stride)
        std::fill(to + div_up(values - k, 4 * channels_), to + span.count, 0.0f);
    }
  }

  const Run& run_;
  const Image& image_;
  const int channels_;
};

void run_full_precision(const Run& run, int s) {
  const DownsamplingParameters& layer = run.parameters.downsamplings[s - 1];
  const Map& from = run.plan.stages[s - 1].x;
  const Map& to = run.plan.stages[s].x;
  run.region("downsampling", tiles_of(to), [&](int piece, float* scratch) {
    const Tokens tokens = tile_of(to, piece);
    expect_stores(to, tokens);
    float* patches = scratch;
    float* out = patches + 4 * from.planes * kWideStride;
    Span spans[kTileLanes];
    const int number = cut_into_spans(tokens.token, tokens.count, to.width, spans);
    for (int i = 0; i < number; ++i)
      run.kernels.load_patches(from, from.planes, spans[i].y, spans[i].x, layer.in.scale.data(),
                               layer.in.bias.data(), patches + spans[i].lane, kWideStride);
    run.kernels.multiply(patches, kWideStride, layer.dense.inputs, tokens.vectors(),
                         layer.dense.weights.data(), layer.dense.bias.data(), to.planes, out,
                         kWideStride);
    finish_tokens(run, s, false, out, kWideStride, tokens, out + to.planes * kWideStride);
  });
}

// Means of the four taps' patches [4][channels][stride], of which each lane has `number`.
template <typename Number>
void average_taps(const float* patches, int channels, int stride, int lanes, const Number& number,
                  float* mean) {
  const ptrdiff_t tap = static_cast<ptrdiff_t>(channels) * stride;
  for (int c = 0; c < channels; ++c, patches += stride, mean += stride)
    for (int i = 0; i < lanes; ++i) {
      float sum = 0.0f;
      for (int t = 0; t < 4; ++t) sum += patches[t * tap + i];
      mean[i] = sum / number(i);
    }
}

// Outputs of a row, all of whose taps lie inside the map.
void downsample_inside(const Run& run, int s, int y, int x, Tokens tokens, float* scratch) {
  const DownsamplingParameters& layer = run.parameters.downsamplings[s - 1];
  const Map& from = run.plan.stages[s - 1].x;
  const int channels = from.planes, outputs = run.plan.stages[s].x.planes;
  float* patches = scratch;                           // [4][channels][kTileLanes]
  float* mean = patches + 4 * channels * kTileLanes;  // [channels][kTileLanes]
  float* out = mean + channels * kTileLanes;          // [outputs][kTileLanes]
  uint32_t* bits = reinterpret_cast<uint32_t*>(out + outputs * kTileLanes);
  for (int v = 0; v < tokens.vectors(); ++v)
    run.kernels.load_patches(from, channels, y, x + v * kLanes, layer.in.scale.data(),
                             layer.in.bias.data(), patches + v * kLanes, kTileLanes);
  average_taps(
      patches, channels, kTileLanes, tokens.vectors() * kLanes, [](int) { return 4.0f; }, mean);
  for (int tap = 0; tap < 4; ++tap)
    run.kernels.pack_tile(patches + tap * channels * kTileLanes, kTileLanes, channels,
                          tokens.vectors(), nullptr, layer.binary.input_bias.data(),
                          bits + tap * channels / 32 * kTileLanes);
  run.kernels.project(bits, 4 * channels, layer.binary.convolution.weights.data(),
                      layer.binary.outputs.data(), outputs, mean, channels, kTileLanes,
                      tokens.vectors(), out);
  finish_tokens(run, s, false, out, kTileLanes, tokens, out + outputs * kTileLanes);
}

// A vector of outputs at the border of a map of odd size.
void downsample_border(const Run& run, int s, int y, int x, Tokens tokens, float* scratch) {
  const DownsamplingParameters& layer = run.parameters.downsamplings[s - 1];
  const Map& from = run.plan.stages[s - 1].x;
  const Map& to = run.plan.stages[s].x;
  const int channels = from.planes, words = channels / 32;
  float* patches = scratch;                                                    // [4][channels][16]
  float* mean = patches + 4 * channels * kLanes;                               // [channels][16]
  float* out = mean + channels * kLanes;                                       // [outputs][16]
  uint32_t* bits = reinterpret_cast<uint32_t*>(out + 2 * to.planes * kLanes);  // [4][words][16]
  uint32_t* gathered = bits + 4 * words * kLanes;
  run.kernels.load_patches(from, channels, y, x, layer.in.scale.data(), layer.in.bias.data(),
                           patches, kLanes);
  const int rows = 2 * y + 1 < from.height ? 2 : 1;
  const int whole = from.width / 2 - x;  // outputs with two columns below them
  average_taps(
      patches, channels, kLanes, kLanes,
      [=](int i) { return static_cast<float>(rows * (i < whole ? 2 : 1)); }, mean);
  TapRows taps;
  taps.plane = kLanes;
  taps.state = rows == 2 ? 3 : 1;
  for (int tap = 0; tap < 4; ++tap) {
    uint32_t* const of_tap = bits + tap * words * kLanes;
    run.kernels.pack_tile(patches + tap * channels * kLanes, kLanes, channels, 1, nullptr,
                          layer.binary.input_bias.data(), of_tap);
    for (int w = 0; w < words && tap % 2; ++w)
      for (int i = whole > 0 ? whole : 0; i < kLanes; ++i) of_tap[w * kLanes + i] = 0;
    taps.rows[tap] = tap / 2 < rows ? of_tap : nullptr;
    taps.first[tap % 2] = 0;
    taps.last[tap % 2] = tap % 2 ? whole : kLanes;
  }
  run.kernels.convolve(layer.binary.convolution.layer, layer.binary.outputs.data(), taps, 0, mean,
                       channels, gathered, out);
  finish_tokens(run, s, false, out, kLanes, tokens, out + to.planes * kLanes);
}

void run_binary(const Run& run, int s) {
  const Map& from = run.plan.stages[s - 1].x;
  const Map& to = run.plan.stages[s].x;
  const int columns = div_up(to.width, kTileLanes);
  run.region("downsampling", to.height * columns, [&](int piece, float* scratch) {
    const int y = piece / columns, first = piece % columns * kTileLanes;
    const int end = std::min(to.width, first + kTileLanes);
    if (2 * y + 1 < from.height && 2 * end <= from.width)
      return downsample_inside(run, s, y, first, {y * to.width + first, end - first}, scratch);
    for (int x = first; x < end; x += kLanes)
      downsample_border(run, s, y, x, {y * to.width + x, std::min(kLanes, end - x)}, scratch);
  });
}

}  // namespace

void run_stem(const Run& run, const Image& image) {
  const Map& to = run.plan.stages[0].x;
  const Dense& stem = run.parameters.stem;
  const PatchReader reader(run, image);
  run.region("stem", tiles_of(to), [&](int piece, float* scratch) {
    const Tokens tokens = tile_of(to, piece);
    float* out = scratch + stem.inputs * kWideStride;
    Span spans[kTileLanes];
    const int number = cut_into_spans(tokens.token, tokens.count, to.width, spans);
    for (int i = 0; i < number; ++i) reader.read(spans[i], scratch, kWideStride);
    reader.finish(spans, number, tokens.vectors(), scratch, kWideStride);
    run.kernels.multiply(scratch, kWideStride, stem.inputs, tokens.vectors(), stem.weights.data(),
                         stem.bias.data(), to.planes, out, kWideStride);
    finish_tokens(run, 0, true, out, kWideStride, tokens, out + to.planes * kWideStride);
  });
}

void run_downsampling(const Run& run, int stage) {
  if (run.parameters.arch.binary_downsampling)
    run_binary(run, stage);
  else
    run_full_precision(run, stage);
}

}  // namespace bhvit
