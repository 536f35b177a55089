// Threads that share the pieces of one layer after another.
//
// A layer is cut into more pieces than there are threads, and each thread, the caller's included,
// takes the next piece when it is done with one, so a thread that another process holds up delays
// only its own piece. Between layers threads wait in a short, bounded spin, since the next layer
// is microseconds away, and sleep after it, since a spinning thread on a busy machine takes the
// core from a thread that has work.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

namespace bhvit {

// A number that fork changes in the new process. That process has copies of all pools, locks and
// buffers and none of the threads that use them: it must not touch them, not even to destroy them.
unsigned process_generation();

class ThreadPool {
 public:
  // `threads`: how many work, the caller's among them. Throws Error if they can't be started.
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int size() const { return size_; }

  // Calls work(piece, thread) for every piece in [0, pieces), and returns when all are done.
  // thread < size() tells whose scratch memory may be used. One caller at a time.
  template <typename Work>
  void run(int pieces, const Work& work) {
    run_erased(
        pieces,
        [](const void* context, int piece, int thread) {
          (*static_cast<const Work*>(context))(piece, thread);
        },
        &work);
  }

 private:
  using Function = void (*)(const void*, int, int);

  void run_erased(int pieces, Function function, const void* context);
  bool work_on_piece(int thread);
  void stop();
  void serve(int thread);

  // The number of the layer in the high half, pieces that nobody has taken in the low half: who
  // lowers it owns a piece, so the layer can't end and its function stays valid.
  std::atomic<uint64_t> ticket_{0};
  std::atomic<int> unfinished_{0};
  Function function_ = nullptr;
  const void* context_ = nullptr;
  int pieces_ = 0;

  std::atomic<int> sleeping_{0};
  std::atomic<bool> stop_{false};
  const int size_;

  std::mutex mutex_;
  std::condition_variable wake_;
  std::vector<std::thread> workers_;
};

}  // namespace bhvit
