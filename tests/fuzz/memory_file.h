// Files of a decoder that are in memory, and a disk of them.
#pragma once

#include <algorithm>
#include <cerrno>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "store/env.h"

namespace mirage::testing {

class MemoryFile final : public File {
 public:
  explicit MemoryFile(std::string_view bytes) : bytes_(std::make_shared<std::string>(bytes)) {}
  explicit MemoryFile(std::shared_ptr<std::string> bytes) : bytes_(std::move(bytes)) {}
  Status ReadAt(uint64_t offset, size_t size, std::string* out) const override {
    out->clear();
    out->reserve(size);  // the disk's takes as much before it knows
    if (offset < bytes_->size()) out->append(*bytes_, static_cast<size_t>(offset), size);
    return {};
  }
  Status WriteAt(uint64_t offset, std::string_view bytes) override {
    const auto at = static_cast<size_t>(offset);
    if (bytes_->size() < at + bytes.size()) bytes_->resize(at + bytes.size());
    bytes_->replace(at, bytes.size(), bytes);
    return {};
  }
  Status Truncate(uint64_t size) override {
    bytes_->resize(static_cast<size_t>(size));
    return {};
  }
  Status Sync() override { return {}; }
  Result<uint64_t> Size() const override { return bytes_->size(); }
  int descriptor() const override { return -1; }

 private:
  const std::shared_ptr<std::string> bytes_;
};

// Directories are there as soon as something is in them.
class MemoryEnv final : public Env {
 public:
  Result<std::unique_ptr<File>> Open(const std::string& path, OpenMode mode) override {
    auto& file = files[path];
    if (file && mode == OpenMode::kCreate) return Fail(EEXIST, "{}: it exists", path);
    if (!file && (mode == OpenMode::kRead || mode == OpenMode::kReadWrite)) {
      files.erase(path);
      return Fail(ENOENT, "{}: no such file", path);
    }
    if (!file) file = std::make_shared<std::string>();
    return std::make_unique<MemoryFile>(file);
  }
  Status Unlink(const std::string& path) override {
    return files.erase(path) > 0 ? Status() : Fail(ENOENT, "{}: no such file", path);
  }
  Status SyncDirectory(const std::string&) override { return {}; }
  Result<std::vector<std::string>> List(const std::string& path) override {
    std::vector<std::string> names;
    for (const auto& [file, bytes] : files) {
      if (!file.starts_with(path + "/")) continue;
      std::string name = file.substr(path.size() + 1);
      name.resize(std::min(name.find('/'), name.size()));
      if (names.empty() || names.back() != name) names.push_back(std::move(name));
    }
    return names;
  }
  Status MakeDirectory(const std::string&, unsigned) override { return {}; }
  Status Rename(const std::string&, const std::string&) override { return Fail(ENOSYS, "in memory"); }
  Status Link(const std::string&, const std::string&) override { return Fail(ENOSYS, "in memory"); }
  Status RemoveDirectory(const std::string&) override { return Fail(ENOSYS, "in memory"); }
  Result<FileInfo> Stat(const std::string&) override { return Fail(ENOSYS, "in memory"); }

  std::map<std::string, std::shared_ptr<std::string>> files;  // by path
};

}  // namespace mirage::testing
