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
  const int columns = div_up(plan.width, kLanes);
  run.region("msgdc", plan.height, [&](int y, float* scratch) {
    TapRows taps[3];
    for (int d = 0; d < 3; ++d) taps[d] = taps_of(plan.bits, y, kDilations[d]);
    for (int tile = 0; tile < columns; ++tile) {
      const int x = tile * kLanes;
      run.kernels.multi_scale(mixer.layer, taps, plan.x, y, x, std::min(kLanes, plan.width - x),
                              reinterpret_cast<uint32_t*>(scratch));
    }
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

// LayerNorm and the three projections of every token, of the map and pooled: what does not depend
// on the window is done once.
void run_projections(const Run& run, const MsmhaParameters& mixer, const StagePlan& plan) {
  const Kernels& k = run.kernels;
  const int channels = plan.x.planes, tiles = tiles_of(plan.x);
  run.region("qkv", tiles + tiles_of(plan.pooled), [&](int piece, float* scratch) {
    const bool pooled = piece >= tiles;
    const Map& from = pooled ? plan.pooled : plan.x;
    const Tokens tokens = tile_of(from, pooled ? piece - tiles : piece);
    const int vectors = tokens.vectors(), words = channels / 32 * kTileLanes;
    float* tile = scratch;
    float* sum = tile + channels * kTileLanes + kLanes;
    uint32_t* bits = reinterpret_cast<uint32_t*>(sum + channels * kTileLanes);
    uint32_t* out = bits + words;
    k.load_tile(from, channels, tokens, pooled ? nullptr : mixer.in.scale.data(),
                mixer.in.bias.data(), tile, kTileLanes);
    k.normalize_tile(tile, kTileLanes, channels, vectors, mixer.norm.scale.data(),
                     mixer.norm.bias.data(), mixer.epsilon);
    const MsmhaParameters::Projection* projections[3] = {&mixer.query, &mixer.key, &mixer.value};
    const BitMap* maps[3] = {pooled ? &plan.pooled_query : &plan.query,
                             pooled ? &plan.pooled_key : &plan.key,
                             pooled ? &plan.pooled_value : &plan.value};
    for (int p = 0; p < 3; ++p) {
      k.pack_tile(tile, kTileLanes, channels, vectors, nullptr, projections[p]->input_bias.data(),
                  bits);
      k.project_bits(bits, channels, projections[p]->weights.data(), projections[p]->outputs.data(),
                     tile, kTileLanes, vectors, p == 0, sum, out);
      store_bits(out, kTileLanes, *maps[p], tokens);
    }
    k.store_tile(sum, kTileLanes, channels, pooled ? plan.pooled_rest : plan.rest, tokens, false,
                 false);
  });
}

// Bit j of out[i] is bit i of in[j].
void transpose_bits(const uint32_t* in, uint32_t* out) {
  std::copy_n(in, 32, out);
  uint32_t mask = 0x0000ffff;
  for (int step = 16; step; step >>= 1, mask ^= mask << step)
    for (int i = 0; i < 32; i = (i + step + 1) & ~step) {
      const uint32_t swap = (out[i] >> step ^ out[i + step]) & mask;
      out[i] ^= swap << step;
      out[i + step] ^= swap;
    }
}

// values[c][word] with a bit for each token, from [words of channels][stride of tokens].
void transpose_values(const uint32_t* rows, int stride, int words, int tokens, uint32_t* values) {
  const int token_words = div_up(tokens, 32);
  for (int w = 0; w < words; ++w)
    for (int block = 0; block < token_words; ++block) {
      uint32_t in[32] = {}, out[32];
      std::copy_n(rows + w * stride + 32 * block, std::min(32, tokens - 32 * block), in);
      transpose_bits(in, out);
      for (int c = 0; c < 32; ++c) values[(32 * w + c) * token_words + block] = out[c];
    }
}

// The same memory: windows of floats and of bits are loaded alike.
BitMap as_words(const Map& map) {
  return {
      reinterpret_cast<uint32_t*>(map.data), map.row, map.plane, map.height, map.width, map.planes};
}

// One head in one window.
void attend_window(const Run& run, const MsmhaParameters& mixer, const StagePlan& plan,
                   const Window& window, int head_index, float* pooled_sum, float* scratch) {
  const Kernels& k = run.kernels;
  const Attention& head = mixer.heads[head_index];
  const int inside = window.rows * window.columns, cells = plan.cells(), tokens = inside + cells;
  const int stride = round_up(tokens, kLanes), size = head.head_channels, words = head.head_words;
  const int first = head_index * size;
  uint32_t* queries = reinterpret_cast<uint32_t*>(scratch);
  uint32_t* keys = queries + words * stride;
  uint32_t* rows = keys + words * stride;
  uint32_t* values = rows + words * stride;
  int32_t* sums = reinterpret_cast<int32_t*>(values + round_up(size * div_up(tokens, 32), kLanes));
  float* context = reinterpret_cast<float*>(sums + size * stride);
  float* terms = context + size * stride;
  const int word = first / 32;
  k.load_window(plan.query, plan.pooled_query, word, words, window, queries, stride);
  k.load_window(plan.key, plan.pooled_key, word, words, window, keys, stride);
  k.load_window(plan.value, plan.pooled_value, word, words, window, rows, stride);
  k.load_window(as_words(plan.rest), as_words(plan.pooled_rest), first, size, window,
                reinterpret_cast<uint32_t*>(context), stride);
  transpose_values(rows, stride, words, tokens, values);
  for (int lane = 0; lane < tokens; lane += kLanes)
    k.attend(head, queries + lane, keys, values, tokens, stride, terms, sums + lane);
  k.finish_context(sums, mixer.context.data() + first, size, stride, stride / kLanes, context);
  k.store_window(context, stride, plan.context, first, size, window,
                 pooled_sum + first * plan.cell_stride, plan.cell_stride, cells);
}

void run_attention(const Run& run, const MsmhaParameters& mixer, const StagePlan& plan) {
  const int heads = static_cast<int>(mixer.heads.size()), cells = plan.cells();
  const int channels = plan.x.planes, size = channels / heads;
  // windows are grouped the same way on any number of threads, so sums are too
  run.region("attention", plan.groups * heads, [&](int piece, float* scratch) {
    const int group = piece / heads, head = piece % heads;
    const auto first_of = [&](int64_t g) { return static_cast<int>(g * cells / plan.groups); };
    float* sum = plan.pooled_context + static_cast<size_t>(group) * channels * plan.cell_stride;
    std::fill_n(sum + head * size * plan.cell_stride, size * plan.cell_stride, 0.0f);
    for (int w = first_of(group); w < first_of(group + 1); ++w)
      attend_window(run, mixer, plan, window_of(plan, run.parameters.arch.window, w), head, sum,
                    scratch);
  });
  constexpr int kTogether = 32;
  run.region("pooled mean", div_up(channels, kTogether), [&](int piece, float*) {
    for (int c = piece * kTogether; c < std::min(channels, (piece + 1) * kTogether); ++c)
      for (int i = 0; i < cells; ++i) {
        float total = 0.0f;
        for (int g = 0; g < plan.groups; ++g)
          total +=
              plan.pooled_context[(static_cast<size_t>(g) * channels + c) * plan.cell_stride + i];
        plan.pooled_mean[c * plan.cell_stride + i] = total / static_cast<float>(cells);
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
    float* spread = mixed + channels * kTileLanes + kLanes;
    float* out = spread + channels * kTileLanes + kLanes;
    uint32_t* bits = reinterpret_cast<uint32_t*>(out + channels * kTileLanes);
    k.load_tile(plan.context, channels, tokens, nullptr, nullptr, mixed, kTileLanes);
    k.spread_tile(plan.pooled_mean, plan.cell_stride, plan.cells_across, run.parameters.arch.window,
                  channels, plan.width, tokens, spread, kTileLanes);
    k.mix_tile(mixed, spread, kTileLanes, channels, vectors, mixer.window_balance.data(),
               mixer.context_shift.data());
    k.pack_tile(mixed, kTileLanes, channels, vectors, nullptr, mixer.output.input_bias.data(),
                bits);
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
