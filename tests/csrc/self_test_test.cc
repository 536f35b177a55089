// The self-test passes with the kernels of this processor, and with none of them broken on purpose.
//
//   self_test_test
#include "self_test.h"

#include <cstdio>
#include <cstring>
#include <vector>

#include "dispatch.h"

namespace {

using namespace bhvit;

struct Case {
  const char* name;
  Kernels kernels;
};

// Kernels with one of them doing nothing.
template <typename... A>
void do_nothing(A...) {}
template <typename... A>
Kernels without(Kernels kernels, void (*Kernels::*kernel)(A...)) {
  kernels.*kernel = do_nothing<A...>;
  return kernels;
}

// Kernels with one of them wrong in a single value, as little as can be.
Kernels sound;

float next(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  bits ^= 1;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

std::vector<Case> slightly_broken() {
  std::vector<Case> cases(5, {"", sound});
  cases[0].name = "mlp, the last channel of a tile's last token";
  cases[0].kernels.mlp = [](const Mlp& mlp, const Map& in, const Map& out, const Binarizer* next_in,
                            const BitMap* bits, Tokens tokens, float* scratch) {
    sound.mlp(mlp, in, out, next_in, bits, tokens, scratch);
    const int last = tokens.token + tokens.count - 1;
    float* const value = out.at(last / out.width, out.planes - 1, last % out.width);
    *value = next(*value);
  };
  cases[1].name = "project, the first lane of the last output";
  cases[1].kernels.project = [](const uint32_t* bits, int inputs, const uint32_t* weights,
                                const OutputChannel* outputs, int number, const float* shortcut,
                                int channels, int stride, int vectors, float* out) {
    sound.project(bits, inputs, weights, outputs, number, shortcut, channels, stride, vectors, out);
    out[(number - 1) * stride] = next(out[(number - 1) * stride]);
  };
  cases[2].name = "convolve, the first lane of the first output";
  cases[2].kernels.convolve = [](const Convolution& layer, const OutputChannel* outputs,
                                 const TapRows& taps, int x, const float* shortcut, int channels,
                                 uint32_t* scratch, float* out) {
    sound.convolve(layer, outputs, taps, x, shortcut, channels, scratch, out);
    out[0] = next(out[0]);
  };
  cases[3].name = "project_tokens, one bit";
  cases[3].kernels.project_tokens = [](const TokenProjections& layer, const Map& map, Tokens tokens,
                                       float* scratch, uint32_t* bits, float* sum) {
    sound.project_tokens(layer, map, tokens, scratch, bits, sum);
    bits[0] ^= 1;
  };
  cases[4].name = "label_rows, one label";
  cases[4].kernels.label_rows = [](const Map& logits, int classes, const Upsampling& to, int begin,
                                   int end, int width, uint8_t* labels, ptrdiff_t stride) {
    sound.label_rows(logits, classes, to, begin, end, width, labels, stride);
    labels[width - 1] ^= 1;
  };
  return cases;
}

std::vector<Case> broken() {
  std::vector<Case> cases = slightly_broken();
#define WITHOUT(kernel) cases.push_back({#kernel, without(sound, &Kernels::kernel)})
  WITHOUT(load_tile);
  WITHOUT(store_tile);
  WITHOUT(pack_tile);
  WITHOUT(pack_and_average);
  WITHOUT(normalize_bytes);
  WITHOUT(embed_tile);
  WITHOUT(multiply);
  WITHOUT(load_patches);
  WITHOUT(mlp);
  WITHOUT(multi_scale);
  WITHOUT(convolve);
  WITHOUT(project);
  WITHOUT(project_tokens);
  WITHOUT(attend);
  WITHOUT(mix_context);
  WITHOUT(pool_rows);
  WITHOUT(upsample_tile);
  WITHOUT(upsample_and_pack);
  WITHOUT(label_rows);
#undef WITHOUT
  // the name and what only measures
  static_assert(sizeof(Kernels) == (19 + 3) * sizeof(void*), "every kernel is broken once");
  return cases;
}

}  // namespace

int main() {
  int failures = 0;
  for (const std::string& name : instruction_sets()) {
    const std::string difference = self_test(choose_kernels(name));
    if (difference.empty()) continue;
    std::fprintf(stderr, "FAILED %s: %s\n", name.c_str(), difference.c_str());
    ++failures;
  }
  sound = choose_kernels("");
  const std::vector<Case> cases = broken();
  for (const Case& each : cases) {
    if (!self_test(each.kernels).empty()) continue;
    std::fprintf(stderr, "FAILED %s: broken and not noticed\n", each.name);
    ++failures;
  }
  std::printf("%d broken kernels, %d failures\n", static_cast<int>(cases.size()), failures);
  return failures ? 1 : 0;
}
