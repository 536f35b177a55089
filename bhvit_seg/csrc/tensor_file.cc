#include "tensor_file.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <memory>
#include <utility>

#include "error.h"

namespace bhvit {
namespace {

constexpr char kMagic[] = "BHVITSEG";
constexpr uint32_t kVersion = 1;
constexpr uint32_t kByteOrder = 0x01020304;
constexpr size_t kHeader = 40;
constexpr uint64_t kMaxBytes = uint64_t{1} << 31;
constexpr uint32_t kMaxTensors = 1 << 16;
constexpr uint64_t kTensorAlignment = 16;
constexpr char kExportAgain[] = "export it again with bhvit-seg export";

uint32_t crc32(const uint8_t* bytes, size_t number) {
  static const std::array<uint32_t, 256> table = [] {
    std::array<uint32_t, 256> t{};
    for (uint32_t i = 0; i < 256; ++i) {
      uint32_t c = i;
      for (int k = 0; k < 8; ++k) c = c & 1 ? 0xedb88320u ^ (c >> 1) : c >> 1;
      t[i] = c;
    }
    return t;
  }();
  uint32_t crc = ~0u;
  for (size_t i = 0; i < number; ++i) crc = table[(crc ^ bytes[i]) & 0xff] ^ (crc >> 8);
  return ~crc;
}

template <typename T>
T read_at(const uint8_t* p) {
  T value;
  std::memcpy(&value, p, sizeof(T));
  return value;
}

float widen(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half >> 15) << 31;
  const int exponent = half >> 10 & 31;
  const int mantissa = half & 1023;
  float value;
  if (exponent == 31) {
    value = mantissa ? NAN : INFINITY;
  } else if (exponent == 0) {
    value = std::ldexp(static_cast<float>(mantissa), -24);
  } else {
    value = std::ldexp(static_cast<float>(mantissa + 1024), exponent - 25);
  }
  return sign ? -value : value;
}

std::string describe(const Shape& shape) {
  std::string text;
  for (int64_t size : shape) text += (text.empty() ? "" : "x") + std::to_string(size);
  return text;
}

bool ends_with(const std::string& text, const std::string& end) {
  return text.size() >= end.size() && text.compare(text.size() - end.size(), end.size(), end) == 0;
}

// Whether a tensor may have 16 bits: what is multiplied in full precision, and what is added once.
bool may_be_narrow(const std::string& name) {
  if (name == "head.classifier.weight") return true;
  const bool down = name.size() > 5 && name.compare(0, 4, "down") == 0 && name[4] >= '0' &&
                    name[4] <= '9' && name.find('.') == 5;
  if (!down && name.compare(0, 5, "stem.") != 0) return false;
  return (ends_with(name, ".weight") || ends_with(name, ".position")) &&
         name.find('.') == name.rfind('.');
}

}  // namespace

std::vector<uint8_t> read_file(const std::string& path) {
  const std::unique_ptr<FILE, int (*)(FILE*)> file(std::fopen(path.c_str(), "rb"), std::fclose);
  if (!file) throw Error("cannot open " + path + ": " + std::strerror(errno));
  std::vector<uint8_t> bytes;
  std::array<uint8_t, 1 << 16> part;
  while (const size_t got = std::fread(part.data(), 1, part.size(), file.get())) {
    bytes.insert(bytes.end(), part.begin(), part.begin() + got);
    if (bytes.size() > kMaxBytes) throw Error(path + " is too large to be a packed model");
  }
  if (std::ferror(file.get())) throw Error("cannot read " + path + ": " + std::strerror(errno));
  return bytes;
}

void TensorFile::damaged(const std::string& what) const {
  throw Error(path_ + " is damaged (" + what + "): copy it again, or " + kExportAgain);
}

void TensorFile::unsupported(const std::string& what) const {
  throw Error(path_ + " cannot be run (" + what + "): " + kExportAgain);
}

TensorFile::TensorFile(const uint8_t* bytes, size_t size, const std::string& path)
    : bytes_(bytes), size_(size), path_(path) {
  if (size_ < 8 || std::memcmp(bytes_, kMagic, 8) != 0) {
    throw Error(path + " is not a packed model: give a file made by bhvit-seg export");
  }
  if (size_ < kHeader) damaged("it ends in its header");
  const uint32_t version = read_at<uint32_t>(bytes_ + 8);
  const uint32_t order = read_at<uint32_t>(bytes_ + 12);
  if (order == __builtin_bswap32(kByteOrder)) {
    throw Error(path +
                " has the other byte order than this processor: export it again on a "
                "little-endian machine");
  }
  if (version != kVersion) {
    throw Error(path + " has version " + std::to_string(version) +
                " of the format and this package reads version " + std::to_string(kVersion) + ": " +
                kExportAgain);
  }
  if (order != kByteOrder) damaged("its byte order mark is wrong");
  if (read_at<uint64_t>(bytes_ + 16) != size_) {
    damaged("it has " + std::to_string(size_) + " bytes instead of " +
            std::to_string(read_at<uint64_t>(bytes_ + 16)));
  }
  if (read_at<uint32_t>(bytes_ + 24) != crc32(bytes_ + 28, size_ - 28)) {
    damaged("its checksum does not fit");
  }
  const uint32_t number = read_at<uint32_t>(bytes_ + 28);
  const uint64_t meta = read_at<uint32_t>(bytes_ + 32), directory = read_at<uint32_t>(bytes_ + 36);
  if (kHeader + meta + directory > size_) damaged("its directory lies outside");
  if (number > kMaxTensors) damaged("it names too many tensors");
  meta_length_ = static_cast<size_t>(meta);
  read_directory(kHeader + meta_length_, static_cast<size_t>(directory), number);
  check_places(kHeader + meta_length_ + static_cast<size_t>(directory));
}

