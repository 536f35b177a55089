#include "parameters.h"

#include <algorithm>
#include <cfloat>
#include <cmath>

namespace bhvit {
namespace {

template <typename T>
Aligned<T> block_rows(const Aligned<T>& rows, int outputs, int length) {
  const int blocks = div_up(outputs, kBlock);
  Aligned<T> blocked(static_cast<size_t>(blocks) * kBlock * length, T{});
  for (int o = 0; o < outputs; ++o)
    for (int k = 0; k < length; ++k)
      blocked[(static_cast<size_t>(o / kBlock) * length + k) * kBlock + o % kBlock] =
          rows[static_cast<size_t>(o) * length + k];
  return blocked;
}

Dense make_dense(const Aligned<float>& rows, const Aligned<float>& bias, int inputs, int outputs) {
  Dense dense{inputs, round_up(outputs, kBlock), block_rows(rows, outputs, inputs), bias};
  dense.bias.resize(dense.outputs, 0.0f);
  return dense;
}

// Bits that are set among those from `begin` to `end`.
int count_bits(const uint32_t* words, int begin, int end) {
  int set = 0;
  for (int k = begin, next; k < end; k = next) {
    next = std::min(end, (k / 32 + 1) * 32);
    const uint64_t mask = (uint64_t{1} << (next - k)) - 1;
    set += __builtin_popcount(words[k / 32] >> (k % 32) & static_cast<uint32_t>(mask));
  }
  return set;
}

// Where bits are counted in bytes, a byte holds the counts of 31 words.
constexpr int kMaxHeadChannels = 31 * 32;

// Values of images beyond so many standard deviations overflow float32 further down, where squares
// of tokens are summed. What an image has there is a marker of missing data, such as -3.4e38.
constexpr float kMaxDeviations = 1e9f;

Architecture read_architecture(const Tensors& file) {
  const bool divides = file.shape("architecture") == Shape{24};  // older files have one less
  const std::vector<int32_t> n = file.integers("architecture", {divides ? 24 : 23});
  Architecture a;
  a.numbers = n;
  a.in_channels = n[0];
  for (int s = 0; s < kStages; ++s) {
    a.depths[s] = n[1 + s];
    a.channels[s] = n[5 + s];
    a.hidden[s] = n[9 + s];
    a.heads[s] = n[13 + s];
  }
  a.window = n[17];
  a.binary_downsampling = n[18] == 1;
  a.uper_head = n[19] == 1;
  a.head_channels = n[20];
  a.classes = n[21];
  a.align_corners = n[22] == 1;
  a.divisor = divides ? n[23] : 1;
  const auto range = [&](const std::string& what, int value, int low, int high) {
    if (value < low || value > high) file.unsupported(what + " is " + std::to_string(value));
  };
  const auto channels = [&](const std::string& what, int value, int most) {
    range(what, value, 32, most);
    if (value % 32)
      file.unsupported(what + " is " + std::to_string(value) + ", not a multiple of 32");
  };
  range("in_channels", a.in_channels, 1, 1024);
  range("window_size", a.window, 1, 256);
  range("downsampling", n[18], 0, 1);
  range("the kind of head", n[19], 0, 1);
  range("align_corners", n[22], 0, 1);
  range("size_divisor", a.divisor, 1, 1024);
  range("the number of classes", a.classes, 1, 256);
  channels("the head's number of channels", a.head_channels, 1 << 14);
  for (int s = 0; s < kStages; ++s) {
    const std::string stage = " of stage " + std::to_string(s + 1);
    range("the depth" + stage, a.depths[s], 0, 1024);
    channels("the number of channels" + stage, a.channels[s], 1 << 14);
    channels("the number of hidden channels" + stage, a.hidden[s], 1 << 17);
    if (a.hidden[s] % a.channels[s])
      file.unsupported("the expansion ratio" + stage + " is not whole");
    if (s && a.channels[s] % a.channels[s - 1])
      file.unsupported("the number of channels" + stage + " is not a multiple of that before");
    if (s < 2) {
      const int group = a.channels[s] / kGroups;
      if (group % 32 && group != 8 && group != 16)
        file.unsupported("the number of channels" + stage + " is " + std::to_string(a.channels[s]));
    } else {
      range("the number of heads" + stage, a.heads[s], 1, a.channels[s] / 32);
      const int size = a.channels[s] / a.heads[s];
      if (a.channels[s] % (32 * a.heads[s]) || size > kMaxHeadChannels)
        file.unsupported("the number of heads" + stage + " is " + std::to_string(a.heads[s]));
    }
    const int c = a.channels[s], h = a.head_channels;
    if (c % h && h % c) file.unsupported("the head's number of channels does not fit" + stage);
  }
  return a;
}

class Reader {
 public:
  explicit Reader(const Tensors& file) : file_(file) {}

