#include "thread_pool.h"

#include <pthread.h>

#include <chrono>
#include <string>
#include <system_error>

#include "error.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace bhvit {
namespace {

constexpr auto kSpin = std::chrono::microseconds(100);
std::atomic<unsigned> generation{0};
[[maybe_unused]] const int registered = pthread_atfork(nullptr, nullptr, [] { ++generation; });

constexpr uint64_t kTaken = 0xffffffffu;  // the half of the ticket that counts pieces

void pause() {
#if defined(__x86_64__)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Spins until the condition holds, for a bounded time; whether it holds.
template <typename Condition>
bool spin_until(const Condition& condition) {
  const auto end = std::chrono::steady_clock::now() + kSpin;
  do {
    for (int i = 0; i < 64; ++i) {
      if (condition()) return true;
      pause();
    }
  } while (std::chrono::steady_clock::now() < end);
  return condition();
}

}  // namespace

unsigned process_generation() { return generation.load(std::memory_order_relaxed); }

ThreadPool::ThreadPool(int threads) : size_(threads) {
  try {
    for (int i = 1; i < threads; ++i) workers_.emplace_back([this, i] { serve(i); });
  } catch (const std::system_error& error) {
    const size_t started = workers_.size() + 1;
    stop();
    throw Error("only " + std::to_string(started) + " of " + std::to_string(threads) +
                " threads could be started (" + error.code().message() + "): ask for fewer");
  }
}

ThreadPool::~ThreadPool() { stop(); }

void ThreadPool::stop() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    stop_ = true;
  }
  wake_.notify_all();
  for (auto& thread : workers_) thread.join();
}

void ThreadPool::run_erased(int pieces, Function function, const void* context) {
  if (pieces <= 0) return;
  if (size_ == 1 || pieces == 1) {
    for (int piece = 0; piece < pieces; ++piece) function(context, piece, 0);
    return;
  }
  function_ = function;
  context_ = context;
  pieces_ = pieces;
  unfinished_.store(pieces, std::memory_order_relaxed);
  const uint64_t layer = (ticket_.load(std::memory_order_relaxed) >> 32) + 1;
  ticket_.store(layer << 32 | static_cast<uint32_t>(pieces));
  if (sleeping_.load()) {
    // taking the mutex makes sure that a thread which saw no work is asleep by now
    {
      const std::lock_guard<std::mutex> lock(mutex_);
    }
    wake_.notify_all();
  }
  while (work_on_piece(0)) {
  }
  const auto finished = [this] { return unfinished_.load(std::memory_order_acquire) == 0; };
  while (!spin_until(finished)) std::this_thread::yield();
}

bool ThreadPool::work_on_piece(int thread) {
  uint64_t ticket = ticket_.load(std::memory_order_acquire);
  do {
    if ((ticket & kTaken) == 0) return false;
  } while (!ticket_.compare_exchange_weak(ticket, ticket - 1, std::memory_order_acq_rel));
  const int piece = pieces_ - static_cast<int>(ticket & kTaken);
  function_(context_, piece, thread);
  unfinished_.fetch_sub(1, std::memory_order_acq_rel);
  return true;
}

void ThreadPool::serve(int thread) {
  const auto has_work = [this] {
    // sequentially consistent: pairs with the look at sleeping_ after the ticket was set
    return (ticket_.load() & kTaken) != 0 || stop_;
  };
  while (true) {
    while (work_on_piece(thread)) {
    }
    if (!spin_until(has_work)) {
      std::unique_lock<std::mutex> lock(mutex_);
      ++sleeping_;
      wake_.wait(lock, has_work);
      --sleeping_;
    }
    if (stop_) return;
  }
}

}  // namespace bhvit