std::string TensorFile::meta() const {
  return {reinterpret_cast<const char*>(bytes_) + kHeader, meta_length_};
}

void TensorFile::read_directory(size_t offset, size_t length, uint32_t number) {
  const uint8_t* p = bytes_ + offset;
  const uint8_t* const end = p + length;
  const auto need = [&](size_t n) {
    if (static_cast<size_t>(end - p) < n) damaged("its directory ends early");
  };
  for (uint32_t i = 0; i < number; ++i) {
    need(2);
    const uint16_t name_length = read_at<uint16_t>(p);
    p += 2;
    need(name_length + size_t{2});
    const std::string name(reinterpret_cast<const char*>(p), name_length);
    p += name_length;
    for (char c : name)
      if (c <= ' ' || c > '~') damaged("a tensor's name is not ASCII");
    Tensor tensor;
    const uint8_t type = p[0], dimensions = p[1];
    p += 2;
    if (type > static_cast<uint8_t>(TensorType::kInt32) || dimensions < 1 || dimensions > 4)
      damaged("its directory is wrong");
    tensor.type = static_cast<TensorType>(type);
    need(4 * size_t{dimensions} + 8);
    tensor.number = 1;
    for (int d = 0; d < dimensions; ++d, p += 4) {
      const uint32_t size = read_at<uint32_t>(p);
      tensor.shape.push_back(size);
      tensor.number *= size;  // at most 2^32 times what was checked to be below 2^31
      if (tensor.number > kMaxBytes) damaged("a tensor is too large");
    }
    tensor.offset = read_at<uint64_t>(p);
    p += 8;
    if (tensor.offset > size_ || tensor.bytes() > size_ - tensor.offset) {
      damaged("a tensor lies outside");
    }
    if (tensor.offset % kTensorAlignment) damaged("a tensor lies at an odd place");
    if (tensor.type == TensorType::kFloat16 && !may_be_narrow(name)) {
      damaged("a tensor has 16 bits that needs 32");
    }
    if (!tensors_.emplace(name, tensor).second) damaged("two tensors have one name");
  }
  if (p != end) damaged("its directory is longer than its entries");
}

// Every tensor has bytes of its own, behind the directory: otherwise a small file could make many
// large tensors.
void TensorFile::check_places(size_t first) const {
  std::vector<std::pair<uint64_t, uint64_t>> places;
  for (const auto& [name, tensor] : tensors_)
    if (tensor.number) places.emplace_back(tensor.offset, tensor.offset + tensor.bytes());
  std::sort(places.begin(), places.end());
  uint64_t free = first;
  for (const auto& [begin, end] : places) {
    if (begin < free) damaged("two of its tensors overlap");
    free = end;
  }
}

const Tensor& TensorFile::find(const std::string& name) const {
  const auto at = tensors_.find(name);
  if (at == tensors_.end()) damaged("it lacks " + name);
  return at->second;
}

const Tensor& TensorFile::find(const std::string& name, const Shape& shape) const {
  const Tensor& tensor = find(name);
  if (tensor.shape != shape) {
    damaged(name + " is " + describe(tensor.shape) + " and should be " + describe(shape));
  }
  return tensor;
}

const Shape& TensorFile::shape(const std::string& name) const { return find(name).shape; }

Aligned<float> TensorFile::floats(const std::string& name, const Shape& shape) const {
  const Tensor& tensor = find(name, shape);
  Aligned<float> values(tensor.number);
  const uint8_t* from = bytes_ + tensor.offset;
  if (tensor.type == TensorType::kFloat32) {
    if (tensor.number) std::memcpy(values.data(), from, tensor.number * 4);
  } else if (tensor.type == TensorType::kFloat16) {
    for (size_t i = 0; i < tensor.number; ++i) values[i] = widen(read_at<uint16_t>(from + 2 * i));
  } else {
    damaged(name + " has the wrong type");
  }
  for (float value : values)
    if (!std::isfinite(value)) unsupported(name + " has a value that is not finite");
  return values;
}

Aligned<uint32_t> TensorFile::words(const std::string& name, const Shape& shape) const {
  const Tensor& tensor = find(name, shape);
  if (tensor.type != TensorType::kUint32) damaged(name + " has the wrong type");
  Aligned<uint32_t> values(tensor.number);
  if (tensor.number) std::memcpy(values.data(), bytes_ + tensor.offset, tensor.number * 4);
  return values;
}

std::vector<int32_t> TensorFile::integers(const std::string& name, const Shape& shape) const {
  const Tensor& tensor = find(name, shape);
  if (tensor.type != TensorType::kInt32) damaged(name + " has the wrong type");
  std::vector<int32_t> values(tensor.number);
  if (tensor.number) std::memcpy(values.data(), bytes_ + tensor.offset, tensor.number * 4);
  return values;
}

}  // namespace bhvit
