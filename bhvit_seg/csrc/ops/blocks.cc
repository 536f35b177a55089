// The blocks of a stage: a token mixer (MSGDC, or MSMHA with its windows) and the MLP.
#include <algorithm>
#include <utility>

#include "run.h"

namespace bhvit {
namespace {

// The index-th window of a map.
Window window_of(const StagePlan& plan, int size, int index) {
  const int y = index / plan.cells_across * size, x = index % plan.cells_across * size;
  return {y, x, std::min(size, plan.height - y), std::min(size, plan.width - x)};
}

void run_msgdc(const Run& run, const MsgdcParameters& mixer, const StagePlan& plan) {
  run.region("msgdc", plan.height, [&](int y, float* scratch) {
    TapRows taps[3];
    for (int d = 0; d < 3; ++d) taps[d] = taps_of(plan.bits, y, kDilations[d]);
    run.kernels.multi_scale(mixer.layer, taps, plan.x, y, reinterpret_cast<uint32_t*>(scratch));
  });
}

// One token for each window: a learned mean of maximum and average over a field as large as a
// window that begins half a window before it; what lies outside the map counts as zeros in the
// average.
void run_pooling(const Run& run, const MsmhaParameters& mixer, const StagePlan& plan) {
  const int size = run.parameters.arch.window, channels = plan.x.planes;
  constexpr int kTogether = 16;
  run.region("pooling", div_up(channels, kTogether), [&](int piece, float* scratch) {
    float* highest = scratch;
    float* sum = scratch + round_up(plan.width, kLanes);
    for (int c = piece * kTogether; c < std::min(channels, (piece + 1) * kTogether); ++c) {
      for (int i = 0; i < plan.cells_down; ++i) {
        const int y0 = std::max(i * size - size / 2, 0);
        const int y1 = std::min(i * size - size / 2 + size, plan.height);
        run.kernels.pool_rows(plan.x, c, y0, y1, mixer.in.scale[c], mixer.in.bias[c], highest, sum);
        for (int j = 0; j < plan.cells_across; ++j) {
          const int x0 = std::max(j * size - size / 2, 0);
          const int x1 = std::min(j * size - size / 2 + size, plan.width);
          float most = highest[x0], total = sum[x0];
          for (int x = x0 + 1; x < x1; ++x) {
            most = std::max(most, highest[x]);
            total += sum[x];
          }
          const float mean = total / static_cast<float>(size * size);
          *plan.pooled.at(0, c, i * plan.cells_across + j) =
              mean + mixer.pool_balance[c] * (most - mean);
        }
      }
    }
  });
}

// The sums of queries, keys and values of a tile.
float* rest_of(const StagePlan& plan, int tile) {
  return plan.rest + static_cast<size_t>(tile) * plan.x.planes * kTileLanes;
}

// LayerNorm and the three projections of every token, of the map and pooled: what does not depend
// on the window is done once.
void run_projections(const Run& run, const MsmhaParameters& mixer, const StagePlan& plan) {
  const int channels = plan.x.planes, tiles = tiles_of(plan.x);
  const TokenProjections& layer = mixer.projections;
  TokenProjections pooled_layer = layer;  // of tokens that are normalised already
  pooled_layer.in_scale = nullptr;
  run.region("qkv", tiles + tiles_of(plan.pooled), [&](int piece, float* scratch) {
    const bool pooled = piece >= tiles;
    const Map& from = pooled ? plan.pooled : plan.x;
    const Tokens tokens = tile_of(from, pooled ? piece - tiles : piece);
    uint32_t* bits = reinterpret_cast<uint32_t*>(scratch);
    float* own_sum = scratch + 3 * channels / 32 * kTileLanes;
    float* sum = pooled ? own_sum : rest_of(plan, piece);
    run.kernels.project_tokens(pooled ? pooled_layer : layer, from, tokens,
                               own_sum + channels * kTileLanes, bits, sum);
    for (const TokenBits& part : plan.attending) {
      store_bits(bits, kTileLanes, pooled ? part.pooled : part.map, tokens);
      bits += channels / 32 * kTileLanes;
    }
    if (pooled)
      run.kernels.store_tile(sum, kTileLanes, channels, plan.pooled_rest, tokens, false, false);
  });
}

void run_attention(const Run& run, const MsmhaParameters& mixer, const StagePlan& plan) {
  const int heads = static_cast<int>(mixer.heads.size()), cells = plan.cells();
  const int channels = plan.x.planes, size = channels / heads;
  // windows are grouped the same way on any number of threads, so sums are too
  run.region("attention", plan.groups * heads, [&](int piece, float* scratch) {
    const int group = piece / heads, head = piece % heads;
    const auto first_of = [&](int64_t g) { return static_cast<int>(g * cells / plan.groups); };
    float* sum = plan.pooled_context + static_cast<size_t>(group) * channels * plan.cell_stride;
    const ptrdiff_t head_values = static_cast<ptrdiff_t>(size) * plan.cell_stride;
    sum += head * head_values;
    std::fill_n(sum, head_values, 0.0f);
    HeadContext to = {nullptr,           channels * kLanes, mixer.context.data() + head * size,
                      &plan.pooled_rest, head * size,       sum,
                      plan.cell_stride};
    for (int w = first_of(group); w < first_of(group + 1); ++w) {
      to.sums = plan.window_sums +
                (static_cast<size_t>(w) * plan.sums.vectors * channels + head * size) * kLanes;
      run.kernels.attend(mixer.heads[head], plan.attending, head * size / 32,
                         window_of(plan, run.parameters.arch.window, w), to, scratch);
    }
  });
  constexpr int kTogether = 32;
  run.region("pooled mean", div_up(channels, kTogether), [&](int piece, float* total) {
    for (int c = piece * kTogether; c < std::min(channels, (piece + 1) * kTogether); ++c) {
      std::fill_n(total, cells, 0.0f);
      for (int g = 0; g < plan.groups; ++g) {
        const float* sum =
            plan.pooled_context + (static_cast<size_t>(g) * channels + c) * plan.cell_stride;
        for (int i = 0; i < cells; ++i) total[i] += sum[i];
      }
      // u + balance * (w - u) + shift is balance * w and this
      const float part = (1.0f - mixer.window_balance[c]) / static_cast<float>(cells);
      for (int i = 0; i < cells; ++i)
        plan.contexts[static_cast<size_t>(i) * channels + c] =
            part * total[i] + mixer.context_shift[c];
    }
  });
}

void run_output_projection(const Run& run, const MsmhaParameters& mixer, const StagePlan& plan) {
  const Kernels& k = run.kernels;
  const int channels = plan.x.planes;
  run.region("output", tiles_of(plan.x), [&](int piece, float* scratch) {
    const Tokens tokens = tile_of(plan.x, piece);
    const int vectors = tokens.vectors();
    float* mixed = scratch;
    float* out = mixed + channels * kTileLanes;
    uint32_t* bits = reinterpret_cast<uint32_t*>(out + channels * kTileLanes);
    k.mix_context(mixer.mixer, plan.sums, rest_of(plan, piece), plan.contexts, tokens, mixed, bits);
    k.project(bits, channels, mixer.output.weights.data(), mixer.output.outputs.data(), channels,
              mixed, channels, kTileLanes, vectors, out);
    k.store_tile(out, kTileLanes, channels, plan.x, tokens, true, true);
  });
}

}  // namespace

void run_blocks(const Run& run, int stage) {
  StagePlan& plan = run.plan.stages[stage];
  const auto& blocks = run.parameters.stages[stage];
  for (size_t b = 0; b < blocks.size(); ++b) {
    if (stage < 2) {
      run_msgdc(run, blocks[b].msgdc, plan);
    } else {
      const MsmhaParameters& mixer = blocks[b].msmha;
      run_pooling(run, mixer, plan);
      run_projections(run, mixer, plan);
      run_attention(run, mixer, plan);
      run_output_projection(run, mixer, plan);
    }
    Binarizer next = {nullptr, nullptr};
    if (stage < 2 && b + 1 < blocks.size())
      next = {blocks[b + 1].msgdc.in.scale.data(), blocks[b + 1].msgdc.in.bias.data()};
    const int pieces = tiles_of(plan.x);
    run.region("mlp", pieces, [&](int piece, float* scratch) {
      run.kernels.mlp(blocks[b].mlp.layer, plan.x, plan.y, next.scale ? &next : nullptr, &plan.bits,
                      tile_of(plan.x, piece), scratch);
    });
    std::swap(plan.x, plan.y);
  }
}

}  // namespace bhvit
