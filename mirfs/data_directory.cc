#include "mirfs/data_directory.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <exception>
#include <filesystem>
#include <vector>

#include "store/env.h"
#include "store/give_way.h"

namespace mirage {
namespace {

constexpr uint64_t kManyFiles = 16;    // after so many more are expected
constexpr uint64_t kMostSpares = 128;  // each holds a descriptor
constexpr auto kIdle = std::chrono::seconds(5);

}  // namespace

std::string DataDirectory::PathOf(uint64_t inode) const { return fmt::format("{}/{:016x}", path_, inode); }

Status DataDirectory::Visit(const std::function<Status(uint64_t inode)>& visit) const {
  std::error_code error;
  for (std::filesystem::directory_iterator it(path_, error), end; it != end; it.increment(error)) {
    const std::string name = it->path().filename();
    uint64_t inode = 0;
    const auto [last, bad] = std::from_chars(name.data(), name.data() + name.size(), inode, 16);
    if (bad == std::errc{} && last == name.data() + name.size()) TRY(visit(inode));
  }
  if (error) return Fail(error.value(), "{}: {}", path_, error.message());
  return {};
}

Result<int> DataDirectory::Make(uint64_t inode) {
  const std::string file = PathOf(inode);
  const int made = ::open(file.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (made < 0) return FailErrno(errno, "create " + file);
  if (Status shared = ShareLikeItsDirectory(file, made); !shared) {
    ::close(made);
    return tl::make_unexpected(std::move(shared).error());
  }
  const std::lock_guard lock(mutex_);
  ++made_;
  return made;
}

void DataDirectory::Remove(uint64_t inode) const { ::unlink(PathOf(inode).c_str()); }

Status DataDirectory::SyncNames() {
  const std::lock_guard one_sync(names_mutex_);
  uint64_t made = 0;
  {
    const std::lock_guard lock(mutex_);
    if (synced_ == made_) return {};
    made = made_;
  }
  TRY(Env::Default().SyncDirectory(path_));
  const std::lock_guard lock(mutex_);
  synced_ = made;
  return {};
}

Status DataDirectory::SyncAll() const {
  const int directory = ::open(path_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  const bool synced = directory >= 0 && ::syncfs(directory) == 0;
  const int error = errno;
  if (directory >= 0) ::close(directory);
  return synced ? Status() : FailErrno(error, "sync " + path_);
}

std::optional<DataDirectory::Spare> DataDirectory::TakeSpare() {
  Spare spare;
  {
    const std::lock_guard lock(mutex_);
    ++wanted_;
    last_wanted_ = std::chrono::steady_clock::now();
    if (spares_.empty()) return std::nullopt;
    spare = spares_.front();
    spares_.pop_front();
  }
  (void)::futimens(spare.descriptor, nullptr);  // were it refused, the times would be a little old
  return spare;
}

uint64_t DataDirectory::SparesWanted() {
  const std::lock_guard lock(mutex_);
  const uint64_t target = wanted_ < kManyFiles ? 0 : std::min(wanted_, kMostSpares);
  const uint64_t have = spares_.size() + ordered_.size();
  return have < target / 2 ? target - have : 0;
}

void DataDirectory::AddSpares(uint64_t first, uint64_t count) noexcept {
  const std::unique_lock maker_lock(maker_mutex_, std::try_to_lock);
  if (!maker_lock) return;  // they are being removed: not worth the wait
  const std::lock_guard lock(mutex_);
  try {
    for (uint64_t inode = first; inode < first + count; ++inode) ordered_.push_back(inode);
    if (!maker_.joinable()) maker_ = std::thread([this] { MakeSpares(); });
  } catch (const std::exception&) {
    ordered_.clear();
  }
  wake_.notify_one();
}

void DataDirectory::MakeSpares() {
  RunAnywhere();
  std::unique_lock lock(mutex_);
  for (;;) {
    wake_.wait(lock, [this] { return stop_ || !ordered_.empty(); });
    if (stop_) return;
    const uint64_t inode = ordered_.front();
    ordered_.pop_front();
    lock.unlock();
    const auto made = Make(inode);
    lock.lock();
    if (made) {
      spares_.push_back({inode, *made});
    } else {
      ordered_.clear();  // whoever needs a file makes it, and hears of the trouble
    }
  }
}

void DataDirectory::RemoveSpares() {
  const std::lock_guard maker_lock(maker_mutex_);
  if (!maker_.joinable()) return;
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  wake_.notify_one();
  maker_.join();
  const std::lock_guard lock(mutex_);
  stop_ = false;
  for (const Spare& spare : spares_) {
    ::close(spare.descriptor);
    Remove(spare.inode);
  }
  spares_.clear();
  ordered_.clear();
}

void DataDirectory::RemoveIdleSpares() {
  {
    const std::lock_guard lock(mutex_);
    if (std::chrono::steady_clock::now() - last_wanted_ < kIdle) return;
    wanted_ = 0;
  }
  RemoveSpares();
}

}  // namespace mirage
