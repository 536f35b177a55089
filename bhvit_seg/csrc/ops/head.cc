// The binary decode heads, and labels at the image's size.
#include <algorithm>

#include "run.h"

namespace bhvit {
namespace {

// A 1x1 module on tokens of a map; `in`: an affine step before it, or null. Writes [outputs][32].
void pointwise_tile(const Kernels& k, const BinaryModule& module, const Affine* in, const Map& from,
                    Tokens tokens, float* out, float* scratch) {
  const int inputs = module.convolution.layer.inputs, outputs = module.convolution.layer.outputs;
  uint32_t* bits = reinterpret_cast<uint32_t*>(scratch + inputs * kTileLanes + kLanes);
  k.load_tile(from, inputs, tokens, in ? in->scale.data() : nullptr, in ? in->bias.data() : nullptr,
              scratch, kTileLanes);
  k.pack_tile(scratch, kTileLanes, inputs, tokens.vectors(), nullptr, module.input_bias.data(),
              bits);
  k.project(bits, inputs, module.convolution.weights.data(), module.outputs.data(), outputs,
            scratch, inputs, kTileLanes, tokens.vectors(), out);
}

// The same from map to map.
void run_pointwise(const Run& run, const char* name, const BinaryModule& module, const Affine* in,
                   const Map& from, const Map& to) {
  run.region(name, tiles_of(to), [&](int piece, float* scratch) {
    const Tokens tokens = tile_of(to, piece);
    expect_stores(to, tokens);
    pointwise_tile(run.kernels, module, in, from, tokens, scratch,
                   scratch + to.planes * kTileLanes);
    run.kernels.store_tile(scratch, kTileLanes, to.planes, to, tokens, false, false);
  });
}

// A 3x3 module from map to map; `bits` has the map's size.
void run_neighbourhood(const Run& run, const char* name, const BinaryModule& module,
                       const Map& from, const BitMap& bits, const Map& to) {
  const Kernels& k = run.kernels;
  const Convolution& layer = module.convolution.layer;
  run.region(name, tiles_of(from), [&](int piece, float* scratch) {
    const Tokens tokens = tile_of(from, piece);
    uint32_t* packed = reinterpret_cast<uint32_t*>(scratch + layer.inputs * kTileLanes + kLanes);
    k.load_tile(from, layer.inputs, tokens, nullptr, nullptr, scratch, kTileLanes);
    k.pack_tile(scratch, kTileLanes, layer.inputs, tokens.vectors(), nullptr,
                module.input_bias.data(), packed);
    store_bits(packed, kTileLanes, bits, tokens);
  });
  const int columns = div_up(to.width, kLanes);
  run.region(name, to.height * columns, [&](int piece, float* scratch) {
    const int y = piece / columns, x = piece % columns * kLanes;
    const Tokens tokens = {y * to.width + x, std::min(kLanes, to.width - x)};
    float* shortcut = scratch;
    float* out = shortcut + layer.inputs * kLanes + kLanes;
    uint32_t* gathered = reinterpret_cast<uint32_t*>(out + layer.outputs * kLanes);
    k.load_tile(from, layer.inputs, tokens, nullptr, nullptr, shortcut, kLanes);
    k.convolve(layer, module.outputs.data(), taps_of(bits, y, 1), x, shortcut, layer.inputs,
               gathered, out);
    k.store_tile(out, kLanes, layer.outputs, to, tokens, false, false);
  });
}

// Adds or writes the upsampled map `from` to `to`.
void run_upsampling(const Run& run, const Map& from, const Resize& resize, const Map& to,
                    bool add) {
  const int columns = div_up(to.width, kLanes);
  const Upsampling view = resize.view();
  run.region("upsample", to.height * columns, [&](int piece, float* scratch) {
    const int y = piece / columns, tile = piece % columns, x = tile * kLanes;
    run.kernels.upsample_tile(from, from.planes, view, y, tile, scratch, kLanes);
    run.kernels.store_tile(scratch, kLanes, from.planes, to,
                           {y * to.width + x, std::min(kLanes, to.width - x)}, add, false);
  });
}

// Some channels of a map.
Map slice(const Map& map, int first, int planes) {
  Map part = map;
  part.data += first * map.plane;
  part.planes = planes;
  return part;
}

void run_segformer(const Run& run) {
  const Kernels& k = run.kernels;
  Plan& plan = run.plan;
  const HeadParameters& head = run.parameters.head;
  const int channels = run.parameters.arch.head_channels;
  for (int s = 1; s < kStages; ++s)
    run_pointwise(run, "head levels", head.levels[s], &run.parameters.out[s], plan.stages[s].x,
                  plan.levels[s]);
  static_assert(kStages == kAveraged, "as many maps are joined as channels make one output's mean");
  const Map& to = plan.logits;
  const int inputs = kStages * channels, columns = div_up(to.width, kTileLanes);
  const Dense& classifier = head.classifier;
  run.region("head fusion", to.height * columns, [&](int piece, float* scratch) {
    const int y = piece / columns, x = piece % columns * kTileLanes;
    const Tokens tokens = {y * to.width + x, std::min(kTileLanes, to.width - x)};
    const int vectors = tokens.vectors();
    expect_stores(to, tokens);
    float* means = scratch;
    float* fused = means + channels * kTileLanes;
    uint32_t* bits = reinterpret_cast<uint32_t*>(fused + channels * kTileLanes);
    float* tile = fused + (channels + inputs / 32) * kTileLanes;
    // Of the joined map only bits and means are kept: as a tile it would not fit the nearest cache.
    // The first stage's level is as large as all others together: it never goes to memory.
    const float* bias = head.fusion.input_bias.data();
    pointwise_tile(k, head.levels[0], &run.parameters.out[0], plan.stages[0].x, tokens, tile,
                   tile + channels * kTileLanes);
    k.pack_and_average(tile, kTileLanes, channels, vectors, bias, bits, means);
    for (int s = 1; s < kStages; ++s)
      k.upsample_and_pack(plan.levels[s], channels, plan.from_stage[s].view(), y, x / kLanes,
                          vectors, bias + s * channels, bits + s * channels / 32 * kTileLanes,
                          means + s * channels / kAveraged * kTileLanes, kTileLanes);
    k.project(bits, inputs, head.fusion.convolution.weights.data(), head.fusion.outputs.data(),
              channels, means, channels, kTileLanes, vectors, fused);
    k.multiply(fused, kTileLanes, channels, vectors, classifier.weights.data(),
               classifier.bias.data(), classifier.outputs, to.at(y, 0, x), to.plane);
  });
}

void run_classifier(const Run& run, const Map& from) {
  const Dense& classifier = run.parameters.head.classifier;
  run.region("classifier", tiles_of(from), [&](int piece, float* scratch) {
    const Tokens tokens = tile_of(from, piece);
    float* out = scratch + from.planes * kTileLanes + kLanes;
    run.kernels.load_tile(from, from.planes, tokens, nullptr, nullptr, scratch, kTileLanes);
    run.kernels.multiply(scratch, kTileLanes, from.planes, tokens.vectors(),
                         classifier.weights.data(), classifier.bias.data(), classifier.outputs, out,
                         kTileLanes);
    run.kernels.store_tile(out, kTileLanes, classifier.outputs, run.plan.logits, tokens, false,
                           false);
  });
}

// Averages of a map over a grid of scale x scale fields that may overlap, as torch's
// adaptive_avg_pool2d has them.
void run_squares(const Run& run, const Map& from, const Map& to) {
  const int scale = to.height;
  run.region("pyramid", from.planes, [&](int c, float*) {
    for (int i = 0; i < scale; ++i)
      for (int j = 0; j < scale; ++j) {
        const int y0 = i * from.height / scale, y1 = div_up((i + 1) * from.height, scale);
        const int x0 = j * from.width / scale, x1 = div_up((j + 1) * from.width, scale);
        double sum = 0;
        for (int y = y0; y < y1; ++y)
          for (int x = x0; x < x1; ++x) sum += *from.at(y, c, x);
        *to.at(i, c, j) = static_cast<float>(sum / ((y1 - y0) * (x1 - x0)));
      }
  });
}

void run_uper(const Run& run) {
  Plan& plan = run.plan;
  const HeadParameters& head = run.parameters.head;
  const Affine* out = run.parameters.out;
  const int channels = run.parameters.arch.head_channels;
  const Map last = slice(plan.pyramid, 0, run.parameters.arch.channels[3]);
  run.region("pyramid", tiles_of(last), [&](int piece, float* scratch) {
    const Tokens tokens = tile_of(last, piece);
    run.kernels.load_tile(plan.stages[3].x, last.planes, tokens, out[3].scale.data(),
                          out[3].bias.data(), scratch, kTileLanes);
    run.kernels.store_tile(scratch, kTileLanes, last.planes, last, tokens, false, false);
  });
  for (size_t i = 0; i < head.pool_scales.size(); ++i) {
    run_squares(run, last, plan.squares[i]);
    run_pointwise(run, "pyramid", head.pooled[i], nullptr, plan.squares[i], plan.pooled[i]);
    run_upsampling(run, plan.pooled[i], plan.from_square[i],
                   slice(plan.pyramid, last.planes + static_cast<int>(i) * channels, channels),
                   false);
  }
  run_neighbourhood(run, "bottleneck", head.bottleneck, plan.pyramid, plan.pyramid_bits,
                    plan.levels[3]);
  for (int s = 0; s + 1 < kStages; ++s)
    run_pointwise(run, "laterals", head.levels[s], &out[s], plan.stages[s].x, plan.levels[s]);
  for (int s = kStages - 2; s >= 0; --s)
    run_upsampling(run, plan.levels[s + 1], plan.from_above[s], plan.levels[s], true);
  for (int s = 0; s < kStages; ++s) {
    const Map place = slice(plan.joined, s * channels, channels);
    if (s + 1 < kStages)
      run_neighbourhood(run, "fpn", head.fpn[s], plan.levels[s], plan.level_bits[s],
                        s ? plan.outputs[s] : place);
    if (s)
      run_upsampling(run, s + 1 < kStages ? plan.outputs[s] : plan.levels[s], plan.from_stage[s],
                     place, false);
  }
  run_neighbourhood(run, "fpn bottleneck", head.fusion, plan.joined, plan.joined_bits, plan.top);
  run_classifier(run, plan.top);
}

}  // namespace

void run_head(const Run& run) {
  if (run.parameters.arch.uper_head)
    run_uper(run);
  else
    run_segformer(run);
}

void run_labels(const Run& run, int height, int width, uint8_t* labels) {
  const Plan& plan = run.plan;
  const auto& runs = plan.to_labels.runs();
  const Upsampling view = plan.to_labels.view();
  const auto pieces = std::lower_bound(runs.begin(), runs.end(), height) - runs.begin();
  run.region("labels", static_cast<int>(pieces), [&](int piece, float*) {
    run.kernels.label_rows(plan.logits, run.parameters.arch.classes, view, runs[piece],
                           std::min(runs[piece + 1], height), width,
                           labels + static_cast<ptrdiff_t>(runs[piece]) * width, width);
  });
}

}  // namespace bhvit
