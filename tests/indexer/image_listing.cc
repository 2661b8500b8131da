#include "tests/indexer/image_listing.h"

#include <cstdlib>

#include "indexer/direct_source.h"

namespace mirage::testing {
namespace {

// Takes everything and keeps what a tree's identity holds but for contents.
class ListingSink final : public ImportSink {
 public:
  bool Excluded(std::string_view) const override { return false; }
  Status Add(std::string path, Entry entry, const XattrSet& xattrs, std::string) override {
    return Note(std::move(path), entry, xattrs, 0);
  }
  Status AddFile(std::string path, Entry entry, const XattrSet& xattrs, std::string bytes) override {
    return Note(std::move(path), entry, xattrs, bytes.size());
  }
  Status BeginFile(std::string path, Entry entry, const XattrSet& xattrs) override {
    open_ = path;
    return Note(std::move(path), entry, xattrs, 0);
  }
  Status AppendFile(std::string_view bytes) override { return AppendHole(bytes.size()); }
  Status AppendHole(uint64_t length) override {
    sizes_[open_] += length;
    return {};
  }
  Status EndFile() override { return {}; }
  Status AddLink(std::string path, std::string first) override {
    lines_[std::move(path)] = "link to " + first;
    return {};
  }
  Status AddStored(std::string path, Entry entry) override { return Note(std::move(path), entry, {}, entry.size); }
  void Expect(uint64_t) override {}
  void Stage(std::string_view) override {}
  void Omit(std::string) override {}
  void Say(std::string_view) override {}

  std::map<std::string, std::string> Listing() const {
    auto all = lines_;
    for (const auto& [path, size] : sizes_) all[path] += fmt::format(" {} bytes", size);
    return all;
  }

 private:
  Status Note(std::string path, const Entry& entry, const XattrSet& xattrs, uint64_t size) {
    std::string line = fmt::format("{} {:o} {}:{} {}.{:09} {}:{}", static_cast<int>(entry.type), entry.mode, entry.uid,
                                   entry.gid, entry.mtime_sec, entry.mtime_nsec, entry.rdev_major, entry.rdev_minor);
    for (const auto& [name, value] : xattrs) line += fmt::format(" {}={}", name, value);
    lines_[path] = std::move(line);
    sizes_[std::move(path)] = size;
    return {};
  }
  std::map<std::string, std::string> lines_;
  std::map<std::string, uint64_t> sizes_;
  std::string open_;
};

}  // namespace

Result<std::map<std::string, std::string>> ListImage(const std::string& image) {
  ASSIGN_OR_RETURN(const auto source, DirectSource::Open(image, nullptr));
  ListingSink sink;
  ASSIGN_OR_RETURN(const auto description, source->Read(sink));
  return sink.Listing();
}

std::vector<size_t> WrittenPlaces(std::string_view image) {
  std::vector<size_t> places;
  for (size_t at = 0; at + 64 <= image.size(); at += 64) {
    if (image.substr(at, 64).find_first_not_of('\0') != std::string_view::npos) places.push_back(at);
  }
  return places;
}

uint64_t Setting(const char* name, uint64_t otherwise) {
  const char* const text = std::getenv(name);
  return text == nullptr ? otherwise : std::strtoull(text, nullptr, 0);
}

}  // namespace mirage::testing
