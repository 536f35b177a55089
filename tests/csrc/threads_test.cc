// The thread pool under many short layers, models side by side, and sizes of their buffers. Meant
// for ThreadSanitizer, too.
//
//   threads_test [MODEL...]
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <new>
#include <thread>

#include "dispatch.h"
#include "random_image.h"
#include "thread_pool.h"

namespace {

using namespace bhvit;
using testing::Answer;

int failures = 0;

void expect(bool condition, const char* what) {
  if (condition) return;
  ++failures;
  std::fprintf(stderr, "FAILED %s\n", what);
}

// Every piece is worked on once, by one thread at a time with its own scratch, and the caller sees
// the results: plain memory throughout, so that a missing synchronization is a race.
void test_regions(int threads) {
  ThreadPool pool(threads);
  expect(pool.size() == threads, "the pool has the size that was asked for");
  testing::Random random(static_cast<uint64_t>(threads));
  std::vector<int> done(200), by_thread(threads);
  for (int region = 0; region < 1500; ++region) {
    const int pieces = random.below(region % 10 ? 9 : 200);
    // long enough now and then for the others to fall asleep
    if (random.below(100) == 0) std::this_thread::sleep_for(std::chrono::microseconds(300));
    std::fill(done.begin(), done.end(), 0);
    std::fill(by_thread.begin(), by_thread.end(), 0);
    pool.run(pieces, [&](int piece, int thread) {
      done[piece] += region + 1;
      ++by_thread[thread];
    });
    int total = 0;
    for (int count : by_thread) total += count;
    expect(total == pieces, "as many pieces are done as there are");
    for (int piece = 0; piece < static_cast<int>(done.size()); ++piece)
      expect(done[piece] == (piece < pieces ? region + 1 : 0), "every piece is done once");
  }
}

void test_pools_come_and_go() {
  for (int i = 0; i < 200; ++i) {
    ThreadPool pool(1 + i % 8);
    std::atomic<int> sum{0};
    if (i % 3) pool.run(i, [&](int piece, int) { sum += piece; });
    expect(i % 3 == 0 || sum == i * (i - 1) / 2, "a new pool works");
  }
}

// Models, and one of them from two threads, each with threads of its own.
void test_models(int number, char** paths) {
  std::vector<std::thread> callers;
  std::vector<std::unique_ptr<Model>> models;
  std::vector<testing::RandomImage> images;
  std::vector<Answer> alone;
  testing::Random random(1);
  for (int i = 0; i < number; ++i) {
    models.push_back(std::make_unique<Model>(TensorFile(paths[i]), 2, choose_kernels("")));
    images.emplace_back(40, 56 + 8 * i, models[i]->architecture().in_channels, random);
    alone.emplace_back(*models[i], images[i].as_bytes());
  }
  std::atomic<int> different{0};
  for (int caller = 0; caller < number + 1; ++caller)
    callers.emplace_back([&, i = caller % number] {
      for (int call = 0; call < 5; ++call)
        if (Answer(*models[i], images[i].as_bytes()) != alone[i]) ++different;
    });
  for (std::thread& caller : callers) caller.join();
  expect(different == 0, "models side by side answer as alone");
}

bool is_refused(uint64_t bytes, uint64_t limit) {
  try {
    checked_size(bytes, limit);
    return false;
  } catch (const std::bad_alloc&) {
    return true;
  }
}

// Sizes that wrap in 32 bits are counted right, and refused where a size_t has 32.
void test_sizes_of_large_images(const char* path) {
  const Parameters parameters{TensorFile(path)};
  const auto size = [&](int side) { return Plan::bytes(parameters, side, side, 1); };
  const uint64_t limit = INT32_MAX;  // PTRDIFF_MAX of 32-bit ARM
  for (int side : {10240, 16000, 32000}) {
    const uint64_t large = size(side);
    expect(large > UINT32_MAX, "a large image takes more than 32 bits can count");
    expect(large > 4 * size(side / 2) * 0.98, "four times the pixels take four times the memory");
    expect(is_refused(large, limit), "a large image is refused where sizes have 32 bits");
  }
  expect(!is_refused(size(64), limit), "a small image is not");
  // 4 * 1048576 * 1040 = 2^32 + 67108864 bytes would wrap to what fits
  expect(planes_size(1024, 1009, 1024) == (uint64_t{1} << 30) / 1024 * 1040 + 3 * kLanes,
         "a map's size is its formula's");
  expect(!is_refused(limit, limit) && is_refused(limit + 1, limit), "the limit is the limit");
  expect(is_refused(UINT64_MAX, PTRDIFF_MAX), "no buffer has all bytes there are");
}

}  // namespace

int main(int argc, char** argv) {
  try {
    for (int threads = 1; threads <= 8; ++threads) test_regions(threads);
    test_pools_come_and_go();
    if (argc > 1) test_models(argc - 1, argv + 1);
    for (int i = 1; i < argc; ++i) test_sizes_of_large_images(argv[i]);
  } catch (const std::exception& error) {
    expect(false, error.what());
  }
  std::printf("%d failures\n", failures);
  return failures ? 1 : 0;
}
