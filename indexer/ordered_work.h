// Jobs done on threads beside the one that puts them in, and given back to it in the order they were put in. For that one
// thread; `work` runs on several at once, on its own too: who waits for a job does meanwhile what was not begun.
#pragma once

#include <algorithm>
#include <condition_variable>
#include <cstddef>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

namespace mirage {

template <typename Job>
class OrderedWork {
 public:
  // `batch`: a thread that sleeps is woken for so many jobs. To wake it costs more than to read a small file.
  OrderedWork(int threads, size_t batch, std::function<void(Job&)> work)
      : batch_(batch), work_(std::move(work)), most_threads_(static_cast<size_t>(std::max(threads, 0))) {}
  // Waits for the jobs that were begun; the others are dropped.
  ~OrderedWork() {
    {
      const std::lock_guard lock(mutex_);
      stop_ = true;
    }
    wake_.notify_all();
    for (std::thread& thread : threads_) thread.join();
  }
  OrderedWork(const OrderedWork&) = delete;
  OrderedWork& operator=(const OrderedWork&) = delete;

  size_t size() const { return places_.size(); }

  void Add(Job job) {
    auto place = std::make_unique<Place>(std::move(job));
    const std::lock_guard lock(mutex_);
    waiting_.push_back(place.get());
    places_.push_back(std::move(place));
    if (waiting_.size() < batch_) return;
    if (idle_ > 0) {
      wake_.notify_one();
    } else if (threads_.size() < most_threads_) {
      threads_.emplace_back([this] { Run(); });
    }
  }
  // Whether the first job is done. There must be one.
  bool FirstIsDone() const {
    const std::lock_guard lock(mutex_);
    return places_.front()->done;
  }
  // The first job, once it is done.
  Job Take() {
    std::unique_lock lock(mutex_);
    const Place& first = *places_.front();
    while (!first.done && !waiting_.empty()) DoNext(lock);
    done_.wait(lock, [&] { return first.done; });
    const std::unique_ptr<Place> taken = std::move(places_.front());
    places_.pop_front();
    return std::move(taken->job);
  }

 private:
  struct Place {
    explicit Place(Job j) : job(std::move(j)) {}
    Job job;
    bool done = false;  // guarded by mutex_
  };

  void Run() {
    std::unique_lock lock(mutex_);
    for (;;) {
      ++idle_;
      wake_.wait(lock, [&] { return stop_ || !waiting_.empty(); });
      --idle_;
      while (!stop_ && !waiting_.empty()) DoNext(lock);
      if (stop_) return;
    }
  }

  void DoNext(std::unique_lock<std::mutex>& lock) {
    Place& place = *waiting_.front();
    waiting_.pop_front();
    lock.unlock();
    work_(place.job);
    lock.lock();
    place.done = true;
    if (&place == places_.front().get()) done_.notify_one();
  }

  const size_t batch_;
  const std::function<void(Job&)> work_;
  const size_t most_threads_;
  std::deque<std::unique_ptr<Place>> places_;  // in order; of the caller's thread, and read under the mutex
  mutable std::mutex mutex_;                   // guards all below
  std::condition_variable wake_, done_;
  std::deque<Place*> waiting_;  // not begun: the last of `places_`
  size_t idle_ = 0;
  bool stop_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace mirage
