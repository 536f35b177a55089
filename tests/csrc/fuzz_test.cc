// Damaged packed models: each is refused in one sentence that names the file, or loads and then
// runs without touching what is not its own. Meant for AddressSanitizer and UBSan.
//
//   fuzz_test MODEL TRIES [FIRST]
//
// Try n is the same in every run; the damaged file stays beside the model after a failure.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <fstream>
#include <iterator>
#include <limits>

#include "dispatch.h"
#include "error.h"
#include "random_image.h"

namespace {

using namespace bhvit;
using testing::Random;
using Bytes = std::vector<uint8_t>;

constexpr size_t kHeader = 40;
// Places of the header's numbers.
constexpr size_t kVersionAt = 8, kOrderAt = 12, kSizeAt = 16, kChecksumAt = 24, kNumberAt = 28,
                 kMetaAt = 32, kDirectoryAt = 36;

template <typename T>
T get(const Bytes& bytes, size_t at) {
  T value;
  std::memcpy(&value, bytes.data() + at, sizeof(T));
  return value;
}

template <typename T>
void put(Bytes& bytes, size_t at, T value) {
  std::memcpy(bytes.data() + at, &value, sizeof(T));
}

// Where the parts of a directory entry stand.
struct Entry {
  std::string name;
  size_t name_at, type_at, offset_at;
  int dimensions;
  size_t dimension_at(int d) const { return type_at + 2 + 4 * static_cast<size_t>(d); }
};

std::vector<Entry> read_directory(const Bytes& bytes) {
  std::vector<Entry> entries;
  size_t at = kHeader + get<uint32_t>(bytes, kMetaAt);
  for (uint32_t i = 0; i < get<uint32_t>(bytes, kNumberAt); ++i) {
    Entry entry;
    const size_t length = get<uint16_t>(bytes, at);
    entry.name_at = at + 2;
    entry.name.assign(bytes.begin() + entry.name_at, bytes.begin() + entry.name_at + length);
    entry.type_at = entry.name_at + length;
    entry.dimensions = bytes[entry.type_at + 1];
    entry.offset_at = entry.dimension_at(entry.dimensions);
    at = entry.offset_at + 8;
    entries.push_back(entry);
  }
  return entries;
}

// CRC-32, bit by bit.
uint32_t checksum_of(const Bytes& bytes) {
  static const std::vector<uint32_t> table = [] {
    std::vector<uint32_t> t;
    for (uint32_t i = 0; i < 256; ++i) {
      uint32_t c = i;
      for (int k = 0; k < 8; ++k) c = (c >> 1) ^ ((c & 1) * 0xedb88320u);
      t.push_back(c);
    }
    return t;
  }();
  uint32_t crc = 0xffffffffu;
  for (size_t i = kNumberAt; i < bytes.size(); ++i) crc = table[(crc ^ bytes[i]) & 255] ^ crc >> 8;
  return crc ^ 0xffffffffu;
}

// Makes size and checksum fit again.
void seal(Bytes& bytes) {
  if (bytes.size() < kHeader) return;
  put<uint64_t>(bytes, kSizeAt, bytes.size());
  put<uint32_t>(bytes, kChecksumAt, checksum_of(bytes));
}

uint64_t extreme(uint64_t usual, Random& random) {
  const uint64_t values[] = {0,
                             1,
                             2,
                             3,
                             4,
                             31,
                             33,
                             255,
                             256,
                             0x7fff,
                             0xffff,
                             0x7fffffff,
                             0x80000000,
                             0xfffffffc,
                             0xffffffff,
                             uint64_t{1} << 62,
                             uint64_t{1} << 63,
                             ~uint64_t{3},
                             ~uint64_t{0},
                             usual + 1,
                             usual - 1,
                             usual + 4,
                             usual - 4,
                             2 * usual,
                             usual / 2,
                             0 - usual,
                             random.word()};
  return random.one_of(values);
}

// A change to a file, which may be none.
using Change = void (*)(Bytes&, const std::vector<Entry>&, Random&);

const Entry& any(const std::vector<Entry>& entries, Random& random) {
  return entries[random.below(static_cast<int>(entries.size()))];
}

void cut(Bytes& bytes, const std::vector<Entry>& entries, Random& random) {
  const size_t directory = entries.front().name_at, data = entries.back().offset_at + 8;
  const size_t ends[] = {9, kHeader + 1, directory, data, bytes.size()};
  bytes.resize(random.word() % random.one_of(ends));
}

void extend(Bytes& bytes, const std::vector<Entry>&, Random& random) {
  for (int i = random.between(1, 100); i; --i) bytes.push_back(random.word() & 255);
}

void flip_bits(Bytes& bytes, const std::vector<Entry>&, Random& random) {
  for (int i = random.between(1, 8); i; --i)
    bytes[random.word() % bytes.size()] ^= 1 << random.below(8);
}

void flip_directory_bits(Bytes& bytes, const std::vector<Entry>& entries, Random& random) {
  const size_t end = entries.back().offset_at + 8;
  for (int i = random.between(1, 4); i; --i) bytes[random.word() % end] ^= 1 << random.below(8);
}

void change_header(Bytes& bytes, const std::vector<Entry>&, Random& random) {
  const size_t places[] = {kVersionAt, kOrderAt, kChecksumAt, kNumberAt, kMetaAt, kDirectoryAt};
  const size_t at = random.one_of(places);
  put(bytes, at, static_cast<uint32_t>(extreme(get<uint32_t>(bytes, at), random)));
}

void change_size(Bytes& bytes, const std::vector<Entry>&, Random& random) {
  put(bytes, kSizeAt, extreme(bytes.size(), random));
}

void swap_byte_order(Bytes& bytes, const std::vector<Entry>&, Random&) {
  put(bytes, kOrderAt, __builtin_bswap32(get<uint32_t>(bytes, kOrderAt)));
}

void change_name_length(Bytes& bytes, const std::vector<Entry>& entries, Random& random) {
  const size_t at = any(entries, random).name_at - 2;
  put(bytes, at, static_cast<uint16_t>(extreme(get<uint16_t>(bytes, at), random)));
}

void change_type(Bytes& bytes, const std::vector<Entry>& entries, Random& random) {
  bytes[any(entries, random).type_at] = random.below(3) ? random.below(5) : random.below(256);
}

void change_dimensions(Bytes& bytes, const std::vector<Entry>& entries, Random& random) {
  bytes[any(entries, random).type_at + 1] = static_cast<uint8_t>(extreme(2, random));
}

void change_dimension(Bytes& bytes, const std::vector<Entry>& entries, Random& random) {
  const Entry& entry = any(entries, random);
  const size_t at = entry.dimension_at(random.below(entry.dimensions));
  put(bytes, at, static_cast<uint32_t>(extreme(get<uint32_t>(bytes, at), random)));
}

// Position embeddings and pooling scales have sizes of their own.
void change_free_size(Bytes& bytes, const std::vector<Entry>& entries, Random& random) {
  for (;;) {
    const Entry& entry = any(entries, random);
    const bool scales = entry.name == "head.pool_scales";
    if (!scales && entry.name.find("position") == std::string::npos) continue;
    const int first = scales ? 0 : 1;
    const uint32_t usual = get<uint32_t>(bytes, entry.dimension_at(first));
    const uint32_t size = static_cast<uint32_t>(random.below(static_cast<int>(usual) + 2));
    for (int d = first; d < entry.dimensions; ++d) put(bytes, entry.dimension_at(d), size);
    return;
  }
}

void change_offset(Bytes& bytes, const std::vector<Entry>& entries, Random& random) {
  const Entry &entry = any(entries, random), &other = any(entries, random);
  const uint64_t offset = get<uint64_t>(bytes, other.offset_at);
  put(bytes, entry.offset_at, random.below(2) ? offset : extreme(bytes.size(), random));
}

void exchange_tensors(Bytes& bytes, const std::vector<Entry>& entries, Random& random) {
  const Entry& entry = any(entries, random);
  for (int tries = 0; tries < 100; ++tries) {
    const Entry& other = any(entries, random);
    if (other.dimensions != entry.dimensions || &other == &entry) continue;
    std::swap_ranges(bytes.begin() + entry.type_at, bytes.begin() + entry.offset_at + 8,
                     bytes.begin() + other.type_at);
    return;
  }
}

void rename_tensor(Bytes& bytes, const std::vector<Entry>& entries, Random& random) {
  const Entry& entry = any(entries, random);
  bytes[entry.name_at + random.word() % entry.name.size()] = random.word() & 255;
}

void name_twice(Bytes& bytes, const std::vector<Entry>& entries, Random& random) {
  const Entry& entry = any(entries, random);
  for (int tries = 0; tries < 100; ++tries) {
    const Entry& other = any(entries, random);
    if (other.name.size() != entry.name.size() || &other == &entry) continue;
    std::copy(other.name.begin(), other.name.end(), bytes.begin() + entry.name_at);
    return;
  }
}

size_t data_of(const Bytes& bytes, const std::vector<Entry>& entries, const char* name) {
  for (const Entry& entry : entries)
    if (entry.name == name) return get<uint64_t>(bytes, entry.offset_at);
  return 0;
}

void change_architecture(Bytes& bytes, const std::vector<Entry>& entries, Random& random) {
  const size_t at = data_of(bytes, entries, "architecture");
  for (int i = random.between(1, 3); i; --i) {
    const size_t number = at + 4 * random.below(24);
    put(bytes, number, static_cast<uint32_t>(extreme(get<uint32_t>(bytes, number), random)));
  }
}

// Numbers that no other tensor's size depends on: the window, both flags, the divisor of sides.
void change_free_numbers(Bytes& bytes, const std::vector<Entry>& entries, Random& random) {
  const size_t at = data_of(bytes, entries, "architecture");
  const int depths[] = {1, 2, 3, 4};
  if (random.below(2)) put<int32_t>(bytes, at + 4 * random.one_of(depths), 0);
  put<int32_t>(bytes, at + 4 * 17, random.between(1, random.below(4) ? 10 : 256));
  put<int32_t>(bytes, at + 4 * 22, random.below(2));
  put<int32_t>(bytes, at + 4 * 23, random.between(1, 40));
}

void change_pool_scales(Bytes& bytes, const std::vector<Entry>& entries, Random& random) {
  const size_t at = data_of(bytes, entries, "head.pool_scales");
  if (!at) return change_free_size(bytes, entries, random);
  put<int32_t>(bytes, at + 4 * random.below(4), random.between(-1, 18));
}

// Values that no training gives; whoever computes with them goes on.
void change_values(Bytes& bytes, const std::vector<Entry>& entries, Random& random) {
  const float values[] = {std::numeric_limits<float>::quiet_NaN(),
                          std::numeric_limits<float>::infinity(),
                          -std::numeric_limits<float>::infinity(),
                          3e38f,
                          -3e38f,
                          1e-45f,
                          0.0f};
  for (int i = random.between(1, 5); i; --i) {
    const Entry& entry = any(entries, random);
    if (bytes[entry.type_at] != 0) continue;
    size_t number = 1;
    for (int d = 0; d < entry.dimensions; ++d)
      number *= get<uint32_t>(bytes, entry.dimension_at(d));
    const size_t at = get<uint64_t>(bytes, entry.offset_at);
    for (int j = random.between(1, 20); j; --j)
      put(bytes, at + 4 * (random.word() % number), random.one_of(values));
  }
}

void replace_all(Bytes& bytes, const std::vector<Entry>&, Random& random) {
  bytes.resize(random.below(2) ? kHeader + random.below(300) : random.below(60));
  for (size_t i = random.below(4) ? kNumberAt : 0; i < bytes.size(); ++i)
    bytes[i] = random.below(2) ? random.word() & 255 : 0;
}

struct NamedChange {
  const char* name;
  Change change;
  bool always_sealed;  // else as often as not
};

constexpr NamedChange kChanges[] = {
    {"cut", cut, false},
    {"extend", extend, false},
    {"flip bits", flip_bits, false},
    {"flip directory bits", flip_directory_bits, true},
    {"change header", change_header, false},
    {"change size", change_size, false},
    {"swap byte order", swap_byte_order, false},
    {"change length of a name", change_name_length, true},
    {"change type", change_type, true},
    {"change number of dimensions", change_dimensions, true},
    {"change dimension", change_dimension, true},
    {"change free size", change_free_size, true},
    {"change offset", change_offset, true},
    {"exchange tensors", exchange_tensors, true},
    {"rename tensor", rename_tensor, true},
    {"name twice", name_twice, true},
    {"change architecture", change_architecture, true},
    {"change free numbers", change_free_numbers, true},
    {"change pool scales", change_pool_scales, true},
    {"change values", change_values, true},
    {"replace all", replace_all, false},
};
constexpr int kNumber = sizeof(kChanges) / sizeof(kChanges[0]);

// Loads a file and runs it once if it loads; what was said if it was refused.
std::string refusal_of(const std::string& path, int attempt, Random& random) {
  const std::vector<std::string> names = instruction_sets();
  try {
    Model model(TensorFile(path), 1 + attempt % 2,
                choose_kernels(names[attempt / kNumber % names.size()]));
    const testing::RandomImage image(random.between(4, 40), random.between(4, 70),
                                     model.architecture().in_channels, random);
    const testing::Answer answer(model, random.below(2) ? image.as_bytes() : image.as_floats());
    return "";
  } catch (const Error& error) {
    return error.what();
  }
}

bool is_sentence_about(const std::string& text, const std::string& path) {
  return text.find(path) != std::string::npos && text.find('\n') == std::string::npos;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) {
    std::fprintf(stderr, "usage: fuzz_test MODEL TRIES [FIRST]\n");
    return 2;
  }
  const std::string damaged = std::string(argv[1]) + ".damaged";
  std::ifstream stream(argv[1], std::ios::binary);
  const Bytes whole((std::istreambuf_iterator<char>(stream)), std::istreambuf_iterator<char>());
  if (whole.size() < kHeader) {
    std::fprintf(stderr, "%s is no packed model\n", argv[1]);
    return 2;
  }
  const std::vector<Entry> entries = read_directory(whole);
  const int tries = std::atoi(argv[2]), first = argc > 3 ? std::atoi(argv[3]) : 0;
  int refused[kNumber] = {}, loaded[kNumber] = {};
  for (int attempt = first; attempt < first + tries; ++attempt) {
    Random random(static_cast<uint64_t>(attempt) + 1);
    const int kind = attempt % kNumber;
    Bytes bytes = whole;
    kChanges[kind].change(bytes, entries, random);
    const bool sealed = kChanges[kind].always_sealed || random.below(2);
    if (sealed) seal(bytes);
    std::ofstream(damaged, std::ios::binary)
        .write(reinterpret_cast<const char*>(bytes.data()), static_cast<long>(bytes.size()));
    std::string refusal;
    try {
      refusal = refusal_of(damaged, attempt, random);
    } catch (const std::exception& error) {
      refusal = std::string("no Error of the engine: ") + error.what();
    }
    ++(refusal.empty() ? loaded : refused)[kind];
    if (refusal.empty() && !sealed && bytes != whole) refusal = "it loads though it is damaged";
    if (!refusal.empty() && !is_sentence_about(refusal, damaged)) {
      std::fprintf(stderr, "FAILED try %d (%s): %s\n", attempt, kChanges[kind].name,
                   refusal.c_str());
      return 1;
    }
  }
  std::remove(damaged.c_str());
  for (int kind = 0; kind < kNumber; ++kind)
    std::printf("%-28s refused %d, ran %d\n", kChanges[kind].name, refused[kind], loaded[kind]);
  return 0;
}