  Aligned<float> floats(const std::string& name, int size) const {
    return file_.floats(name, {size});
  }
  float positive(const std::string& name) const {
    const float value = floats(name, 1)[0];
    if (value <= 0) file_.unsupported(name + " is not positive");
    return value;
  }
  Affine affine(const std::string& scale, const std::string& bias, int channels) const {
    return {floats(scale, channels), floats(bias, channels)};
  }
  Position position(const std::string& name, int channels) const {
    const Shape shape = file_.shape(name);
    const int64_t size = shape.size() == 3 ? shape[1] : 0;
    if (size < 1) file_.unsupported(name + " is not a square map");
    return {static_cast<int>(size), file_.floats(name, {channels, size, size})};
  }
  Aligned<uint32_t> blocked_bits(const std::string& name, int inputs, int outputs) const {
    return block_rows(file_.words(name, {outputs, inputs / 32}), outputs, inputs / 32);
  }
  // post_scale 1 and post_bias `shift`, or what the two names say
  std::vector<OutputChannel> outputs(const std::string& prefix, int channels,
                                     const std::string& post_scale,
                                     const std::string& post_bias) const {
    const auto scale = floats(prefix + "scale", channels), bias = floats(prefix + "bias", channels);
    const auto slope = floats(prefix + "slope", channels);
    const auto after =
        post_scale.empty() ? Aligned<float>(channels, 1.0f) : floats(post_scale, channels);
    const auto shift =
        post_bias.empty() ? Aligned<float>(channels, 0.0f) : floats(post_bias, channels);
    std::vector<OutputChannel> all(channels);
    for (int c = 0; c < channels; ++c)
      all[c] = {-2.0f * scale[c], bias[c], slope[c], after[c], shift[c]};
    return all;
  }
  BinaryModule module(const std::string& prefix, int kernel, int inputs, int outputs) const {
    const int words = kernel * kernel * inputs / 32;
    BinaryModule m;
    m.convolution = make_convolution(file_.words(prefix + "bits", {outputs, words}), kernel, 1,
                                     inputs, outputs);
    m.input_bias = floats(prefix + "input_bias", inputs);
    m.outputs = this->outputs(prefix, outputs, "", prefix + "shift");
    return m;
  }

  MsgdcParameters msgdc(const std::string& prefix, int channels) const {
    MsgdcParameters m;
    m.in = affine(prefix + "in_scale", prefix + "in_bias", channels);
    const int words = div_up(9 * (channels / kGroups), 32);
    const auto bits = file_.words(prefix + "bits", {3, channels, words});
    const auto scale = file_.floats(prefix + "scale", {3, channels});
    const auto bias = file_.floats(prefix + "bias", {3, channels});
    const auto slope = file_.floats(prefix + "slope", {3, channels});
    for (int i = 0; i < 3 * channels; ++i)
      m.channels[i / channels].push_back({-2.0f * scale[i], bias[i], slope[i]});
    m.out = affine(prefix + "out_scale", prefix + "out_bias", channels);
    const size_t size = static_cast<size_t>(channels) * words;
    for (int d = 0; d < 3; ++d)
      m.convolutions[d] = make_convolution({bits.begin() + d * size, bits.begin() + (d + 1) * size},
                                           3, kGroups, channels, channels);
    return m;
  }

