#include "mirfs/scan_ahead.h"

#include <algorithm>
#include <exception>
#include <utility>

namespace mirage {
namespace {

constexpr size_t kLargestFile = 128 << 10;  // larger ones the kernel reads ahead in by itself
constexpr size_t kMostListed = 4096;        // of a directory; behind them every file is asked for
constexpr size_t kFirstWindow = 8, kMostWindow = 64;  // files
constexpr size_t kWindowBytes = 1 << 20;
constexpr size_t kHeadStart = 1;                       // files
constexpr size_t kMostScans = 4, kMostSteps = 16;
constexpr auto kScanEnds = std::chrono::seconds(1);  // of idleness: who comes then may find the pages gone

}  // namespace

ScanAhead::ScanAhead(VersionsFs& filesystem, PageStore& pages)
    : filesystem_(filesystem), pages_(pages), queue_(kMostSteps, [this](const Step& step) {
        try {
          Take(step);
        } catch (const std::exception&) {  // out of memory: the scanner asks for the files
          scans_.clear();
          throw;
        }
      }) {}

void ScanAhead::Note(NodeId node) noexcept {
  const NodeId directory = filesystem_.DirectoryOf(node);
  if (directory == 0) return;
  newest_ = node;
  Step step{.before = 0, .node = node, .directory = directory, .again = filesystem_.MarkRead(node)};
  {
    const std::lock_guard lock(mutex_);
    const bool same = directory == last_directory_;
    if (same) step.before = last_node_;
    last_directory_ = directory;
    last_node_ = node;
    if (!same && !scanning_) return;
  }
  queue_.Push(step);
}

ScanAhead::Scan* ScanAhead::ScanOf(const Step& step, bool* is_new) {
  const auto now = Clock::now();
  std::erase_if(scans_, [&](const Scan& scan) { return now - scan.used > kScanEnds; });
  const auto found = std::find_if(scans_.begin(), scans_.end(),
                                  [&](const Scan& scan) { return scan.directory == step.directory; });
  *is_new = found == scans_.end();
  if (!*is_new) {
    found->used = now;
    return &*found;
  }
  auto files = filesystem_.SmallFilesOf(step.directory, kMostListed, kLargestFile);
  if (!files) return nullptr;
  if (scans_.size() == kMostScans) {
    scans_.erase(std::min_element(scans_.begin(), scans_.end(), [](const Scan& a, const Scan& b) { return a.used < b.used; }));
  }
  Scan scan;
  scan.directory = step.directory;
  scan.files = std::move(*files);
  scan.used = now;
  for (size_t i = 0; i < scan.files.size(); ++i) scan.places.emplace(scan.files[i].node, i);
  scans_.push_back(std::move(scan));
  return &scans_.back();
}

void ScanAhead::Take(const Step& step) {
  bool is_new = false;
  Scan* const scan = ScanOf(step, &is_new);
  if (scan == nullptr) return;
  const auto found = scan->places.find(step.node);
  if (found == scan->places.end()) return;  // a large file: the scan may go on behind it
  const size_t place = found->second;
  if (!is_new && place < scan->next && place + kMostWindow > scan->next) return;  // asked for while others were handed over
  bool in_order = place >= scan->next && place <= scan->next + kHeadStart;
  if (is_new && place > 0) in_order = scan->files[place - 1].node == step.before;
  scan->next = place + 1;
  scan->dropped = step.again;
  const bool scanned_before = scanning_.exchange(in_order);
  const size_t least = scanned_before ? kMostWindow : kFirstWindow;
  scan->window = in_order ? std::clamp(scan->window * 2, least, kMostWindow) : 0;
  HandOver(*scan);
}

void ScanAhead::HandOver(Scan& scan) {
  const size_t end = std::min(scan.files.size(), scan.next + scan.window);
  for (uint64_t handed = 0; handed < kWindowBytes; ++scan.next) {
    // Where the scanner asks now, it is faster by itself: we are of use a little ahead of it.
    if (const auto asked = scan.places.find(newest_); asked != scan.places.end() && asked->second + kHeadStart >= scan.next) {
      scan.next = asked->second + 1 + kHeadStart;
    }
    if (scan.next >= end) break;
    const SmallFile& file = scan.files[scan.next];
    if (!scan.dropped && filesystem_.WasRead(file.node)) continue;
    handed += file.size;
    // What cannot be read is asked for, and the error told then.
    (void)filesystem_.WithBytes(file.node, 0, kLargestFile,
                                [&](std::string_view bytes) { pages_.StorePages(file.node, 0, bytes); });
    filesystem_.MarkRead(file.node);
  }
}

}  // namespace mirage
