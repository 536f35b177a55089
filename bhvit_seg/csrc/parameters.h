// The parameters of a packed model as the kernels want them: checked, blocked, and with borders
// worked out. Names follow docs/packed.md.
#pragma once

#include <string>
#include <vector>

#include "kernels/kernels.h"
#include "memory.h"
#include "tensors.h"

namespace bhvit {

constexpr int kStages = 4;
constexpr int kDilations[3] = {1, 3, 5};
constexpr int kGroups = 4;

struct Architecture {
  std::vector<int32_t> numbers;  // all that follows, as the file has it
  int in_channels;
  int depths[kStages], channels[kStages], hidden[kStages], heads[kStages];
  int window;
  bool binary_downsampling;
  bool uper_head;
  int head_channels, classes;
  bool align_corners;
  int divisor;  // what the sides of an image are mirrored up to a multiple of
};

struct Affine {
  Aligned<float> scale, bias;
};

// A learned map for tokens, resized to the size of the map it is added to.
struct Position {
  int size;
  Aligned<float> values;  // [channels][size][size]
};

// Float products: blocked weights.
struct Dense {
  int inputs, outputs;  // outputs rounded up to whole blocks
  Aligned<float> weights, bias;
};

struct BinaryConvolution {
  Convolution layer;  // points into what follows
  Aligned<uint32_t> weights;
  Aligned<int32_t> start, missing;
  BinaryConvolution() = default;
  BinaryConvolution(BinaryConvolution&&) = default;  // vectors keep their memory when moved
  BinaryConvolution& operator=(BinaryConvolution&&) = default;
};

// A binary convolution with norm, RPReLU and the affine step after it.
struct BinaryModule {
  BinaryConvolution convolution;
  Aligned<float> input_bias;
  std::vector<OutputChannel> outputs;
};

struct MsgdcParameters {
  Affine in;
  BinaryConvolution convolutions[3];
  std::vector<BranchChannel> channels[3];
  Affine out;
  MultiScaleConvolution layer;
};

// A product of queries, keys, values or of the output, with the bits h >= input_threshold.
template <typename Channel>
struct Projection {
  Aligned<float> input_threshold;
  Aligned<uint32_t> weights;
  std::vector<Channel> outputs;
};

struct MsmhaParameters {
  Affine in, norm;
  Aligned<float> pool_balance;
  Projection<BitChannel> parts[3];  // queries, keys, values
  TokenProjections projections;
  std::vector<Attention> heads;
  std::vector<OutputChannel> context;
  Aligned<float> context_shift, window_balance;
  ContextMixer mixer;
  Projection<OutputChannel> output;
};

struct MlpParameters {
  Affine in;
  Aligned<float> input_bias, taps;
  Aligned<uint32_t> weights1, weights2;
  std::vector<BitChannel> hidden;
  std::vector<OutputChannel> outputs;
  Mlp layer;
};

struct BlockParameters {
  MsgdcParameters msgdc;  // stages 1 and 2
  MsmhaParameters msmha;  // stages 3 and 4
  MlpParameters mlp;
};

struct DownsamplingParameters {
  Affine in;
  Dense dense;          // full precision
  BinaryModule binary;  // or binary
  Position position;
};

struct HeadParameters {
  std::vector<BinaryModule> levels;  // SegFormer: of each stage; UPerNet: laterals of stages 1 to 3
  BinaryModule fusion;               // SegFormer: fusion; UPerNet: fpn_bottleneck
  std::vector<int> pool_scales;
  std::vector<BinaryModule> pooled, fpn;
  BinaryModule bottleneck;
  Dense classifier;
};

struct Parameters {
  explicit Parameters(const Tensors& file);

  Architecture arch;
  Aligned<float> mean, deviation;
  float largest_value;  // of an image, positive or negative

  float normalized(float value, int channel) const {
    return (value - mean[channel]) / deviation[channel];
  }
  Dense stem;
  Position stem_position;
  DownsamplingParameters downsamplings[kStages - 1];
  std::vector<BlockParameters> stages[kStages];
  Affine out[kStages];
  HeadParameters head;
};

// Weights [outputs][words] of a file in blocks, with the corrections at borders of a map.
BinaryConvolution make_convolution(const Aligned<uint32_t>& rows, int kernel, int groups,
                                   int inputs, int outputs);

}  // namespace bhvit