  // Thresholds for x where the file has what is added to x before its sign is taken.
  Aligned<float> thresholds(const std::string& name, int channels) const {
    auto values = floats(name, channels);
    for (float& value : values) value = -value;
    return values;
  }
  template <typename Channel>
  Projection<Channel> projection(const std::string& prefix, int channels,
                                 std::vector<Channel> outputs) const {
    return {thresholds(prefix + "input_bias", channels),
            blocked_bits(prefix + "bits", channels, channels), std::move(outputs)};
  }
  std::vector<BitChannel> bit_channels(const std::string& prefix, int channels,
                                       const Aligned<float>& threshold) const {
    const auto scale = floats(prefix + "scale", channels), bias = floats(prefix + "bias", channels);
    const auto slope = floats(prefix + "slope", channels);
    std::vector<BitChannel> all(channels);
    for (int c = 0; c < channels; ++c) all[c] = {-2.0f * scale[c], bias[c], slope[c], threshold[c]};
    return all;
  }

  MsmhaParameters msmha(const std::string& prefix, int channels, int heads) const {
    MsmhaParameters m;
    m.in = affine(prefix + "in_scale", prefix + "in_bias", channels);
    m.norm = affine(prefix + "norm_weight", prefix + "norm_bias", channels);
    m.pool_balance = floats(prefix + "pool_balance", channels);
    const char* const names[3] = {"query.", "key.", "value."};
    m.projections = {channels,
                     m.in.scale.data(),
                     m.in.bias.data(),
                     m.norm.scale.data(),
                     m.norm.bias.data(),
                     positive(prefix + "norm_eps"),
                     {}};
    for (int p = 0; p < 3; ++p) {
      const std::string part = prefix + names[p];
      m.parts[p] = projection(
          part, channels, bit_channels(part, channels, thresholds(part + "bit_bias", channels)));
      m.projections.parts[p] = {m.parts[p].input_threshold.data(), m.parts[p].weights.data(),
                                m.parts[p].outputs.data()};
    }
    m.output = projection(prefix + "output.", channels,
                          outputs(prefix + "output.", channels, prefix + "output.layer_scale",
                                  prefix + "output.layer_bias"));
    const auto alpha = floats(prefix + "alpha", heads);
    const auto zero_point = floats(prefix + "zero_point", heads);
    const int size = channels / heads;
    // softmax of (size - 2p) / sqrt(size), as a power of two
    const double exponent = 1.4426950408889634 / std::sqrt(static_cast<double>(size));
    for (int h = 0; h < heads; ++h) {
      Attention head = {size / 32, size, {}, 3.0f / alpha[h], zero_point[h]};
      if (!std::isfinite(head.level_scale))
        file_.unsupported(prefix + "alpha has the value " + std::to_string(alpha[h]));
      for (int digit = 0, unit = 1; digit < 3; ++digit, unit *= 16)
        for (int i = 0; i < 16; ++i)
          head.powers[digit][i] =
              static_cast<float>(std::exp2(exponent * ((digit ? 0 : size) - 2 * unit * i)));
      m.heads.push_back(head);
    }
    const auto scale = floats(prefix + "context_scale", channels);
    const auto bias = floats(prefix + "context_bias", channels);
    const auto slope = floats(prefix + "context_slope", channels);
    for (int c = 0; c < channels; ++c) m.context.push_back({scale[c], bias[c], slope[c], 1, 0});
    m.context_shift = floats(prefix + "context_shift", channels);
    m.window_balance = floats(prefix + "window_balance", channels);
    m.mixer = {channels, m.context.data(), m.window_balance.data(),
               m.output.input_threshold.data()};
    return m;
  }

