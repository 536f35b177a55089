#include "plan.h"

#include <algorithm>

namespace bhvit {
namespace {

template <typename T>
Planes<T> take_planes(Arena& arena, int height, int width, int planes) {
  return make_planes(arena.take<T>(planes_size(height, width, planes)), height, width, planes);
}

void fill_position(const Position& position, const Map& map) {
  std::vector<float> plane(static_cast<size_t>(map.height) * map.width);
  for (int c = 0; c < map.planes; ++c) {
    resize_bicubic(position.values.data() + static_cast<size_t>(c) * position.size * position.size,
                   position.size, map.height, map.width, plane.data());
    for (int y = 0; y < map.height; ++y)
      std::copy_n(plane.data() + static_cast<size_t>(y) * map.width, map.width, map.at(y, c, 0));
  }
}

}  // namespace

Plan::Plan(const Parameters& parameters, int height, int width, int threads)
    : height(height), width(width) {
  const Architecture& arch = parameters.arch;
  memory_ = Block(measure(parameters, threads));  // zeros: borders of bit maps stay as they are
  Arena arena(memory_.data());
  lay_out(parameters, arena, threads);

  for (int s = 0; s < kStages; ++s) {
    const StagePlan& stage = stages[s];
    fill_position(s ? parameters.downsamplings[s - 1].position : parameters.stem_position,
                  stage.position);
    from_stage[s] =
        Resize(stage.height, stage.width, stages[0].height, stages[0].width, arch.align_corners);
  }
  to_labels = Resize(stages[0].height, stages[0].width, height, width, arch.align_corners);
  for (int s = 0; s + 1 < kStages; ++s)
    from_above.emplace_back(stages[s + 1].height, stages[s + 1].width, stages[s].height,
                            stages[s].width, arch.align_corners);
  for (int scale : parameters.head.pool_scales)
    from_square.emplace_back(scale, scale, stages[3].height, stages[3].width, arch.align_corners);
}

uint64_t Plan::bytes(const Parameters& parameters, int height, int width, int threads) {
  return Plan(height, width).measure(parameters, threads);
}

uint64_t Plan::measure(const Parameters& parameters, int threads) {
  Arena arena;
  lay_out(parameters, arena, threads);
  return arena.used();
}

void Plan::lay_out(const Parameters& parameters, Arena& arena, int threads) {
  for (int s = 0; s < kStages; ++s) {
    stages[s].height = s ? div_up(stages[s - 1].height, 2) : div_up(height, 4);
    stages[s].width = s ? div_up(stages[s - 1].width, 2) : div_up(width, 4);
    lay_out_stage(parameters, s, arena);
  }
  lay_out_head(parameters, arena);
  const uint64_t size = scratch_size(parameters);
  scratch.clear();
  for (int i = 0; i < threads; ++i) scratch.push_back(arena.take<float>(size));
}

void Plan::lay_out_stage(const Parameters& parameters, int s, Arena& arena) {
  StagePlan& stage = stages[s];
  const Architecture& arch = parameters.arch;
  const int h = stage.height, w = stage.width, channels = arch.channels[s];
  stage.x = take_planes<float>(arena, h, w, channels);
  stage.y = take_planes<float>(arena, h, w, channels);
  stage.position = take_planes<float>(arena, h, w, channels);
  if (s < 2) {
    stage.bits = take_planes<uint32_t>(arena, h, w, channels / 32);
    return;
  }
  stage.cells_down = div_up(h, arch.window);
  stage.cells_across = div_up(w, arch.window);
  const int cells = stage.cells();
  stage.groups = std::min(cells, kWindowGroups);
  stage.cell_stride = round_up(cells, kLanes) + kLanes;
  stage.pooled = take_planes<float>(arena, 1, cells, channels);
  stage.rest = arena.take<float>(static_cast<uint64_t>(round_up(h * w, kTileLanes)) * channels);
  stage.pooled_rest = take_planes<float>(arena, 1, cells, channels);
  for (TokenBits& bits : stage.attending)
    bits = {take_planes<uint32_t>(arena, h, w, channels / 32),
            take_planes<uint32_t>(arena, 1, cells, channels / 32)};
  const int first = cells % kLanes, vectors = div_up(first + arch.window * arch.window, kLanes);
  const uint64_t values = static_cast<uint64_t>(cells) * vectors * channels * kLanes;
  stage.window_sums = arena.take<int32_t>(values + 2 * kLanes) + kLanes;
  stage.sums = {stage.window_sums, vectors, first, arch.window, stage.cells_across, w};
  const uint64_t size = static_cast<uint64_t>(channels) * stage.cell_stride;
  stage.pooled_context = arena.take<float>(stage.groups * size);
  stage.contexts = arena.take<float>(static_cast<uint64_t>(cells) * channels);
}

void Plan::lay_out_head(const Parameters& parameters, Arena& arena) {
  const Architecture& arch = parameters.arch;
  const HeadParameters& head = parameters.head;
  const int channels = arch.head_channels, h = stages[0].height, w = stages[0].width;
  levels.clear();
  for (int s = 0; s < kStages; ++s)
    levels.push_back(take_planes<float>(arena, stages[s].height, stages[s].width, channels));
  logits = take_planes<float>(arena, h, w, head.classifier.outputs);
  if (!arch.uper_head) return;
  squares.clear();
  pooled.clear();
  outputs.clear();
  for (int scale : head.pool_scales) {
    squares.push_back(take_planes<float>(arena, scale, scale, arch.channels[3]));
    pooled.push_back(take_planes<float>(arena, scale, scale, channels));
  }
  const int all = arch.channels[3] + static_cast<int>(head.pool_scales.size()) * channels;
  pyramid = take_planes<float>(arena, stages[3].height, stages[3].width, all);
  joined = take_planes<float>(arena, h, w, kStages * channels);
  top = take_planes<float>(arena, h, w, channels);
  level_bits.clear();
  for (int s = 0; s + 1 < kStages; ++s) {
    const StagePlan& stage = stages[s];
    outputs.push_back(take_planes<float>(arena, stage.height, stage.width, channels));
    level_bits.push_back(take_planes<uint32_t>(arena, stage.height, stage.width, channels / 32));
  }
  pyramid_bits = take_planes<uint32_t>(arena, stages[3].height, stages[3].width, all / 32);
  joined_bits = take_planes<uint32_t>(arena, h, w, kStages * channels / 32);
}

uint64_t Plan::scratch_size(const Parameters& parameters) const {
  const Architecture& arch = parameters.arch;
  uint64_t most = static_cast<uint64_t>(kWideStride) *
                  (16 * arch.in_channels + 2 * static_cast<uint64_t>(arch.channels[0]));
  const auto need = [&](uint64_t floats) { most = std::max(most, floats); };
  for (int s = 0; s < kStages; ++s) {
    const uint64_t c = arch.channels[s];
    need(mlp_scratch(arch.channels[s], arch.hidden[s]));
    if (s < 2)
      for (const BlockParameters& block : parameters.stages[s])
        need(multi_scale_scratch(block.msgdc.convolutions[0].layer));
    if (s) {
      const uint64_t before = arch.channels[s - 1];
      need(kWideStride * (5 * before + before / 8 + 3 * c) + 16 * c);  // patches, bits, words
    }
    if (s >= 2) {
      const StagePlan& stage = stages[s];
      need(2 * static_cast<uint64_t>(round_up(stage.width, kLanes) + kLanes));
      need(stage.cells());
      need(kTileLanes * (c + 3 * c / 32) + project_tokens_scratch(arch.channels[s]));
      need(kTileLanes * (2 * c + c / 32));
      const int tokens = arch.window * arch.window + stage.cells();
      need(attend_scratch(arch.channels[s] / arch.heads[s], tokens));
    }
  }
  const uint64_t channels = arch.head_channels;
  uint64_t inputs = kStages * channels;  // of a convolution in the head
  for (int s = 0; s < kStages; ++s) inputs = std::max<uint64_t>(inputs, arch.channels[s]);
  inputs =
      std::max<uint64_t>(inputs, arch.channels[3] + parameters.head.pool_scales.size() * channels);
  need(kTileLanes * (2 * inputs + inputs / 32 + channels + parameters.head.classifier.outputs) +
       kLanes * (9 * inputs / 32 + 8));
  return most + 8 * kLanes;
}

}  // namespace bhvit
