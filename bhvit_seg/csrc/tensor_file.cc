#include "tensor_file.h"

#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cfloat>
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

template <typename T>
T read_at(const uint8_t* p) {
  T value;
  std::memcpy(&value, p, sizeof(T));
  return value;
}

// The checksum of zlib, eight bytes at a time: table k advances a byte past k others.
uint32_t crc32(const uint8_t* bytes, size_t number) {
  using Table = std::array<uint32_t, 256>;
  static const std::array<Table, 8> tables = [] {
    std::array<Table, 8> t{};
    for (uint32_t i = 0; i < 256; ++i) {
      t[0][i] = i;
      for (int k = 0; k < 8; ++k)
        t[0][i] = t[0][i] & 1 ? 0xedb88320u ^ (t[0][i] >> 1) : t[0][i] >> 1;
    }
    for (size_t k = 1; k < 8; ++k)
      for (size_t i = 0; i < 256; ++i) t[k][i] = t[0][t[k - 1][i] & 0xff] ^ (t[k - 1][i] >> 8);
    return t;
  }();
  uint32_t crc = ~0u;
  for (; number >= 8; bytes += 8, number -= 8) {
    const uint32_t low = crc ^ read_at<uint32_t>(bytes), high = read_at<uint32_t>(bytes + 4);
    crc = tables[7][low & 0xff] ^ tables[6][low >> 8 & 0xff] ^ tables[5][low >> 16 & 0xff] ^
          tables[4][low >> 24] ^ tables[3][high & 0xff] ^ tables[2][high >> 8 & 0xff] ^
          tables[1][high >> 16 & 0xff] ^ tables[0][high >> 24];
  }
  for (; number; ++bytes, --number) crc = tables[0][(crc ^ *bytes) & 0xff] ^ (crc >> 8);
  return ~crc;
}

float widen(uint16_t half) {
  uint32_t bits = static_cast<uint32_t>(half & 0x7fff) << 13;
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  value *= 0x1p112f;  // the exponents' offsets are 15 and 127
  if (value >= 0x1p16f) value = half & 0x3ff ? NAN : INFINITY;
  return half >> 15 ? -value : value;
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

std::vector<uint8_t> read_file(const std::string& path) {
  const auto failed = [&](const std::string& reason) {
    throw Error("the packed model '" + path + "' cannot be read (" + reason +
                "): give the path of a file that bhvit-seg export wrote");
  };
  struct stat status;
  if (stat(path.c_str(), &status)) failed(std::strerror(errno));
  if (!S_ISREG(status.st_mode)) failed("not a regular file");  // a named pipe would block
  const std::unique_ptr<FILE, int (*)(FILE*)> file(std::fopen(path.c_str(), "rb"), std::fclose);
  if (!file || fstat(fileno(file.get()), &status)) failed(std::strerror(errno));
  if (static_cast<uint64_t>(status.st_size) > kMaxBytes) failed("too large to be one");
  std::vector<uint8_t> bytes(static_cast<size_t>(status.st_size));
  const size_t got = bytes.empty() ? 0 : std::fread(bytes.data(), 1, bytes.size(), file.get());
  if (std::ferror(file.get())) failed(std::strerror(errno));
  bytes.resize(got);
  return bytes;
}

}  // namespace

void TensorFile::damaged(const std::string& what) const {
  throw Error(path_ + " is damaged (" + what + "): copy it again, or " + kExportAgain);
}

void TensorFile::unsupported(const std::string& what) const {
  throw Error(path_ + " cannot be run (" + what + "): " + kExportAgain);
}

TensorFile::TensorFile(const std::string& path) : path_(path), bytes_(read_file(path)) {
  const uint8_t* const bytes = bytes_.data();
  const size_t size = bytes_.size();
  if (size < 8 || std::memcmp(bytes, kMagic, 8) != 0) {
    throw Error(path + " is not a packed model: give a file made by bhvit-seg export");
  }
  if (size < kHeader) damaged("it ends in its header");
  const uint32_t version = read_at<uint32_t>(bytes + 8);
  const uint32_t order = read_at<uint32_t>(bytes + 12);
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
  if (read_at<uint64_t>(bytes + 16) != size) {
    damaged("it has " + std::to_string(size) + " bytes instead of " +
            std::to_string(read_at<uint64_t>(bytes + 16)));
  }
  if (read_at<uint32_t>(bytes + 24) != crc32(bytes + 28, size - 28)) {
    damaged("its checksum does not fit");
  }
  const uint32_t number = read_at<uint32_t>(bytes + 28);
  const uint64_t meta = read_at<uint32_t>(bytes + 32), directory = read_at<uint32_t>(bytes + 36);
  if (kHeader + meta + directory > size) damaged("its directory lies outside");
  if (number > kMaxTensors) damaged("it names too many tensors");
  meta_length_ = static_cast<size_t>(meta);
  read_directory(kHeader + meta_length_, static_cast<size_t>(directory), number);
  check_places(kHeader + meta_length_ + static_cast<size_t>(directory));
}

std::string TensorFile::meta() const {
  return {reinterpret_cast<const char*>(bytes_.data()) + kHeader, meta_length_};
}

void TensorFile::read_directory(size_t offset, size_t length, uint32_t number) {
  const uint8_t* p = bytes_.data() + offset;
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
    if (tensor.offset > bytes_.size() || tensor.bytes() > bytes_.size() - tensor.offset) {
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

Shape TensorFile::shape(const std::string& name) const { return find(name).shape; }

Aligned<float> TensorFile::floats(const std::string& name, const Shape& shape) const {
  const Tensor& tensor = find(name, shape);
  Aligned<float> values(tensor.number);
  const uint8_t* from = bytes_.data() + tensor.offset;
  if (tensor.type == TensorType::kFloat32) {
    if (tensor.number) std::memcpy(values.data(), from, tensor.number * 4);
  } else if (tensor.type == TensorType::kFloat16) {
    for (size_t i = 0; i < tensor.number; ++i) values[i] = widen(read_at<uint16_t>(from + 2 * i));
  } else {
    damaged(name + " has the wrong type");
  }
  bool finite = true;
  for (float value : values) finite &= std::fabs(value) <= FLT_MAX;
  if (!finite) unsupported(name + " has a value that is not finite");
  return values;
}

Aligned<uint32_t> TensorFile::words(const std::string& name, const Shape& shape) const {
  const Tensor& tensor = find(name, shape);
  if (tensor.type != TensorType::kUint32) damaged(name + " has the wrong type");
  Aligned<uint32_t> values(tensor.number);
  if (tensor.number) std::memcpy(values.data(), bytes_.data() + tensor.offset, tensor.number * 4);
  return values;
}

std::vector<int32_t> TensorFile::integers(const std::string& name, const Shape& shape) const {
  const Tensor& tensor = find(name, shape);
  if (tensor.type != TensorType::kInt32) damaged(name + " has the wrong type");
  std::vector<int32_t> values(tensor.number);
  if (tensor.number) std::memcpy(values.data(), bytes_.data() + tensor.offset, tensor.number * 4);
  return values;
}

}  // namespace bhvit
