// Attention in windows and what it takes; part of vector_kernels.h.
#pragma once

#include "kernels.h"
#include "vector_basics.h"
#include "vector_products.h"
#include "vector_tiles.h"

namespace bhvit {
namespace BHVIT_ISA {
namespace {

// Tokens of a map into tile [channels][T * kLanes] as LayerNorm's results, and the bits of them
// that each part of `layer` multiplies, bits[part][channels / 32][T * kLanes].
template <int T>
BHVIT_INLINE void normalize_tokens(const TokenProjections& layer, const Map& map, Tokens tokens,
                                   float* tile, uint32_t* bits) {
  constexpr int L = T * kLanes;
  const int channels = layer.channels;
  Joined<float> vectors[T];
  for_parts(tokens, [&](int lane, Tokens part)
                        BHVIT_HERE { vectors[lane / kLanes] = join_tokens(map, part); });

  const F count = broadcast(static_cast<float>(channels));
  F sums[4][T], mean[T], factor[T];
  const auto for_sums = [&](const auto& body) BHVIT_HERE {
    repeat<4 * T>([&](int i) BHVIT_HERE { body(i / T, i % T); });
  };
  const auto mean_of_sums = [&](int t) BHVIT_HERE {
    return divide(add(add(sums[0][t], sums[1][t]), add(sums[2][t], sums[3][t])), count);
  };
  for_sums([&](int i, int t) BHVIT_HERE { sums[i][t] = broadcast(0.0f); });
  for (int c = 0; c < channels; c += 4)
    for_sums([&](int i, int t) BHVIT_HERE {
      F x = vectors[t].read((c + i) * map.plane);
      if (layer.in_scale)
        x = fma(x, broadcast(layer.in_scale[c + i]), broadcast(layer.in_bias[c + i]));
      store(tile + (c + i) * L + t * kLanes, x);
      sums[i][t] = add(sums[i][t], x);
    });
  repeat<T>([&](int t) BHVIT_HERE { mean[t] = mean_of_sums(t); });
  for_sums([&](int i, int t) BHVIT_HERE { sums[i][t] = broadcast(0.0f); });
  for (int c = 0; c < channels; c += 4)
    for_sums([&](int i, int t) BHVIT_HERE {
      const F centred = subtract(load(tile + (c + i) * L + t * kLanes), mean[t]);
      sums[i][t] = fma(centred, centred, sums[i][t]);
    });
  repeat<T>([&](int t) BHVIT_HERE {
    factor[t] = divide(broadcast(1.0f), sqrt(add(mean_of_sums(t), broadcast(layer.epsilon))));
  });
  Packer<T> packed[3];
  for (int first = 0; first < channels; first += kOutputs) {
    repeat<kOutputs>([&](int o) BHVIT_HERE {
      const int c = first + o;
      const F weight = broadcast(layer.norm_weight[c]), bias = broadcast(layer.norm_bias[c]);
      F h[T];
      repeat<T>([&](int t) BHVIT_HERE {
        float* at = tile + c * L + t * kLanes;
        h[t] = fma(multiply(subtract(load(at), mean[t]), factor[t]), weight, bias);
        store(at, h[t]);
      });
      repeat<3>([&](int p) BHVIT_HERE {
        const F threshold = broadcast(layer.parts[p].input_threshold[c]);
        M above[T];
        repeat<T>([&](int t) BHVIT_HERE { above[t] = greater_equal(h[t], threshold); });
        packed[p].set(first, o, above);
      });
    });
    repeat<3>([&](int p) BHVIT_HERE {
      packed[p].flush(first, bits + p * channels / 32 * L * Packer<T>::kWords, L);
    });
  }
}

template <int T>
void project_token_vectors(const TokenProjections& layer, const Map& map, Tokens tokens,
                           float* scratch, uint32_t* out, float* sum) {
  constexpr int L = T * kLanes;
  const int channels = layer.channels, words = channels / 32;
  float* tile = scratch;
  uint32_t* bits = reinterpret_cast<uint32_t*>(tile + channels * L);
  normalize_tokens<T>(layer, map, tokens, tile, bits);
  const auto bits_of = [&](int p) BHVIT_HERE { return bits + p * words * L * Packer<T>::kWords; };
  Words<T> packed[3];
  const auto finish = [&](int p, int first, auto& acc) BHVIT_HERE {
    const BitChannel* channel = layer.parts[p].outputs + first;
    const float* h = tile + first * L;
    float* __restrict to = sum + first * kTileLanes;
    repeat<kOutputs>([&](int o) BHVIT_HERE {
      const F scale = broadcast(channel[o].scale), bias = broadcast(channel[o].bias);
      const F slope = broadcast(channel[o].slope), threshold = broadcast(channel[o].threshold);
      M above[T];
      repeat<T>([&](int t) BHVIT_HERE {
        const F x = add(fma(to_float(acc(o, t)), scale, bias), load(h + o * L + t * kLanes));
        const F y = prelu(x, slope);
        float* at = to + o * kTileLanes + t * kLanes;
        store(at, p ? add(load(at), y) : y);
        above[t] = greater_equal(y, threshold);
      });
      packed[p].set(first, o, above);
    });
    packed[p].flush(first, out + p * words * kTileLanes, kTileLanes);
  };
  if constexpr (T == kTableTokens) {
    repeat<3>([&](int p) BHVIT_HERE {
      for_packed_outputs<T>(bits_of(p), channels, layer.parts[p].weights, channels,
                            [&](int first, auto& acc) BHVIT_HERE { finish(p, first, acc); });
    });
  } else {
    for (int first = 0; first < channels; first += kOutputs)
      repeat<3>([&](int p) BHVIT_HERE {
        Sums<T> acc;
        count_outputs(bits_of(p), L, channels, layer.parts[p].weights, first, acc);
        finish(p, first, acc);
      });
  }
}

void project_tokens(const TokenProjections& layer, const Map& map, Tokens tokens, float* scratch,
                    uint32_t* bits, float* sum) {
  for_vectors<kProductTokens>(tokens.vectors(), [&](int v, auto size) {
    constexpr int T = decltype(size)::kSize;
    const int lane = v * kLanes, left = tokens.count - lane;
    const Tokens part = {tokens.token + lane, left < T * kLanes ? left : T * kLanes};
    project_token_vectors<T>(layer, map, part, scratch, bits + lane, sum + lane);
  });
}

// Words of the set that attends in a window, out[plane][stride]: pooled tokens, then the window's
// row by row. Writes up to a vector beyond the last plane.
BHVIT_INLINE void load_set(const TokenBits& bits, int first, int planes, const Window& window,
                           uint32_t* out, int stride) {
  // what a run writes beyond its end belongs to the next run or plane
  const BitMap &map = bits.map, &pooled = bits.pooled;
  for (int p = 0; p < planes; ++p) {
    const uint32_t* cells = pooled.at(0, first + p, 0);
    const uint32_t* from = map.at(window.y, first + p, window.x);
    uint32_t* to = out + p * stride;
    for (int i = 0; i < pooled.width; i += kLanes) store(to + i, load(cells + i));
    to += pooled.width;
    for (int y = 0; y < window.rows; ++y, to += window.columns, from += map.row)
      for (int i = 0; i < window.columns; i += kLanes) store(to + i, load(from + i));
  }
}

// out[channel] has a bit for each token, from words of 32 channels [words][stride].
BHVIT_INLINE void transpose_bits(const uint32_t* in, int words, int stride, int tokens,
                                 uint32_t* out) {
  const int halves = 2 * div_up(tokens, 32);
  for (int w = 0; w < words; ++w)
    for (int v = 0; v < div_up(tokens, kLanes); ++v) {
      const U x = load(in + w * stride + v * kLanes);
      uint16_t* to = reinterpret_cast<uint16_t*>(out) + 32 * w * halves + v;
#pragma GCC unroll 32
      for (int bit = 0; bit < 32; ++bit) to[bit * halves] = column_bits(x, bit);
    }
}

struct Keys {
  int number, stride;
  const uint32_t *words, *values;  // [head_words][stride], [head_channels][div_up(number, 32)]
};

// Softmax terms of one vector of queries, one vector for each key, and their sum.
template <int Words, bool Long>
BHVIT_INLINE F softmax_terms(const Attention& head, const uint32_t* queries, const Keys& keys,
                             float* terms) {
  const int words = Words ? Words : head.head_words;
  const F fine = load(head.powers[0]), middle = load(head.powers[1]), coarse = load(head.powers[2]);
  F sums[2] = {broadcast(0.0f), broadcast(0.0f)};
  const ptrdiff_t stride = keys.stride;
  const uint32_t* key = keys.words;
  const auto add_term = [&](F& sum) BHVIT_HERE {
    Counter differences;
    for (int w = 0; w < words; ++w)
      differences.add_bits(xor_(load(queries + w * stride), broadcast(key[w * stride])));
    const U p = differences.read();
    const U sixteens = shift_right(p, 4);  // at most 32 * Words / 16
    const F factor = Words && Words < 4 ? lookup_8(middle, sixteens) : lookup(middle, sixteens);
    F term = multiply(lookup(fine, p), factor);
    if (Long) term = multiply(term, lookup(coarse, shift_right(p, 8)));
    sum = add(sum, term);
    store(terms, term);
    terms += kLanes;
    ++key;
  };
  for (int j = 1; j < keys.number; j += 2) {
    add_term(sums[0]);
    add_term(sums[1]);
  }
  if (keys.number % 2) add_term(sums[0]);
  return add(sums[0], sums[1]);
}

// 0 to 3.
BHVIT_INLINE U level_of(F term, F factor, F zero_point) {
  const F x = fma(term, factor, zero_point);
  return round_to_words(min(max(x, broadcast(0.0f)), broadcast(3.0f)));
}

// Levels of keys: bit j of a word of `low` and `high` counts once and twice.
BHVIT_INLINE void quantize(const float* terms, int number, F factor, F zero_point, uint32_t* low,
                           uint32_t* high) {
  const auto level = [&](int j) { return level_of(load(terms + j * kLanes), factor, zero_point); };
  const U even_bits = broadcast(0x55555555u), odd_bits = broadcast(0xaaaaaaaau);
  for (int from = 0; from < number; from += 32, low += kLanes, high += kLanes) {
    const int count = number - from < 32 ? number - from : 32;
    // two bits a key, those of even and odd keys apart
    U even = broadcast(0u), odd = broadcast(0u);
    int j = count - 1;
    if (count % 2) even = level(from + j--);
    for (; j > 0; j -= 2) {
      even = or_(shift_left_2(even), level(from + j - 1));
      odd = or_(shift_left_2(odd), level(from + j));
    }
    store(low, or_(and_(even, even_bits), shift_left(and_(odd, even_bits), 1)));
    store(high, or_(shift_right(and_(even, odd_bits), 1), and_(odd, odd_bits)));
  }
}

// out[c * kLanes] = sums over keys of level * value for one vector of queries.
template <int N>
BHVIT_INLINE void sum_values(const uint32_t* low, const uint32_t* high, const uint32_t* values,
                             int words, int channels, int32_t* out) {
  constexpr int kMaxWords =
      Counter::kMaxWords / 3;  // words whose levels may be counted before reading
  if (N) words = N;
  const auto weigh = [&](auto&& word) {
    U sum = broadcast(0u);
    for (int from = 0; from < words; from += kMaxWords) {
      const int to = words - from < kMaxWords ? words : from + kMaxWords;
      Counter count;
      for (int w = from; w < to; ++w) count.add_bits(word(high, w));
      count.twice();
      for (int w = from; w < to; ++w) count.add_bits(word(low, w));
      sum = add(sum, count.read());
    }
    return sum;
  };
  const U levels = weigh([](const uint32_t* plane, int w) { return load(plane + w * kLanes); });
  for (int c = 0; c < channels; ++c, values += words) {
    const U positive = weigh([&](const uint32_t* plane, int w) {
      return and_(load(plane + w * kLanes), broadcast(values[w]));
    });
    store(out + c * kLanes, subtract(add(positive, positive), levels));
  }
}

// quantize and sum_values by table.
template <typename Tables>
BHVIT_INLINE void look_up_values(const float* terms, F factor, F zero_point, const Keys& keys,
                                 int channels, int32_t* out) {
  constexpr int kSome = Tables::kMost / 32 * 32;  // whole words
  constexpr uint32_t kAll[3] = {~0u, ~0u, ~0u};
  static_assert(Tables::kMost <= 96, "more words of bits are needed");
  const int words = div_up(keys.number, 32);
  Tables tables;
  for (int from = 0; from < keys.number;) {
    const int left = keys.number - from, some = left <= Tables::kMost ? left : kSome;
    tables.tabulate(some, [&](int j) BHVIT_HERE {
      return level_of(load(terms + (from + j) * kLanes), factor, zero_point);
    });
    const U levels = tables.sum(kAll);
    const uint32_t* values = keys.values + from / 32;
    for (int c = 0; c < channels; ++c, values += words) {
      const U positive = tables.sum(values);
      const U more = subtract(add(positive, positive), levels);
      int32_t* at = out + c * kLanes;
      store(at, from ? add(load(at), more) : more);
    }
    from += some;
  }
}

template <typename Tables = LevelTables>
BHVIT_INLINE void attend_vector(const Attention& head, const uint32_t* queries, const Keys& keys,
                                float* terms, int32_t* out) {
  const F sum = head.head_words == 2   ? softmax_terms<2, false>(head, queries, keys, terms)
                : head.head_words == 1 ? softmax_terms<1, false>(head, queries, keys, terms)
                : head.head_words < 8  ? softmax_terms<0, false>(head, queries, keys, terms)
                                       : softmax_terms<0, true>(head, queries, keys, terms);
  const F factor = divide(broadcast(head.level_scale), sum);
  const F zero_point = broadcast(head.zero_point);
  if constexpr (kTableTokens > 0) {
    look_up_values<Tables>(terms, factor, zero_point, keys, head.head_channels, out);
  } else {
    const int words = div_up(keys.number, 32);
    uint32_t* low = reinterpret_cast<uint32_t*>(terms + 32 * words * kLanes);
    uint32_t* high = low + words * kLanes;
    quantize(terms, keys.number, factor, zero_point, low, high);
    const auto run = words == 1   ? sum_values<1>
                     : words == 2 ? sum_values<2>
                     : words == 3 ? sum_values<3>
                                  : sum_values<0>;
    run(low, high, keys.values, words, head.head_channels, out);
  }
}

// Adds the contexts of one vector of pooled tokens, the first of which is `cell`.
BHVIT_INLINE void add_pooled(const HeadContext& to, int channels, int cell, const int32_t* sums) {
  const float* rest = to.pooled_rest->at(0, to.first_channel, cell);
  float* at = to.pooled + cell;
  for (int c = 0; c < channels; ++c, sums += kLanes, rest += to.pooled_rest->plane) {
    store(at, add(load(at), activate(to.channels[c], load(sums), load(rest))));
    at += to.pooled_stride;
  }
}

void attend(const Attention& head, const TokenBits (&bits)[3], int first_word, const Window& window,
            const HeadContext& to, float* scratch) {
  const int cells = bits[0].pooled.width, tokens = cells + window.rows * window.columns;
  const int stride = round_up(tokens, kLanes), words = head.head_words;
  uint32_t* sets[3];
  uint32_t* next = reinterpret_cast<uint32_t*>(scratch);
  for (int i = 0; i < 3; ++i, next += words * stride) sets[i] = next;
  for (int i = 0; i < 3; ++i) load_set(bits[i], first_word, words, window, sets[i], stride);
  uint32_t* values = next + kLanes;
  transpose_bits(sets[2], words, stride, tokens, values);
  const Keys keys = {tokens, stride, sets[1], values};
  int32_t* pooled_sums =
      reinterpret_cast<int32_t*>(values + head.head_channels * div_up(tokens, 32));
  float* terms = reinterpret_cast<float*>(pooled_sums + head.head_channels * kLanes);
  for (int lane = 0; lane < tokens; lane += kLanes) {
    const bool of_window = lane + kLanes > cells;
    int32_t* sums =
        of_window ? to.sums + (lane / kLanes - cells / kLanes) * to.vector : pooled_sums;
    attend_vector<>(head, sets[0] + lane, keys, terms, sums);
    if (lane < cells) add_pooled(to, head.head_channels, lane, sums);
  }
}

// Where a vector of tokens finds the sums of the windows it lies in, and the contexts of their
// cells.
class WindowRuns {
 public:
  WindowRuns(const WindowSums& windows, const float* contexts, int channels, Tokens tokens) {
    const int size = windows.size;
    for (int lane = 0; lane < tokens.count;) {
      const int y = (tokens.token + lane) / windows.width;
      const int x = (tokens.token + lane) % windows.width, left = x / size * size;
      const int columns = windows.width - left < size ? windows.width - left : size;
      const int cell = y / size * windows.across + x / size;
      where_[number_] = not_(below(lane));
      contexts_[number_++] = contexts + static_cast<ptrdiff_t>(cell) * channels;
      int token = windows.first + y % size * columns + x - left;
      for (int end = lane + left + columns - x; lane < end && lane < kLanes;) {
        const ptrdiff_t vector = static_cast<ptrdiff_t>(cell) * windows.vectors + token / kLanes;
        sums_.add(windows.data + vector * channels * kLanes + token % kLanes, lane);
        const int run = kLanes - token % kLanes < end - lane ? kLanes - token % kLanes : end - lane;
        lane += run;
        token += run;
      }
    }
  }
  BHVIT_INLINE U sum(int channel) const { return sums_.read(channel * kLanes); }
  BHVIT_INLINE F share(int channel) const {
    F x = broadcast(contexts_[0][channel]);
    for (int i = 1; i < number_; ++i) x = select(where_[i], broadcast(contexts_[i][channel]), x);
    return x;
  }

