#include "mirfs/read_around.h"

#include <algorithm>

namespace mirage {
namespace {

constexpr uint64_t kWindowBytes = 512 << 10;  // about a block
constexpr size_t kRegionWindows = 128;        // 64 MiB
constexpr size_t kFewWindows = 8;             // a file that has no more is no region
constexpr uint64_t kMostWindows = 1 << 16;    // longer files are asked for behind them
constexpr size_t kMostFiles = 4, kMostSteps = 64;
constexpr auto kReadingEnds = std::chrono::seconds(1);  // of idleness: who comes then may find the pages gone

}  // namespace

ReadAround::ReadAround(VersionsFs& filesystem, PageStore& pages)
    : filesystem_(filesystem), pages_(pages), queue_(kMostSteps, [this](const Step& step) { Take(step); }) {}

void ReadAround::Note(NodeId node, uint64_t offset, size_t size) noexcept {
  // At its beginning every file is read, most of them to their end.
  if (size <= kMostAwaitedBytes && offset >= kWindowBytes) queue_.Push({.node = node, .window = offset / kWindowBytes});
}

ReadAround::File* ReadAround::FileOf(NodeId node) {
  const auto now = Clock::now();
  std::erase_if(files_, [&](const File& file) { return now - file.used > kReadingEnds; });
  auto found = std::find_if(files_.begin(), files_.end(), [&](const File& file) { return file.node == node; });
  if (found == files_.end()) {
    const auto size = filesystem_.SizeOf(node);
    if (!size) return nullptr;
    if (files_.size() == kMostFiles) {
      files_.erase(std::min_element(files_.begin(), files_.end(), [](const File& a, const File& b) { return a.used < b.used; }));
    }
    File file;
    file.node = node;
    file.windows.resize(std::min((*size + kWindowBytes - 1) / kWindowBytes, kMostWindows));
    file.seen.resize((file.windows.size() + kRegionWindows - 1) / kRegionWindows);
    found = files_.insert(files_.end(), std::move(file));
  }
  found->used = now;
  return &*found;
}

void ReadAround::Give(File& file, size_t window) {
  file.windows[window] = Window::kGiven;
  const uint64_t offset = window * kWindowBytes;
  // What cannot be read is asked for, and the error told then.
  (void)filesystem_.WithBytes(file.node, offset, kWindowBytes,
                              [&](std::string_view bytes) { pages_.StorePages(file.node, offset, bytes); });
}

void ReadAround::Take(const Step& step) {
  File* const file = FileOf(step.node);
  if (file == nullptr || step.window >= file->windows.size()) return;
  switch (file->windows[step.window]) {
    case Window::kGiven:  // and is asked for all the same: O_DIRECT, or no room in the kernel
      return;
    case Window::kTouched:
      return Give(*file, step.window);
    case Window::kUntouched:
      file->windows[step.window] = Window::kTouched;
      break;
  }
  const size_t region = step.window / kRegionWindows, first = region * kRegionWindows;
  const size_t end = std::min(first + kRegionWindows, file->windows.size());
  if (++file->seen[region] != (end - first + 7) / 8 || end - first <= kFewWindows) return;
  for (size_t window = first; window < end; ++window) {
    if (file->windows[window] != Window::kGiven) Give(*file, window);
  }
}

}  // namespace mirage
