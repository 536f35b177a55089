// The stem and the downsampling between stages, each with its position embedding.
#include <algorithm>

#include "run.h"

namespace bhvit {
namespace {

// Adds the position embedding to tokens of a stage, stores them, and packs what its first block
// convolves.
void finish_tokens(const Run& run, int stage, float* tile, int stride, Tokens tokens,
                   float* scratch) {
  const StagePlan& plan = run.plan.stages[stage];
  const int channels = plan.x.planes;
  run.kernels.add_map(plan.position, channels, tokens, tile, stride);
  const auto& blocks = run.parameters.stages[stage];
  run.kernels.store_tile(tile, stride, channels, plan.x, tokens, false, true);
  if (stage > 1 || blocks.empty()) return;
  uint32_t* bits = reinterpret_cast<uint32_t*>(scratch);
  const Affine& in = blocks[0].msgdc.in;
  run.kernels.pack_tile(tile, stride, channels, tokens.vectors(), in.scale.data(), in.bias.data(),
                        bits);
  store_bits(bits, stride, plan.bits, tokens);
}

// Normalised bytes of N adjacent channels of every fourth pixel, [N][stride]; `values` has 256 for
// each channel. Apart from its caller, in which the compiler runs out of registers for it.
template <int N>
__attribute__((noinline)) void look_up(const uint8_t* from, int step, const float* values,
                                       int number, float* out, ptrdiff_t stride) {
  for (int i = 0; i < number; ++i, from += step)
    for (int c = 0; c < N; ++c) out[c * stride + i] = values[256 * c + from[c]];
}

// Normalised values of the pixels below a row of patches, [(ky, kx, channel)][stride].
class PatchReader {
 public:
  PatchReader(const Run& run, const Image& image)
      : image_(image), channels_(run.parameters.arch.in_channels), parameters_(run.parameters) {}

  void read(int y, int x, int count, float* tile, int stride) const {
    for (int ky = 0; ky < 4; ++ky)
      for (int kx = 0; kx < 4; ++kx) {
        // patches that have this pixel
        const int row = 4 * y + ky, column = 4 * x + kx;
        const int inside = row < image_.height ? div_up(image_.width - column, 4) : 0;
        const int number = std::clamp(inside, 0, count);
        const size_t first = (static_cast<size_t>(row) * image_.width + column) * channels_;
        read_values(first, number, tile, stride);
        for (int c = 0; c < channels_; ++c, tile += stride)
          if (number < count) std::fill(tile + number, tile + count, 0.0f);
      }
  }

 private:
  // The same pixel of adjacent patches, channel by channel.
  void read_values(size_t first, int number, float* out, int stride) const {
    const int step = 4 * channels_;
    if (image_.bytes && channels_ == 3)
      return look_up<3>(image_.bytes + first, step, parameters_.byte_values.data(), number, out,
                        stride);
    for (int c = 0; c < channels_; ++c, out += stride)
      if (image_.bytes)
        look_up<1>(image_.bytes + first + c, step, parameters_.byte_values.data() + 256 * c, number,
                   out, stride);
      else
        for (int i = 0; i < number; ++i)
          out[i] =
              parameters_.normalized(image_.floats[first + c + static_cast<size_t>(i) * step], c);
  }

  const Image& image_;
  const int channels_;
  const Parameters& parameters_;
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
    finish_tokens(run, s, out, kWideStride, tokens, out + to.planes * kWideStride);
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
  finish_tokens(run, s, out, kTileLanes, tokens, out + outputs * kTileLanes);
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
  finish_tokens(run, s, out, kLanes, tokens, out + to.planes * kLanes);
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
    expect_stores(to, tokens);
    float* out = scratch + stem.inputs * kWideStride;
    Span spans[kTileLanes];
    const int number = cut_into_spans(tokens.token, tokens.count, to.width, spans);
    for (int i = 0; i < number; ++i)
      reader.read(spans[i].y, spans[i].x, spans[i].count, scratch + spans[i].lane, kWideStride);
    run.kernels.multiply(scratch, kWideStride, stem.inputs, tokens.vectors(), stem.weights.data(),
                         stem.bias.data(), to.planes, out, kWideStride);
    run.kernels.gelu_tile(out, kWideStride, to.planes, tokens.vectors());
    finish_tokens(run, 0, out, kWideStride, tokens, out + to.planes * kWideStride);
  });
}

void run_downsampling(const Run& run, int stage) {
  if (run.parameters.arch.binary_downsampling)
    run_binary(run, stage);
  else
    run_full_precision(run, stage);
}

}  // namespace bhvit
