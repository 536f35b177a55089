// Aligned memory.
#pragma once

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <vector>

namespace bhvit {

constexpr size_t kAlignment = 64;

// Sizes of buffers are computed in 64 bits, since those of large images exceed 32, and become a
// size_t here. Throws std::bad_alloc if no object can have as many bytes.
inline size_t checked_size(uint64_t bytes, uint64_t limit = PTRDIFF_MAX) {
  if (bytes > limit) throw std::bad_alloc();
  return static_cast<size_t>(bytes);
}

template <typename T>
struct AlignedAllocator {
  using value_type = T;
  AlignedAllocator() = default;
  template <typename U>
  AlignedAllocator(const AlignedAllocator<U>&) {}
  T* allocate(size_t n) {
    const size_t bytes = (n * sizeof(T) + kAlignment - 1) / kAlignment * kAlignment;
    void* p = std::aligned_alloc(kAlignment, bytes ? bytes : kAlignment);
    if (!p) throw std::bad_alloc();
    return static_cast<T*>(p);
  }
  void deallocate(T* p, size_t) { std::free(p); }
  template <typename U>
  bool operator==(const AlignedAllocator<U>&) const {
    return true;
  }
  template <typename U>
  bool operator!=(const AlignedAllocator<U>&) const {
    return false;
  }
};

// How many elements a buffer has; throws std::bad_alloc if that is too many.
template <typename T>
size_t checked_count(uint64_t number) {
  return checked_size(number, PTRDIFF_MAX / sizeof(T));
}

template <typename T>
using Aligned = std::vector<T, AlignedAllocator<T>>;

// One block of zeros for the maps of an image size. Maps are walked in long strides, which costs a
// look into the page tables at every step unless pages are huge.
class Block {
 public:
  Block() = default;
  // Throws std::bad_alloc if the memory can't be had.
  explicit Block(uint64_t size) {
    constexpr size_t kHugePage = size_t{1} << 21;
    const size_t alignment = size < kHugePage ? kAlignment : kHugePage;
    const size_t bytes = checked_size((size + alignment - 1) / alignment * alignment);
    data_.reset(static_cast<uint8_t*>(std::aligned_alloc(alignment, bytes ? bytes : alignment)));
    if (!data_) throw std::bad_alloc();
#if defined(__linux__)
    if (alignment == kHugePage) madvise(data_.get(), bytes, MADV_HUGEPAGE);
#endif
    std::memset(data_.get(), 0, bytes);
  }
  uint8_t* data() const { return data_.get(); }

 private:
  struct Free {
    void operator()(uint8_t* p) const { std::free(p); }
  };
  std::unique_ptr<uint8_t, Free> data_;
};

// Hands out parts of one block of memory. Asked twice in the same order, first without a block to
// learn how large it has to be, then with it.
class Arena {
 public:
  explicit Arena(uint8_t* block = nullptr) : block_(block) {}

  template <typename T>
  T* take(uint64_t number) {
    used_ = (used_ + kAlignment - 1) / kAlignment * kAlignment;
    T* const part = block_ ? reinterpret_cast<T*>(block_ + static_cast<size_t>(used_)) : nullptr;
    used_ += number * sizeof(T);
    return part;
  }
  uint64_t used() const { return used_; }

 private:
  uint8_t* block_;
  uint64_t used_ = 0;
};

}  // namespace bhvit
