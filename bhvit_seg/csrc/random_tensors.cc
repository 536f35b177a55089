#include "random_tensors.h"

#include <iterator>

#include "error.h"

namespace bhvit {
namespace {

constexpr int64_t kPositions = 7;  // side of a position embedding
constexpr int32_t kPoolScales[] = {1, 2, 3, 6};

// splitmix64, from a state that depends on a tensor's name.
class Random {
 public:
  explicit Random(const std::string& name) {
    for (char c : name) state_ = (state_ ^ static_cast<uint8_t>(c)) * 0x100000001b3u;
  }
  uint32_t word() {
    uint64_t x = state_ += 0x9e3779b97f4a7c15u;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return static_cast<uint32_t>((x ^ x >> 31) >> 32);
  }
  float between_one_and_minus_one() {
    return static_cast<float>(static_cast<int32_t>(word())) * 0x1p-31f;
  }

 private:
  uint64_t state_ = 0xcbf29ce484222325u;
};

struct Range {
  const char* last;  // part of a tensor's name
  float middle, spread;
};
constexpr Range kRanges[] =
    {
        {"mean", 110, 10},      {"std", 50, 10},       {"norm_eps", 1e-5f, 0},
        {"alpha", 0.1f, 0.05f}, {"in_scale", 1, 0.3f}, {"norm_weight", 1, 0.3f},
        {"taps", 0.11f, 0.1f},  // of which the nine add up to about one
        {"slope", 0.2f, 0.2f},  {"weight", 0, 0.1f},   {"scale", 0, 0.05f},
};
constexpr Range kOthers = {"", 0, 0.5f};

const Range& range_of(const std::string& name) {
  const std::string last = name.substr(name.rfind('.') + 1);
  for (const Range& range : kRanges)
    if (last == range.last) return range;
  return kOthers;
}

size_t count(const Shape& shape) {
  uint64_t number = 1;
  for (int64_t size : shape) number *= static_cast<uint64_t>(size);
  return checked_count<float>(number);
}

}  // namespace

Shape RandomTensors::shape(const std::string& name) const {
  if (name == "architecture") return {static_cast<int64_t>(architecture_.size())};
  if (name == "head.pool_scales") return {static_cast<int64_t>(std::size(kPoolScales))};
  return {0, kPositions, kPositions};
}

Aligned<float> RandomTensors::floats(const std::string& name, const Shape& shape) const {
  Random random(name);
  const Range& range = range_of(name);
  Aligned<float> values(count(shape));
  for (float& value : values)
    value = range.middle + range.spread * random.between_one_and_minus_one();
  return values;
}

Aligned<uint32_t> RandomTensors::words(const std::string& name, const Shape& shape) const {
  Random random(name);
  Aligned<uint32_t> values(count(shape));
  for (uint32_t& value : values) value = random.word();
  return values;
}

std::vector<int32_t> RandomTensors::integers(const std::string& name, const Shape& shape) const {
  if (name == "head.pool_scales") return {std::begin(kPoolScales), std::end(kPoolScales)};
  if (static_cast<int64_t>(architecture_.size()) != shape[0]) {
    throw Error("an architecture has " + std::to_string(shape[0]) + " numbers, and this one " +
                std::to_string(architecture_.size()));
  }
  return architecture_;
}

void RandomTensors::unsupported(const std::string& what) const {
  throw Error("there is no such network (" + what + ")");
}

}  // namespace bhvit