 private:
  Joined<int32_t> sums_;
  int number_ = 0;
  const float* contexts_[kLanes];
  M where_[kLanes];
};

template <int T>
BHVIT_INLINE void mix_vectors(const ContextMixer& mixer, const float* rest,
                              const WindowRuns (&runs)[T], float* mixed, uint32_t* bits) {
  for (int word = 0; word < mixer.channels / 32; ++word, bits += kTileLanes) {
    U packed[T];
    for (auto& x : packed) x = broadcast(0u);
    for (int i = 0; i < 32; ++i) {
      const int c = 32 * word + i;
      repeat<T>([&](int t) BHVIT_HERE {
        const int at = c * kTileLanes + t * kLanes;
        const F w = activate(mixer.context[c], runs[t].sum(c), load(rest + at));
        const F m = fma(broadcast(mixer.balance[c]), w, runs[t].share(c));
        store(mixed + at, m);
        packed[t] = or_where(greater_equal(m, broadcast(mixer.threshold[c])), packed[t],
                             broadcast(kBits[i]));
      });
    }
    for (int t = 0; t < T; ++t) store(bits + t * kLanes, packed[t]);
  }
}

void mix_context(const ContextMixer& mixer, const WindowSums& sums, const float* rest,
                 const float* contexts, Tokens tokens, float* mixed, uint32_t* bits) {
  const auto runs_of = [&](int lane) {
    const int left = tokens.count - lane;
    return WindowRuns(sums, contexts, mixer.channels,
                      {tokens.token + lane, left < kLanes ? left : kLanes});
  };
  if (tokens.vectors() == 2) {
    const WindowRuns runs[2] = {runs_of(0), runs_of(kLanes)};
    mix_vectors(mixer, rest, runs, mixed, bits);
  } else {
    const WindowRuns runs[1] = {runs_of(0)};
    mix_vectors(mixer, rest, runs, mixed, bits);
  }
}

}  // namespace
}  // namespace BHVIT_ISA
}  // namespace bhvit