  MlpParameters mlp(const std::string& prefix, int channels, int hidden) const {
    MlpParameters m;
    m.in = affine(prefix + "in_scale", prefix + "in_bias", channels);
    m.input_bias = floats(prefix + "fc1.input_bias", channels);
    m.taps = file_.floats(prefix + "taps", {channels, 9});
    m.weights1 = blocked_bits(prefix + "fc1.bits", channels, hidden);
    m.weights2 = blocked_bits(prefix + "fc2.bits", hidden, channels);
    const auto scale = floats(prefix + "fc1.scale", hidden);
    const auto bias = floats(prefix + "fc1.bias", hidden);
    const auto slope = floats(prefix + "fc1.slope", hidden);
    const auto threshold = floats(prefix + "fc1.threshold", hidden);
    for (int c = 0; c < hidden; ++c)
      m.hidden.push_back({-2.0f * scale[c], bias[c], slope[c], threshold[c]});
    m.outputs = outputs(prefix + "fc2.", channels, prefix + "layer_scale", prefix + "layer_bias");
    return m;
  }

  DownsamplingParameters downsampling(const std::string& prefix, int inputs, int outputs,
                                      bool binary) const {
    DownsamplingParameters d;
    d.in = affine(prefix + "in_scale", prefix + "in_bias", inputs);
    if (binary) {
      d.binary = module(prefix, 2, inputs, outputs);
    } else {
      d.dense = make_dense(file_.floats(prefix + "weight", {outputs, 2, 2, inputs}),
                           floats(prefix + "bias", outputs), 4 * inputs, outputs);
    }
    d.position = position(prefix + "position", outputs);
    return d;
  }

  HeadParameters head(const Architecture& a) const {
    HeadParameters h;
    const int channels = a.head_channels;
    const auto numbered = [](const std::string& name, size_t i) {
      return "head." + name + std::to_string(i) + ".";
    };
    if (a.uper_head) {
      const Shape shape = file_.shape("head.pool_scales");
      if (shape.size() != 1 || shape[0] > 64) file_.unsupported("head.pool_scales is wrong");
      for (int scale : file_.integers("head.pool_scales", shape)) {
        if (scale < 1 || scale > kLanes) file_.unsupported("head.pool_scales is wrong");
        h.pool_scales.push_back(scale);
        h.pooled.push_back(module(numbered("psp", h.pooled.size()), 1, a.channels[3], channels));
      }
      const int all = a.channels[3] + static_cast<int>(h.pool_scales.size()) * channels;
      if (all % channels && channels % all)
        file_.unsupported("the head's channels have no shortcut");
      h.bottleneck = module("head.bottleneck.", 3, all, channels);
      for (int i = 0; i < kStages - 1; ++i) {
        h.levels.push_back(module(numbered("lateral", i), 1, a.channels[i], channels));
        h.fpn.push_back(module(numbered("fpn", i), 3, channels, channels));
      }
      h.fusion = module("head.fpn_bottleneck.", 3, kStages * channels, channels);
    } else {
      for (int i = 0; i < kStages; ++i)
        h.levels.push_back(module(numbered("conv", i), 1, a.channels[i], channels));
      h.fusion = module("head.fusion.", 1, kStages * channels, channels);
    }
    h.classifier = make_dense(file_.floats("head.classifier.weight", {a.classes, channels}),
                              floats("head.classifier.bias", a.classes), channels, a.classes);
    return h;
  }

 private:
  const Tensors& file_;
};

void point_to_arrays(MsgdcParameters& m) {
  for (int d = 0; d < 3; ++d) m.layer.branches[d] = {m.convolutions[d].layer, m.channels[d].data()};
  m.layer.out_scale = m.out.scale.data();
  m.layer.out_bias = m.out.bias.data();
}

void point_to_arrays(MlpParameters& m) {
  m.layer = {static_cast<int>(m.outputs.size()),
             static_cast<int>(m.hidden.size()),
             m.in.scale.data(),
             m.in.bias.data(),
             m.input_bias.data(),
             m.weights1.data(),
             m.hidden.data(),
             m.weights2.data(),
             m.outputs.data(),
             m.taps.data()};
}

}  // namespace

BinaryConvolution make_convolution(const Aligned<uint32_t>& rows, int kernel, int groups,
                                   int inputs, int outputs) {
  BinaryConvolution c;
  const int of_group = inputs / groups, taps = kernel * kernel;
  const int words = div_up(taps * of_group, 32), states = 1 << kernel;
  Aligned<uint32_t> clean = rows;
  if (const int used = taps * of_group % 32) {  // bits beyond the last input count nowhere
    for (int o = 0; o < outputs; ++o)
      clean[static_cast<size_t>(o + 1) * words - 1] &= (uint32_t{1} << used) - 1;
  }
  c.weights = block_rows(clean, outputs, words);
  c.start.assign(static_cast<size_t>(states) * outputs, 0);
  c.missing.assign(static_cast<size_t>(states) * kernel * outputs, 0);
  for (int o = 0; o < outputs; ++o) {
    std::vector<int> halves(taps);  // -sum(w) / 2 of each tap
    for (int tap = 0; tap < taps; ++tap) {
      const int set = count_bits(rows.data() + static_cast<size_t>(o) * words, tap * of_group,
                                 (tap + 1) * of_group);
      halves[tap] = -(2 * set - of_group) / 2;
    }
    for (int state = 0; state < states; ++state) {
      int start = -(taps * of_group) / 2;
      for (int tap = 0; tap < taps; ++tap) {
        if (state >> (tap / kernel) & 1)
          c.missing[(static_cast<size_t>(state) * kernel + tap % kernel) * outputs + o] +=
              halves[tap];
        else
          start += halves[tap];
      }
      c.start[static_cast<size_t>(state) * outputs + o] = start;
    }
  }
  c.layer = {
      kernel, groups, inputs, outputs, words, c.weights.data(), {c.start.data(), c.missing.data()}};
  return c;
}

Parameters::Parameters(const Tensors& file) : arch(read_architecture(file)) {
  const Reader read(file);
  mean = read.floats("preprocess.mean", arch.in_channels);
  deviation = read.floats("preprocess.std", arch.in_channels);
  largest_value = FLT_MAX;
  for (int c = 0; c < arch.in_channels; ++c) {
    if (deviation[c] <= 0)
      file.unsupported("preprocess.std of channel " + std::to_string(c) + " is not positive");
    largest_value = std::min(largest_value, kMaxDeviations * deviation[c]);
    if (!std::isfinite(normalized(0.0f, c)) || !std::isfinite(normalized(255.0f, c)))
      file.unsupported("preprocess.std of channel " + std::to_string(c) + " is too small");
  }
  const int first = arch.channels[0];
  stem = make_dense(file.floats("stem.weight", {first, 4, 4, arch.in_channels}),
                    read.floats("stem.bias", first), 16 * arch.in_channels, first);
  stem_position = read.position("stem.position", first);
  for (int s = 0; s < kStages; ++s) {
    const std::string number = std::to_string(s);
    const int channels = arch.channels[s];
    if (s)
      downsamplings[s - 1] =
          read.downsampling("down" + std::to_string(s - 1) + ".", arch.channels[s - 1], channels,
                            arch.binary_downsampling);
    for (int b = 0; b < arch.depths[s]; ++b) {
      const std::string prefix = "stage" + number + ".block" + std::to_string(b) + ".";
      BlockParameters block;
      if (s < 2)
        block.msgdc = read.msgdc(prefix + "mixer.", channels);
      else
        block.msmha = read.msmha(prefix + "mixer.", channels, arch.heads[s]);
      block.mlp = read.mlp(prefix + "mlp.", channels, arch.hidden[s]);
      stages[s].push_back(std::move(block));
    }
    for (BlockParameters& block : stages[s]) {
      if (s < 2) point_to_arrays(block.msgdc);
      point_to_arrays(block.mlp);
    }
    out[s] = read.affine("out" + number + ".scale", "out" + number + ".bias", channels);
  }
  head = read.head(arch);
}

}  // namespace bhvit
